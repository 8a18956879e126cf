"""RequestState: positions, blocks and pages of one request."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from easel.scheduler.life import begin
from easel.scheduler.messages import ReplicaShape
from tests.fakes import request

EOS = frozenset({1})


@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 8), st.integers(1, 4))
def test_no_more_pages_are_asked_for_than_can_be_written(
    prompt: int, max_tokens: int, block: int, blocks_per_page: int
) -> None:
    where = ReplicaShape(1, 1000, block * blocks_per_page, block, 4096, EOS)
    state = begin(request("a", prompt, max_tokens), where, 0.0, 0)
    written, canvases = state.canvas_start, 1
    while state.canvas_start + state.limit < prompt + max_tokens:
        assert state.limit == block
        assert state.block_index == canvases - 1
        state.finish_block((7,) * block)
        written += block
        canvases += 1
    assert state.pages_needed == -(-written // where.page_size)
    assert len(state.tokens) == max(written, prompt)
    assert 1 <= state.limit <= block


@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 8))
def test_a_resumed_block_has_the_index_it_would_have_had(prompt: int, blocks: int, block: int) -> None:
    where = ReplicaShape(1, 1000, block, block, 4096, EOS)
    first = request("a", prompt, max_tokens=200)
    state = begin(first, where, 0.0, 0)
    for _ in range(blocks):
        state.finish_block((7,) * block)
    committed = tuple(state.tokens[prompt:])
    resumed = begin(replace(first, committed=committed), where, 0.0, 0)
    assert (resumed.block_index, resumed.canvas_start) == (state.block_index, state.canvas_start)
    assert (resumed.known, resumed.limit, resumed.tokens) == (0, state.limit, state.tokens)


def test_the_known_part_of_a_canvas_is_the_prompts_incomplete_block() -> None:
    where = ReplicaShape(1, 100, 8, 8, 4096, EOS)
    assert begin(request("a", 21, 30), where, 0.0, 0).known == 5
    assert begin(request("a", 24, 30), where, 0.0, 0).known == 0
    short = begin(request("a", 3, 2), where, 0.0, 0)
    assert (short.canvas_start, short.known, short.limit, short.pages_needed) == (0, 3, 5, 0)
