"""A canvas is finished as soon as everything that will be read of it is decided."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from easel.kernels.stop_rules import finished, mean_entropy

BLOCK = 5
EOS = (1, 9)


def test_a_canvas_is_finished_when_all_positions_are_decided() -> None:
    assert _finished([5, 6, 7, 8, 5], "11111")
    assert not _finished([5, 6, 7, 8, 5], "11011")


def test_positions_after_a_decided_end_of_sequence_are_not_waited_for() -> None:
    assert _finished([5, 6, 1, 0, 0], "11100")
    assert _finished([9, 0, 0, 0, 0], "10000")
    assert not _finished([5, 0, 1, 0, 0], "10100"), "what comes before it is"


def test_an_end_of_sequence_that_is_not_decided_does_not_count() -> None:
    assert not _finished([5, 1, 7, 0, 0], "10100")


def test_positions_beyond_the_limit_are_not_waited_for() -> None:
    assert _finished([5, 6, 7, 0, 0], "11100", limit=3)
    assert not _finished([5, 6, 0, 8, 1], "11011", limit=3)


def test_an_end_of_sequence_in_the_prompt_is_text() -> None:
    assert not _finished([1, 5, 0, 0, 0], "11000", first=2)
    assert _finished([1, 5, 9, 0, 0], "11100", first=2)


CANVAS = st.tuples(
    st.lists(st.sampled_from([1, 5, 9]), min_size=BLOCK, max_size=BLOCK),
    st.lists(st.booleans(), min_size=BLOCK, max_size=BLOCK),
    st.integers(0, BLOCK - 1),
    st.integers(1, BLOCK),
)


@given(st.lists(CANVAS, min_size=1, max_size=4))
def test_any_canvas_is_judged_as_a_loop_judges_it(
    canvases: list[tuple[list[int], list[bool], int, int]],
) -> None:
    found = finished(
        torch.tensor([tokens for tokens, *_ in canvases]),
        torch.tensor([decided for _, decided, *_ in canvases]),
        torch.tensor([first for *_, first, _ in canvases]),
        torch.tensor([limit for *_, limit in canvases]),
        torch.tensor(EOS),
    )
    assert found.tolist() == [_loop(*canvas) for canvas in canvases]


def test_mean_entropy_is_over_undecided_positions_and_zero_without_any() -> None:
    entropy = torch.tensor([[1.0, 2.0, 9.0], [4.0, 4.0, 4.0]])
    undecided = torch.tensor([[True, True, False], [False, False, False]])
    assert mean_entropy(entropy, undecided, undecided.sum(-1)).tolist() == [1.5, 0.0]


def _finished(tokens: list[int], decided: str, first: int = 0, limit: int = BLOCK) -> bool:
    found = finished(
        torch.tensor([tokens]),
        torch.tensor([[mark == "1" for mark in decided]]),
        torch.tensor([first]),
        torch.tensor([limit]),
        torch.tensor(EOS),
    )
    return bool(found[0])


def _loop(tokens: list[int], decided: list[bool], first: int, limit: int) -> bool:
    for position in range(limit):
        if decided[position] and position >= first and tokens[position] in EOS:
            return True
        if not decided[position]:
            return False
    return True
