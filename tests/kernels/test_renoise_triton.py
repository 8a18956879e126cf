"""The launches that renoise canvases, on a GPU or in Triton's interpreter, against the torch path."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from easel.kernels import renoise as renoises
from easel.kernels.canvas_state import CanvasState, Real, Whole
from easel.kernels.renoise import RenoiseState, position_noise, renoise
from easel.kernels.renoise_triton import fused_renoise
from easel.kernels.soft_head import SoftStats

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # "cpu": in the interpreter
CPU = torch.device("cpu")
VOCABULARY, SLOTS = 262_144, 5
SPARE = SLOTS - 1  # whose canvas is not active


@dataclass(frozen=True, slots=True)
class Held:
    """All that a step reads and writes."""

    state: CanvasState
    own: RenoiseState

    def on(self, device: torch.device) -> "Held":
        """A copy."""
        state = {name: tensor.clone().to(device) for name, tensor in self.state.tensors().items()}
        own = {name: tensor.clone().to(device) for name, tensor in self.own.tensors().items()}
        return Held(CanvasState(**state), RenoiseState(**own))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("block", [1, 2, 7, 16, 33, 70])
def test_registers_come_to_what_torch_brings_them_to(block: int, dtype: torch.dtype) -> None:
    held = _poisoned(block, 6, seed=block, dtype=dtype)
    _compare(held, [2, 0, SPARE, 3], _found(block, 4, 6, seed=block, dtype=dtype))


@pytest.mark.parametrize("seed", range(6))
def test_a_canvas_stops_where_it_stops_in_torch(seed: int) -> None:
    """Predictions that stand, for some steps or for too few, and canvases at their last step."""
    held, found = _poisoned(9, 4, seed), _found(9, 4, 4, seed)
    held.state.predicted[:SPARE] = found.best.view(4, 9)
    held.state.predicted[1 + seed % 3, 5] += 1
    held.own.stability.clamp_(min=1)
    held.own.steps[:SPARE] = held.state.whole(Whole.STEP)[:SPARE] + 1 + torch.tensor([0, 1, 5, 5])
    after = _compare(held, range(SPARE), found)
    finished = 1 - after.state.whole(Whole.ACTIVE)[:SPARE]
    assert 0 < int(finished.sum()) < SPARE


@pytest.mark.parametrize("bound", [0.0, 0.25, 3.0, 1e3])
def test_the_earlier_of_two_equally_sure_positions_comes_first(bound: float) -> None:
    held, found = _poisoned(21, 4, seed=3), _found(21, 3, 4, seed=3)
    found.entropy.mul_(2.0).floor_().div_(4.0)
    held.state.real(Real.ENTROPY_BOUND).fill_(bound)
    _compare(held, [0, 1, 2], found)


@pytest.mark.parametrize("vocabulary", [1, 105, 2**31 - 1])
def test_noise_is_that_of_torch_to_the_bit(vocabulary: int) -> None:
    held = _poisoned(33, 2, seed=8)
    held.own.steps.fill_(1000)
    held.own.stability.fill_(1000)
    held.state.real(Real.ENTROPY_BOUND).fill_(-1.0)  # nothing is accepted
    held.state.whole(Whole.SEED).copy_(torch.tensor([0, 2**63 - 1, 2**32, 12345678901, 7]))
    held.state.whole(Whole.BLOCK_INDEX).copy_(torch.tensor([0, 2**31, 3, 99, 0]))
    after = _compare(held, [0, 1, 2, 3], _found(33, 4, 2, seed=8), vocabulary)
    assert not after.state.decided[:SPARE].any()


@pytest.mark.parametrize("width", [1, 5, 1024, 1500])
def test_embeddings_of_any_width_are_kept(width: int) -> None:
    _compare(_poisoned(3, width, seed=1), [3, 1], _found(3, 2, width, seed=1))


def test_slots_that_are_not_active_stay_bit_for_bit_however_often_they_are_named() -> None:
    held = _poisoned(6, 3, seed=2)
    held.own.soft[SPARE] = float("nan")
    at = torch.tensor([SPARE, 1, SPARE, SPARE], device=DEVICE)
    found = held.on(DEVICE)
    fused_renoise(found.state, found.own, at, _on(_found(6, 4, 3, seed=2), DEVICE), VOCABULARY)
    others = [slot for slot in range(SLOTS) if slot != 1]
    for mine, before in ((found.state, held.state), (found.own, held.own)):
        for name, tensor in mine.tensors().items():
            left, was = tensor.cpu()[others], before.tensors()[name][others]
            assert torch.equal(left.view(torch.uint8), was.view(torch.uint8)), name
    assert int(found.state.whole(Whole.STEP)[1]) == int(held.state.whole(Whole.STEP)[1]) + 1


def test_no_canvas_is_no_launch() -> None:
    _compare(_poisoned(4, 2, seed=0), [], _found(4, 0, 2, seed=0))


def test_tensors_of_other_shapes_or_strides_are_refused() -> None:
    held, found = _poisoned(4, 6, seed=0), _found(4, 3, 6, seed=0)
    for wrong in (
        replace(found, token=found.token.int()),
        replace(found, entropy=found.entropy[:11]),
        replace(found, confidence=found.confidence.repeat_interleave(2)[::2]),
    ):
        with pytest.raises(ValueError, match="3 canvases of 4 positions"):
            fused_renoise(held.state, held.own, torch.tensor([0, 1, 2]), wrong, VOCABULARY)
    for soft in (found.soft.T.contiguous().T, found.soft[:, :5], found.soft.bfloat16()):
        with pytest.raises(ValueError, match="12 dense rows"):
            fused_renoise(
                held.state, held.own, torch.tensor([0, 1, 2]), replace(found, soft=soft), VOCABULARY
            )


@pytest.mark.parametrize("draw", [0, 1, 2])
def test_a_canvas_on_a_gpu_draws_the_numbers_of_torch(monkeypatch: pytest.MonkeyPatch, draw: int) -> None:
    integers = _poisoned(3, 2, seed=1).state.integers
    expected = position_noise(integers, 40, draw)
    monkeypatch.setattr(renoises, "has_triton", _on_a_gpu)
    assert torch.equal(position_noise(integers.to(DEVICE), 40, draw).cpu(), expected)


def test_canvases_on_a_gpu_are_renoised_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    held, found = _poisoned(6, 3, seed=1), _found(6, 2, 3, seed=1)
    expected = _by_torch(held, [0, 2], found, VOCABULARY)
    monkeypatch.setattr(renoises, "has_triton", _on_a_gpu)
    moved = held.on(DEVICE)
    renoise(moved.state, moved.own, torch.tensor([0, 2], device=DEVICE), _on(found, DEVICE), VOCABULARY)
    _assert_same(moved.on(CPU), expected)


def _on_a_gpu(tensor: Tensor) -> bool:
    return True


def _compare(held: Held, at: Sequence[int], found: SoftStats, vocabulary: int = VOCABULARY) -> Held:
    """Renoise by both ways; returns what is held after it."""
    expected = _by_torch(held, at, found, vocabulary)
    launched = held.on(DEVICE)
    slots = torch.tensor(list(at), dtype=torch.int64, device=DEVICE)
    fused_renoise(launched.state, launched.own, slots, _on(found, DEVICE), vocabulary)
    _assert_same(launched.on(CPU), expected)
    return expected


def _assert_same(found: Held, expected: Held) -> None:
    """To the bit, but for the entropies' sums."""
    for mine, theirs in ((found.state, expected.state), (found.own, expected.own)):
        for name, tensor in mine.tensors().items():
            if name == "numbers":
                torch.testing.assert_close(tensor, expected.state.numbers, rtol=2e-6, atol=1e-6, msg=name)
            else:
                assert torch.equal(tensor, theirs.tensors()[name]), name


def _by_torch(held: Held, at: Sequence[int], found: SoftStats, vocabulary: int) -> Held:
    copy = held.on(CPU)
    renoise(copy.state, copy.own, torch.tensor(list(at), dtype=torch.int64), found, vocabulary)
    return copy


def _on(found: SoftStats, device: torch.device) -> SoftStats:
    columns = (found.best, found.token, found.confidence, found.entropy, found.soft)
    return SoftStats(*(column.to(device) for column in columns))


def _poisoned(block: int, width: int, seed: int, dtype: torch.dtype = torch.float32) -> Held:
    """Registers of any content; every canvas but the last is active."""
    draw, state = torch.Generator().manual_seed(seed), CanvasState.allocate(SLOTS, block, CPU)
    state.tokens.random_(0, VOCABULARY, generator=draw)
    state.predicted.random_(0, VOCABULARY, generator=draw)
    state.decided.random_(0, 2, generator=draw)
    state.live.random_(0, 2, generator=draw)
    state.confidence.uniform_(generator=draw)
    state.numbers.uniform_(generator=draw)
    state.real(Real.ENTROPY_BOUND).mul_(0.5 * block)
    state.real(Real.STOP_ENTROPY).mul_(3.0)
    state.integers.random_(0, 40, generator=draw)
    state.whole(Whole.SEED).random_(generator=draw)
    state.whole(Whole.ACTIVE).fill_(1)
    state.whole(Whole.ACTIVE)[SPARE] = 0
    own = RenoiseState.allocate(SLOTS, block, torch.zeros(1, width, dtype=dtype))
    own.soft.normal_(generator=draw)
    own.steps.random_(20, 60, generator=draw)
    own.stability.random_(0, 3, generator=draw)
    own.unchanged.random_(0, 3, generator=draw)
    return Held(state, own)


def _found(block: int, count: int, width: int, seed: int, dtype: torch.dtype = torch.float32) -> SoftStats:
    draw, positions = torch.Generator().manual_seed(seed + 1), count * block
    return SoftStats(
        best=torch.randint(0, VOCABULARY, (positions,), generator=draw),
        token=torch.randint(0, VOCABULARY, (positions,), generator=draw),
        confidence=torch.rand(positions, generator=draw),
        entropy=3.0 * torch.rand(positions, generator=draw),
        soft=torch.randn(positions, width, generator=draw).to(dtype),
    )
