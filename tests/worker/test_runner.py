"""One forward holds rows of any kind, and a canvas gets out of it what it would get alone."""

from collections.abc import Sequence
from random import Random

import pytest
import torch

from easel.bench.oracles.cases import random_tokens
from easel.scheduler.messages import CanvasResult, Row
from easel.scheduler.phase import RowKind
from easel.scheduler.request import CommitRule, DiffusionParams, SamplingParams
from easel.worker.runner import Runner
from tests.checkpoints import MASK_ID
from tests.worker.rows import canvas, opening, plan, reuse, write
from tests.worker.tiny import VOCABULARY, Layout, TinyCheckpoint

SLOW = DiffusionParams(steps=32, commit_rule=CommitRule.STATIC_SCHEDULE)  # one position a step
POISON = 1e3


@pytest.fixture
def runner(endless: TinyCheckpoint) -> Runner:
    """Its pages hold what no prefix should ever see."""
    runner = endless.engine(Layout(slots=8, pages=32)).runner
    runner.machine.cache.keys[0].fill_(POISON)
    runner.machine.cache.values[0].fill_(POISON)
    return runner


@pytest.mark.parametrize("kind", [RowKind.COMMIT, RowKind.PREFILL])
def test_writing_a_block_and_opening_the_next_may_share_a_forward(
    endless: TinyCheckpoint, runner: Runner, kind: RowKind
) -> None:
    block = endless.block_length
    tokens = _tokens(3 * block)
    apart = endless.engine(Layout(slots=8, pages=32)).runner
    head = write(0, 0, tokens[: 2 * block], pages=(4, 1))
    last = write(0, 2 * block, tokens[2 * block :], pages=(4, 1, 7), kind=kind)
    canvas_row = opening(0, 3 * block, block, pages=(4, 1, 7), spec=canvas(block, diffusion=SLOW))
    runner.run(plan(head))
    together = runner.run(plan(last, canvas_row)).canvases
    for row in (head, last):
        assert apart.run(plan(row)).canvases == ()
    _assert_same(together, apart.run(plan(canvas_row)).canvases)
    torch.testing.assert_close(_prefix(runner, (4, 1, 7)), _prefix(apart, (4, 1, 7)), atol=1e-5, rtol=1e-5)


def test_results_follow_the_plans_canvas_rows_whatever_their_prefixes(
    endless: TinyCheckpoint, runner: Runner
) -> None:
    block = endless.block_length
    lengths = {3: 4, 0: 0, 5: 2, 1: 1, 6: 0}  # blocks of prefix, by slot
    first_page = {3: 0, 0: 0, 5: 10, 1: 20, 6: 0}
    writes: list[Row] = []
    canvases: list[Row] = []
    for slot, count in lengths.items():
        pages = tuple(range(first_page[slot], first_page[slot] + count))
        if count:
            writes.append(write(slot, 0, _tokens(count * block, slot), pages))
        spec = canvas(block, known=(10 + slot,), diffusion=SLOW)
        canvases.append(opening(slot, count * block, block, pages, spec))
    results = runner.run(plan(*writes, *canvases)).canvases
    assert [(result.request_id, result.slot) for result in results] == [
        (f"r{slot}", slot) for slot in lengths
    ]
    alone = endless.engine(Layout(slots=8, pages=32)).runner
    for row, result in zip(canvases, results, strict=True):
        own = [write for write in writes if write.slot == row.slot]
        _assert_same((result,), alone.run(plan(*own, row)).canvases)


def test_a_canvas_goes_on_where_its_last_step_left_it(endless: TinyCheckpoint, runner: Runner) -> None:
    block = endless.block_length
    spec = canvas(block, known=(10, 11), diffusion=SLOW)
    results = runner.run(plan(opening(2, 0, block, (), spec))).canvases
    for _ in range(block - 3):
        (before,) = results
        assert not before.done
        assert before.tokens == ()
        results = runner.run(plan(reuse(2, 0, block, ()))).canvases
        assert (results[0].step, results[0].undecided) == (before.step + 1, before.undecided - 1)
    (last,) = results
    assert (last.done, last.step, last.undecided) == (True, block - 2, 0)
    assert last.tokens[:2] == (10, 11)
    assert MASK_ID not in last.tokens


def test_a_canvas_row_writes_no_page(endless: TinyCheckpoint, runner: Runner) -> None:
    block = endless.block_length
    runner.run(plan(write(0, 0, _tokens(block), pages=(5,))))
    before = runner.machine.cache.keys[0].clone(), runner.machine.cache.values[0].clone()
    runner.run(plan(opening(0, block, block, pages=(5,))))
    assert torch.equal(runner.machine.cache.keys[0], before[0])
    assert torch.equal(runner.machine.cache.values[0], before[1])


def test_a_write_row_touches_only_its_own_positions(endless: TinyCheckpoint, runner: Runner) -> None:
    block = endless.block_length
    runner.run(plan(write(0, 0, _tokens(2 * block), pages=(5, 3))))
    keys = _pages(runner.machine.cache.keys[0], block)
    written = (keys != POISON).flatten(2).any(-1)  # [layers, pages]
    assert [pages.nonzero().squeeze(-1).tolist() for pages in written] == [[3, 5]] * len(written)
    assert not bool((keys[:, [3, 5]] == POISON).any())


def test_only_watched_canvases_are_reported_step_by_step(endless: TinyCheckpoint, runner: Runner) -> None:
    block = endless.block_length
    watched = canvas(block, known=(10,), block_index=3, diffusion=SLOW, snapshots=True)
    result = runner.run(plan(opening(1, 0, block, ()), opening(4, 0, block, (), watched)))
    (snapshot,) = result.snapshots
    assert (snapshot.request_id, snapshot.block_index, snapshot.step, snapshot.first) == ("r4", 3, 1, 1)
    assert snapshot.tokens[0] == 10
    assert (snapshot.decided[0], snapshot.confidence[0]) == (True, 1.0)
    assert sum(snapshot.decided) == 2, "the prompt's token and the first step's"
    assert MASK_ID not in snapshot.tokens, "an undecided position shows what it would become"
    assert all(0.0 < confidence <= 1.0 for confidence in snapshot.confidence)


def test_the_mean_entropy_of_a_step_is_that_of_hugging_faces_logits(
    endless: TinyCheckpoint, runner: Runner
) -> None:
    block = endless.block_length
    (result,) = runner.run(plan(opening(0, 0, block, (), canvas(block, known=(10, 11))))).canvases
    logits = endless.reference.logits((10, 11, *[MASK_ID] * (block - 2)))[2:]
    logits[:, MASK_ID] = float("-inf")
    expected = torch.distributions.Categorical(logits=logits).entropy().mean()
    assert result.mean_entropy == pytest.approx(float(expected), abs=1e-4)


def test_greedy_and_sampled_canvases_share_a_forward(endless: TinyCheckpoint, runner: Runner) -> None:
    block = endless.block_length
    sampled = canvas(block, sampling=SamplingParams(temperature=5.0, seed=3), diffusion=SLOW, snapshots=True)
    greedy = canvas(block, diffusion=SLOW, snapshots=True)
    runner.run(plan(opening(0, 0, block, (), greedy)))
    runner.run(plan(opening(1, 0, block, (), sampled), opening(2, 0, block, (), greedy)))
    registers = runner.machine.registers.state
    assert torch.equal(registers.predicted[2], registers.predicted[0])
    assert not torch.equal(registers.predicted[1], registers.predicted[0])


def test_time_is_taken_from_the_injected_clock(endless: TinyCheckpoint, runner: Runner) -> None:
    ticks = iter([10.0, 10.25])
    runner.clock = lambda: next(ticks)
    assert runner.run(plan(opening(0, 0, endless.block_length, ()))).seconds == 0.25


def _tokens(count: int, seed: int = 0) -> tuple[int, ...]:
    return random_tokens(Random(seed), count, VOCABULARY)


def _prefix(runner: Runner, pages: Sequence[int]) -> torch.Tensor:
    stores, size = (
        (runner.machine.cache.keys[0], runner.machine.cache.values[0]),
        runner.machine.cache.page_size,
    )
    return torch.stack([_pages(store, size)[:, list(pages)] for store in stores])


def _pages(store: torch.Tensor, page_size: int) -> torch.Tensor:
    """[layers, pages, page_size, kv_heads, head_dim]"""
    return store.unflatten(1, (-1, page_size))


def _assert_same(found: Sequence[CanvasResult], expected: Sequence[CanvasResult]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.mean_entropy == pytest.approx(other.mean_entropy, abs=1e-4)
        assert (one.request_id, one.slot, one.done, one.step, one.undecided, one.tokens) == (
            other.request_id,
            other.slot,
            other.done,
            other.step,
            other.undecided,
            other.tokens,
        )
