"""A step after the head: what it leaves in the registers, and what it leaves alone."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from easel.kernels.canvas_state import CanvasState, Real, Whole
from easel.kernels.commit import Found, Gathered, StepTraits, commit
from easel.kernels.commit_rules import Rule

BLOCK, SLOTS, VOCABULARY, EOS = 6, 5, 12, 3
EVERYTHING = StepTraits(frozenset(Rule), *[True] * 6)
CPU = torch.device("cpu")


@given(st.integers(0, 2**32), st.lists(st.booleans(), min_size=SLOTS, max_size=SLOTS))
@settings(max_examples=60, deadline=None)
def test_a_step_changes_nothing_of_a_canvas_that_is_not_active(seed: int, active: list[bool]) -> None:
    """Whatever its registers hold, and whatever the others come to."""
    state, at = _poisoned(seed, active), torch.randperm(SLOTS)[: seed % SLOTS + 1]
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    commit(state, Gathered.of(state, at), _found(seed, len(at)), torch.tensor([EOS]), EVERYTHING)
    stepped = {int(slot) for slot in at if active[int(slot)]}
    for name, tensor in state.tensors().items():
        for slot in set(range(SLOTS)) - stepped:
            assert torch.equal(tensor[slot].view(torch.uint8), before[name][slot].view(torch.uint8)), name
    assert all(int(state.whole(Whole.STEP)[slot]) == seed % 7 + 1 for slot in stepped)


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_a_canvas_comes_to_the_same_alone_and_among_others(seed: int) -> None:
    together, apart = _poisoned(seed, [True] * SLOTS), _poisoned(seed, [True] * SLOTS)
    at, found, eos = torch.tensor([4, 0, 2, 1]), _found(seed, 4), torch.tensor([EOS])
    commit(together, Gathered.of(together, at), found, eos, EVERYTHING)
    for index in range(len(at)):
        one = slice(index, index + 1)
        alone = Found(found.token[one], found.confidence[one], found.entropy[one])
        commit(apart, Gathered.of(apart, at[one]), alone, eos, _traits(apart, int(at[index])))
    for name, tensor in together.tensors().items():
        assert torch.equal(tensor, apart.tensors()[name]), name


def test_low_entropy_settles_a_whole_canvas_where_the_rule_is_on() -> None:
    for bound, decided in ((0.5, True), (0.49, False), (-1.0, False)):
        state = _opened(stop_entropy=bound + 1e-6)
        commit(
            state,
            Gathered.of(state, torch.tensor([0])),
            _even(confidence=0.1, entropy=0.5),
            _never(),
            _settling(),
        )
        assert bool(state.decided[0].all()) == decided


def test_an_edited_token_gives_way_to_a_surer_one() -> None:
    state = _opened(edit_threshold=0.6, first=2)
    state.decided[0] = True
    state.tokens[0] = 5
    traits = StepTraits(frozenset({Rule.STATIC_SCHEDULE}), edits=True)
    assert Gathered.of(state, torch.tensor([0])).asked(traits).tolist() == [[False, False, *[True] * 4]]
    found = _even(confidence=0.5, entropy=0.5)
    found.confidence[0, 3:5] = 0.7
    commit(state, Gathered.of(state, torch.tensor([0])), found, _never(), traits)
    assert state.tokens[0].tolist() == [5, 5, 5, 7, 7, 5]
    assert _whole(state, Whole.ACTIVE) == 1, "it changed something, so another pass may"
    commit(state, Gathered.of(state, torch.tensor([0])), _even(confidence=0.5, entropy=0.5), _never(), traits)
    assert _whole(state, Whole.ACTIVE) == 0


def test_what_a_step_comes_to_is_booked() -> None:
    state = _opened(quota=2)
    found = Found(
        token=torch.tensor([[1, 2, 4, 5, 6, 7]]),
        confidence=torch.tensor([[0.1, 0.6, 0.3, 0.5, 0.2, 0.4]]),
        entropy=torch.tensor([[1.0, 2.0, 3.0, 1.0, 2.0, 3.0]]),
    )
    traits = StepTraits(frozenset({Rule.STATIC_SCHEDULE}), partial=True, shown=True)
    for step in range(1, 4):
        commit(state, Gathered.of(state, torch.tensor([0])), found, _never(), traits)
        assert _whole(state, Whole.STEP) == step
        assert _whole(state, Whole.UNDECIDED) == BLOCK - 2 * step
        assert _whole(state, Whole.LIVE) == BLOCK - 2 * (step - 1)
        assert _whole(state, Whole.ACTIVE) == (step < 3)
    assert state.tokens[0].tolist() == [1, 2, 4, 5, 6, 7]
    assert state.predicted[0].tolist() == [1, 2, 4, 5, 6, 7]
    assert float(state.real(Real.MEAN_ENTROPY)[0]) == 1.5, "of the last two open positions"
    assert float(state.real(Real.ENTROPY_SUM)[0]) == pytest.approx(2.0 + 9.0 / 4 + 1.5)


def test_a_canvas_ends_with_its_first_decided_end_of_sequence() -> None:
    state = _opened(quota=1)
    found = _even(confidence=0.5, entropy=1.0)
    found.token[0, 0] = EOS
    traits = StepTraits(frozenset({Rule.STATIC_SCHEDULE}))
    commit(state, Gathered.of(state, torch.tensor([0])), found, torch.tensor([EOS]), traits)
    assert (_whole(state, Whole.ACTIVE), _whole(state, Whole.UNDECIDED)) == (0, BLOCK - 1)


def _opened(
    *, stop_entropy: float = -1.0, edit_threshold: float = 2.0, first: int = 0, quota: int = 1
) -> CanvasState:
    state = CanvasState.allocate(1, BLOCK, CPU)
    for column, value in (
        (Whole.ACTIVE, 1),
        (Whole.FIRST, first),
        (Whole.LIMIT, BLOCK),
        (Whole.EDITS_LEFT, 9),
        (Whole.RULE, Rule.STATIC_SCHEDULE),
    ):
        state.whole(column).fill_(value)
    state.real(Real.STOP_ENTROPY).fill_(stop_entropy)
    state.real(Real.EDIT_THRESHOLD).fill_(edit_threshold)
    state.quotas.fill_(quota)
    return state


def _poisoned(seed: int, active: Sequence[bool]) -> CanvasState:
    """Registers of any content."""
    draw, state = torch.Generator().manual_seed(seed), CanvasState.allocate(SLOTS, BLOCK, CPU)
    state.tokens.random_(0, VOCABULARY, generator=draw)
    state.predicted.random_(0, VOCABULARY, generator=draw)
    state.decided.random_(0, 2, generator=draw)
    state.live.random_(0, 2, generator=draw)
    state.confidence.uniform_(generator=draw)
    state.quotas.random_(1, BLOCK, generator=draw)
    state.numbers.uniform_(generator=draw)
    state.integers.random_(0, 3, generator=draw)
    state.whole(Whole.STEP).fill_(seed % 7)
    state.whole(Whole.LIMIT).fill_(BLOCK)
    state.whole(Whole.RULE).random_(0, len(Rule), generator=draw)
    state.whole(Whole.ACTIVE).copy_(torch.tensor(active))
    state.real(Real.EDIT_THRESHOLD).mul_(2.0)
    return state


def _traits(state: CanvasState, slot: int) -> StepTraits:
    return StepTraits(frozenset({Rule(int(state.whole(Whole.RULE)[slot]))}), *[True] * 6)


def _found(seed: int, count: int) -> Found:
    draw = torch.Generator().manual_seed(seed + 1)
    return Found(
        token=torch.randint(0, VOCABULARY, (count, BLOCK), generator=draw),
        confidence=torch.rand(count, BLOCK, generator=draw),
        entropy=3.0 * torch.rand(count, BLOCK, generator=draw),
    )


def _even(*, confidence: float, entropy: float) -> Found:
    def all_of(value: float) -> Tensor:
        return torch.full((1, BLOCK), value)

    return Found(torch.full((1, BLOCK), 7), all_of(confidence), all_of(entropy))


def _never() -> Tensor:
    return torch.tensor([VOCABULARY])


def _settling() -> StepTraits:
    return StepTraits(frozenset({Rule.STATIC_SCHEDULE}), settles=True)


def _whole(state: CanvasState, column: Whole) -> int:
    return int(state.whole(column)[0])
