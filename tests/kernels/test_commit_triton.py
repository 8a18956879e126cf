"""The launch that commits a step, on a GPU or in Triton's interpreter, against the torch path."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from easel.kernels import commit as commits
from easel.kernels.canvas_state import CanvasState, Real, Whole
from easel.kernels.commit import Found, Gathered, StepTraits, commit
from easel.kernels.commit_rules import Rule
from easel.kernels.commit_triton import fused_commit

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # "cpu": in the interpreter
CPU = torch.device("cpu")
VOCABULARY = 9  # few, so that tokens often meet ends of sequence and each other
SLOTS = 5
SPARE = SLOTS - 1  # whose canvas is not active
EVERYTHING = StepTraits(frozenset(Rule), *[True] * 6)
PLAIN = StepTraits(frozenset(Rule))
TRAITS = (
    EVERYTHING,
    PLAIN,
    replace(PLAIN, edits=True),
    replace(PLAIN, settles=True),
    replace(PLAIN, partial=True),
    replace(PLAIN, shown=True),
    replace(PLAIN, edits=True, shown=True),
)


@pytest.mark.parametrize("traits", TRAITS, ids=lambda traits: "+".join(_names(traits)))
@pytest.mark.parametrize("block", [1, 2, 7, 16, 33, 70])
def test_registers_come_to_what_torch_brings_them_to(block: int, traits: StepTraits) -> None:
    _check_against_torch(block, traits, seed=block)


@pytest.mark.parametrize("rule", Rule)
@pytest.mark.parametrize("seed", range(6))
def test_each_rule_takes_what_it_takes_in_torch(rule: Rule, seed: int) -> None:
    _check_against_torch(12 + seed, replace(EVERYTHING, rules=frozenset({rule})), seed)


@pytest.mark.parametrize("rule", Rule)
def test_the_earlier_of_two_equal_positions_comes_first(rule: Rule) -> None:
    block = 21
    state = _poisoned(block, 0, (rule,))
    state.decided.fill_(False)
    found = _found(block, 3, 0)
    for values in (found.confidence, found.entropy):
        values.mul_(4.0).floor_().div_(4.0)
    _compare(state, [0, 1, 2], found, torch.tensor([VOCABULARY]), PLAIN)


@pytest.mark.parametrize("ends", [(), (2,), (0, 3, 7)], ids=str)
def test_any_number_of_tokens_may_end_a_sequence(ends: Sequence[int]) -> None:
    state = _poisoned(9, 3, tuple(Rule))
    state.decided.copy_(torch.rand(SLOTS, 9, generator=torch.Generator().manual_seed(1)) < 0.9)
    eos = torch.tensor(ends, dtype=torch.int64)
    _compare(state, [2, 1, 0, 3], _found(9, 4, 3), eos, PLAIN)


def test_an_end_of_sequence_that_is_not_decided_ends_nothing() -> None:
    state, found = _poisoned(9, 3, tuple(Rule)), _found(9, 1, 3)
    state.quotas.fill_(0)
    state.whole(Whole.RULE).fill_(Rule.STATIC_SCHEDULE)
    state.whole(Whole.LIMIT).fill_(9)
    state.decided[0] = torch.arange(9) != 4
    state.tokens[0] = torch.tensor([1, 1, 1, 1, 2, 1, 1, 1, 1])
    after = _compare(state, [0], found, torch.tensor([2]), PLAIN)
    assert int(after.whole(Whole.ACTIVE)[0]) == 1


def test_slots_that_are_not_active_stay_bit_for_bit_however_often_they_are_named() -> None:
    state = _poisoned(10, 5, tuple(Rule))
    state.confidence[SPARE] = float("nan")
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    at = [SPARE, 1, SPARE, SPARE]
    found = _launched(state, at, _found(10, 4, 5), torch.tensor([2]), EVERYTHING)
    for name, tensor in found.tensors().items():
        for slot in set(range(SLOTS)) - {1}:
            assert torch.equal(tensor[slot].view(torch.uint8), before[name][slot].view(torch.uint8)), name
    assert int(found.whole(Whole.STEP)[1]) == int(before["integers"][1, Whole.STEP]) + 1


def test_no_canvas_is_no_launch() -> None:
    state = _poisoned(4, 0, tuple(Rule))
    _compare(state, [], _found(4, 0, 0), torch.tensor([2]), EVERYTHING)


def test_a_whole_block_is_decided_in_as_many_steps_as_in_torch() -> None:
    """Step after step in place, the next one's choices over the last one's registers."""
    state = _poisoned(13, 8, tuple(Rule))
    state.decided.fill_(False)
    state.whole(Whole.STEP).fill_(0)
    for step in range(4):
        state = _compare(state, [3, 0, 1, 2], _found(13, 4, 90 + step), torch.tensor([2]), EVERYTHING)


def test_tensors_of_other_shapes_or_strides_are_refused() -> None:
    state, found, eos = _poisoned(4, 0, tuple(Rule)), _found(4, 3, 0), torch.tensor([1])
    for wrong in (
        replace(found, token=found.token.int()),
        replace(found, confidence=found.confidence.double()),
        replace(found, entropy=found.entropy[:, :3]),
        replace(found, entropy=found.entropy.T.contiguous().T),
    ):
        with pytest.raises(ValueError, match="3 canvases of 4 positions"):
            fused_commit(state, torch.tensor([0, 1, 2]), wrong, eos, PLAIN)


def test_tensors_on_a_gpu_are_committed_in_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    state = _poisoned(6, 1, tuple(Rule))
    at, found, eos = torch.tensor([0, 2]), _found(6, 2, 1), torch.tensor([2])
    expected = _by_torch(state, at, found, eos, EVERYTHING)
    monkeypatch.setattr(commits, "has_triton", _on_a_gpu)
    moved = _on(state, DEVICE)
    commit(moved, Gathered.of(moved, at.to(DEVICE)), _found_on(found, DEVICE), eos.to(DEVICE), EVERYTHING)
    _assert_same(_on(moved, CPU), expected)


def _check_against_torch(block: int, traits: StepTraits, seed: int) -> None:
    state = _poisoned(block, seed, tuple(sorted(traits.rules)))
    if not traits.edits:
        state.real(Real.EDIT_THRESHOLD).fill_(2.0)
    at = [*torch.randperm(SPARE, generator=torch.Generator().manual_seed(seed)).tolist(), SPARE]
    _compare(state, at, _found(block, len(at), seed), torch.tensor([2, 5]), traits)


def _on_a_gpu(tensor: Tensor) -> bool:
    return True


def _compare(
    state: CanvasState, at: Sequence[int], found: Found, eos: Tensor, traits: StepTraits
) -> CanvasState:
    """Commit by both ways; returns the registers after it."""
    expected = _by_torch(state, torch.tensor(at, dtype=torch.int64), found, eos, traits)
    _assert_same(_launched(state, at, found, eos, traits), expected)
    return expected


def _assert_same(found: CanvasState, expected: CanvasState) -> None:
    """To the bit, but for the entropies' sums."""
    for name, tensor in found.tensors().items():
        if name == "numbers":
            torch.testing.assert_close(tensor, expected.numbers, rtol=2e-6, atol=1e-6, msg=name)
        else:
            assert torch.equal(tensor, expected.tensors()[name]), name


def _by_torch(state: CanvasState, at: Tensor, found: Found, eos: Tensor, traits: StepTraits) -> CanvasState:
    copy = _on(state, CPU)
    commit(copy, Gathered.of(copy, at), found, eos, traits)
    return copy


def _launched(
    state: CanvasState, at: Sequence[int], found: Found, eos: Tensor, traits: StepTraits
) -> CanvasState:
    copy = _on(state, DEVICE)
    slots = torch.tensor(at, dtype=torch.int64, device=DEVICE)
    fused_commit(copy, slots, _found_on(found, DEVICE), eos.to(DEVICE), traits)
    return _on(copy, CPU)


def _on(state: CanvasState, device: torch.device) -> CanvasState:
    """A copy."""
    return CanvasState(**{name: tensor.clone().to(device) for name, tensor in state.tensors().items()})


def _found_on(found: Found, device: torch.device) -> Found:
    return Found(found.token.to(device), found.confidence.to(device), found.entropy.to(device))


def _poisoned(block: int, seed: int, rules: Sequence[Rule]) -> CanvasState:
    """Registers of any content; every canvas but the last follows one of the rules."""
    draw, state = torch.Generator().manual_seed(seed), CanvasState.allocate(SLOTS, block, CPU)
    state.tokens.random_(0, VOCABULARY, generator=draw)
    state.predicted.random_(0, VOCABULARY, generator=draw)
    state.decided.random_(0, 2, generator=draw)
    state.decided[seed % SPARE] = True  # a canvas that edits only
    state.live.random_(0, 2, generator=draw)
    state.confidence.uniform_(generator=draw)
    state.quotas.random_(0, 4, generator=draw)
    state.numbers.uniform_(generator=draw)
    state.real(Real.ENTROPY_BOUND).mul_(0.5 * block)
    state.real(Real.STOP_ENTROPY).mul_(3.0)
    state.real(Real.EDIT_THRESHOLD).mul_(2.0)
    state.integers.random_(0, 3, generator=draw)
    state.whole(Whole.STEP).random_(0, 2 * block, generator=draw)
    state.whole(Whole.FIRST).random_(0, block // 2 + 1, generator=draw)
    state.whole(Whole.LIMIT).random_(block // 2, block + 1, generator=draw)
    state.whole(Whole.RULE).copy_(torch.tensor([rules[slot % len(rules)] for slot in range(SLOTS)]))
    state.whole(Whole.ACTIVE).fill_(1)
    state.whole(Whole.ACTIVE)[SPARE] = 0
    return state


def _found(block: int, count: int, seed: int) -> Found:
    draw = torch.Generator().manual_seed(seed + 1)
    return Found(
        token=torch.randint(0, VOCABULARY, (count, block), generator=draw),
        confidence=torch.rand(count, block, generator=draw),
        entropy=3.0 * torch.rand(count, block, generator=draw),
    )


def _names(traits: StepTraits) -> list[str]:
    on = [name for name in ("edits", "settles", "partial", "shown") if getattr(traits, name)]
    return on or ["plain"]
