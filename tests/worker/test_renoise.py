"""The renoising denoiser against its definition, a canvas and a step at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from easel.kernels.canvas_state import Real, Whole
from easel.kernels.noise import uniform
from easel.scheduler.messages import CanvasSpec
from easel.scheduler.request import DiffusionParams, SamplingParams
from easel.worker.batch import ForwardBatch
from easel.worker.kv_cache import KVCache
from easel.worker.registers import CanvasRegisters
from easel.worker.renoise import RenoisingDenoiser, within_bound
from tests.worker.rows import canvas
from tests.worker.values import floats, ints

BLOCK, VOCABULARY, WIDTH = 6, 33, 8
SOFTCAP = 20.0
CPU = torch.device("cpu")
DIFFUSION = DiffusionParams(
    steps=5, entropy_bound=1.0, stop_entropy=0.3, temperature_start=0.8, temperature_end=0.4
)
SPECS = (
    canvas(BLOCK, sampling=SamplingParams(temperature=1.0, seed=11), diffusion=DIFFUSION),
    canvas(
        BLOCK,
        block_index=3,
        sampling=SamplingParams(temperature=0.5, seed=2**62),
        diffusion=replace(DIFFUSION, steps=9, entropy_bound=0.0, stability=2, stop_entropy=None),
    ),
    canvas(
        2,
        sampling=SamplingParams(temperature=0.0, seed=5),
        diffusion=replace(DIFFUSION, steps=2, entropy_bound=50.0),
    ),
    canvas(
        BLOCK,
        sampling=SamplingParams(temperature=1.5, seed=11, top_k=3, top_p=0.9),
        diffusion=replace(DIFFUSION, steps=1),
    ),
)


@dataclass(frozen=True, slots=True)
class Head:
    """A model's head without the model."""

    head: Tensor
    softcap: float

    def forward(self, batch: ForwardBatch, cache: KVCache, conditioning: Tensor | None) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("spec", SPECS[:3], ids=["drawn", "cooler", "greedy"])
def test_every_step_is_the_definitions(spec: CanvasSpec) -> None:
    denoiser = _denoiser()
    _open(denoiser, 2, spec)
    expected = Definition(spec, denoiser.head)
    for step in range(spec.diffusion.steps):
        assert ints(denoiser.registers.state.tokens[2]) == expected.tokens
        hidden = _hidden(step // 2)
        outcome = _take(denoiser, [2], hidden[None])
        expected.take(hidden)
        assert bool(outcome.done) == expected.done
        assert ints(denoiser.registers.state.decided[2]) == expected.accepted
        assert int(outcome.undecided) == BLOCK - sum(expected.accepted)
        assert float(outcome.mean_entropy) == pytest.approx(expected.mean_entropy, abs=1e-5)
        assert ints(denoiser.registers.state.predicted[2]) == expected.best
        assert ints(outcome.step) == [step + 1]
        torch.testing.assert_close(denoiser.conditioning(torch.tensor([2]))[0], expected.soft)
        if expected.done:
            break
    assert ints(denoiser.registers.state.tokens[2]) == expected.best


def test_a_fresh_canvas_is_uniform_noise_and_is_conditioned_on_nothing() -> None:
    registers = CanvasRegisters.allocate(1, 4000, 0, CPU)
    denoiser = RenoisingDenoiser.allocate(registers, Head(torch.randn(VOCABULARY, WIDTH), SOFTCAP))
    denoiser.soft.fill_(7.0)
    _open(denoiser, 0, SPECS[0])
    counts = registers.state.tokens[0].bincount(minlength=VOCABULARY)
    assert len(counts) == VOCABULARY
    # Five standard deviations of a count whose mean is 121.
    assert int((counts - 4000 / VOCABULARY).abs().max()) < 55
    assert not denoiser.conditioning(torch.tensor([0])).any()


def test_nothing_of_a_slots_past_is_kept() -> None:
    used, fresh = _denoiser(), _denoiser()
    _open(used, 1, SPECS[3])
    _take(used, [1], _hidden(0)[None])
    for denoiser in (used, fresh):
        _open(denoiser, 1, SPECS[0])
    assert _trace(used, [1]) == _trace(fresh, [1])


def test_a_canvas_is_the_same_whatever_is_denoised_beside_it() -> None:
    together = _denoiser()
    for slot, spec in enumerate(SPECS):
        _open(together, slot, spec)
    beside = _trace(together, [3, 0, 2, 1])
    for slot, spec in enumerate(SPECS):
        alone = _denoiser()
        _open(alone, slot, spec)
        assert _trace(alone, [slot])[slot] == beside[slot]


def test_a_canvas_ends_at_its_last_step_however_unsure_it_is() -> None:
    denoiser = _denoiser()
    _open(denoiser, 0, replace(SPECS[0], diffusion=replace(DIFFUSION, steps=3, stop_entropy=None)))
    hidden = torch.zeros(1, BLOCK, WIDTH)
    assert [bool(_take(denoiser, [0], hidden).done) for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(("stability", "steps"), [(1, 2), (2, 3), (4, 5)])
def test_a_sure_canvas_ends_once_its_predictions_have_stood_for_the_steps_asked_for(
    stability: int, steps: int
) -> None:
    denoiser = _denoiser()
    diffusion = replace(DIFFUSION, steps=30, stability=stability, stop_entropy=10.0)
    _open(denoiser, 0, replace(SPECS[0], diffusion=diffusion))
    assert not _step(denoiser, 0).done  # another prediction, which does not count
    done = [bool(_step(denoiser, 1).done) for _ in range(steps)]
    assert done == [False] * (steps - 1) + [True]


def test_an_unsure_canvas_goes_on_though_its_predictions_stand() -> None:
    denoiser = _denoiser()
    _open(denoiser, 0, replace(SPECS[0], diffusion=replace(DIFFUSION, steps=30, stop_entropy=1e-6)))
    assert not any(bool(_step(denoiser, 1).done) for _ in range(29))


def test_a_step_reports_all_positions_as_ones_to_compute_next() -> None:
    denoiser = _denoiser()
    for slot, spec in enumerate(SPECS):
        _open(denoiser, slot, spec)
    outcome = _take(denoiser, [0, 2], torch.stack([_hidden(0), _hidden(1)]))
    assert ints(outcome.live) == [BLOCK, BLOCK]


def test_top_k_confines_what_is_drawn() -> None:
    drawn, kept = _denoiser(), _denoiser()
    diffusion = replace(DIFFUSION, entropy_bound=1e3, stop_entropy=None)
    for denoiser, top_k in ((drawn, 0), (kept, 1)):
        sampling = SamplingParams(temperature=3.0, seed=1, top_k=top_k)
        _open(denoiser, 0, replace(SPECS[0], sampling=sampling, diffusion=diffusion))
        _step(denoiser, 0)
    assert ints(kept.registers.state.tokens[0]) == ints(kept.registers.state.predicted[0])
    assert ints(drawn.registers.state.tokens[0]) != ints(drawn.registers.state.predicted[0])


@pytest.mark.parametrize(
    ("entropy", "bound", "accepted"),
    [
        ([0.75, 0.25, 0.5], 0.0, [0, 1, 0]),  # the surest one is always accepted
        ([0.75, 0.25, 0.5], 0.25, [0, 1, 1]),  # the last one accepted does not count
        ([0.75, 0.25, 0.5], 0.7, [0, 1, 1]),
        ([0.75, 0.25, 0.5], 0.75, [1, 1, 1]),
        ([0.0, 2.0, 0.0], 0.0, [1, 1, 1]),
        ([5.0, 5.0, 5.0], 1.0, [1, 0, 0]),  # the first among equals
    ],
)
def test_the_surest_positions_are_accepted_up_to_the_bound(
    entropy: list[float], bound: float, accepted: list[int]
) -> None:
    found = within_bound(torch.tensor([entropy]), torch.tensor([bound]))
    assert [int(value) for value in found[0]] == accepted


def test_the_cost_of_a_slot_is_what_allocation_grows_by() -> None:
    def size(slots: int) -> int:
        denoiser = _denoiser(slots)
        return sum(
            value.nbytes
            for name in denoiser.__slots__
            if isinstance(value := object.__getattribute__(denoiser, name), Tensor)
        )

    assert _denoiser().bytes_per_slot() == size(5) - size(4)


def test_a_model_without_a_softcap_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Plain:
        head: Tensor

        def forward(self, batch: ForwardBatch, cache: KVCache, conditioning: Tensor | None) -> Tensor:
            raise NotImplementedError

    with pytest.raises(TypeError, match="Plain has no softcap"):
        RenoisingDenoiser.allocate(CanvasRegisters.allocate(1, BLOCK, 0, CPU), Plain(torch.zeros(3, 2)))


def test_a_step_changes_nothing_of_a_canvas_that_is_finished() -> None:
    denoiser, slots = _denoiser(), [2, 0, 3]
    for slot, spec in enumerate(SPECS):
        _open(denoiser, slot, spec)
    while not bool(_take(denoiser, slots, torch.stack([_hidden(slot) for slot in slots])).done.all()):
        pass
    before = _everything(denoiser)
    _take(denoiser, slots, torch.stack([_hidden(slot + 10) for slot in slots]))
    for name, held in _everything(denoiser).items():
        assert torch.equal(held, before[name]), name


def _everything(denoiser: RenoisingDenoiser) -> dict[str, Tensor]:
    own = {name: object.__getattribute__(denoiser, name) for name in denoiser.__slots__}
    tensors = {name: value for name, value in own.items() if isinstance(value, Tensor)}
    return {name: value.clone() for name, value in (tensors | denoiser.registers.state.tensors()).items()}


class Definition:
    """One canvas by the published loop, in float64, its noise drawn number by number."""

    def __init__(self, spec: CanvasSpec, head: Tensor) -> None:
        self._spec = spec
        self._head = head.double()
        self._step = 0
        self._predictions: list[list[int]] = []
        self.accepted: list[bool] = []
        self.best: list[int] = []
        self.soft = torch.zeros(0)
        self.done = False
        self.mean_entropy = 0.0
        self.tokens = [int(self._noise(place, 2) * VOCABULARY) for place in range(BLOCK)]

    def take(self, hidden: Tensor) -> None:
        spec, params = self._spec, self._spec.diffusion
        share = (params.steps - self._step) / params.steps
        start, end = params.temperature_start, params.temperature_end
        scaled = SOFTCAP * (hidden.double() @ self._head.T / SOFTCAP).tanh()
        scaled /= (end + (start - end) * share) * (spec.sampling.temperature or 1.0)
        probability = scaled.softmax(-1)
        entropy = floats(-(probability * probability.log()).sum(-1))
        self.mean_entropy = sum(entropy) / BLOCK
        self.best = ints(probability.argmax(-1))
        self.accepted = self._accepted(entropy)
        self._predictions.append(self.best)
        last = self._predictions[-params.stability - 1 :]
        stable = len(last) == params.stability + 1 and all(one == self.best for one in last)
        sure = params.stop_entropy is not None and self.mean_entropy < params.stop_entropy
        self.done = (stable and sure) or self._step + 1 == params.steps
        self.tokens = [self._next(place, probability[place]) for place in range(BLOCK)]
        self.soft = (probability @ self._head * WIDTH**0.5).float()
        self._step += 1

    def _accepted(self, entropy: list[float]) -> list[bool]:
        before, accepted = 0.0, [False] * BLOCK
        for place in sorted(range(BLOCK), key=entropy.__getitem__):
            accepted[place] = before <= self._spec.diffusion.entropy_bound
            before += entropy[place]
        return accepted

    def _next(self, place: int, probability: Tensor) -> int:
        if not self.accepted[place]:
            return int(self._noise(place, 1) * VOCABULARY)
        if self._spec.sampling.temperature == 0.0:
            return self.best[place]
        return int((probability.cumsum(0) <= self._noise(place, 0)).sum())

    def _noise(self, place: int, draw: int) -> float:
        values = (self._spec.sampling.seed, self._spec.block_index, self._step, place)
        seed, block, step, position = (torch.tensor(value) for value in values)
        return float(uniform(seed, block, step, position, draw))


def _denoiser(slots: int = 4) -> RenoisingDenoiser:
    head = torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(0))
    return RenoisingDenoiser.allocate(CanvasRegisters.allocate(slots, BLOCK, 0, CPU), Head(head, SOFTCAP))


def _open(denoiser: RenoisingDenoiser, slot: int, spec: CanvasSpec) -> None:
    denoiser.registers.open(slot, spec)
    denoiser.open(slot, spec)


def _hidden(seed: int) -> Tensor:
    """[block, h], some positions surer than others."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BLOCK, WIDTH, generator=generator) * torch.linspace(0.5, 3.0, BLOCK)[:, None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of each canvas, what the registers hold after a step."""

    done: Tensor
    step: Tensor
    undecided: Tensor
    live: Tensor
    mean_entropy: Tensor


def _take(denoiser: RenoisingDenoiser, slots: Sequence[int], hidden: Tensor) -> Outcome:
    """One step of the canvases in `slots`. hidden [c, block, h]."""
    registers = denoiser.registers
    denoiser.step(torch.tensor(slots), hidden, registers.traits_of(slots))
    integers = registers.state.integers[list(slots)]
    columns = (integers[:, column] for column in (Whole.STEP, Whole.UNDECIDED, Whole.LIVE))
    return Outcome(
        integers[:, Whole.ACTIVE] == 0, *columns, registers.state.numbers[list(slots)][:, Real.MEAN_ENTROPY]
    )


def _step(denoiser: RenoisingDenoiser, seed: int) -> Outcome:
    return _take(denoiser, [0], _hidden(seed)[None])


def _trace(denoiser: RenoisingDenoiser, slots: Sequence[int]) -> dict[int, list[object]]:
    """What each slot comes to over some steps with hidden states that depend on the slot only."""
    trace: dict[int, list[object]] = {slot: [] for slot in slots}
    for step in range(6):
        outcome = _take(denoiser, slots, torch.stack([_hidden(10 * slot + step // 3) for slot in slots]))
        for row, slot in enumerate(slots):
            trace[slot].append(
                (
                    ints(denoiser.registers.state.tokens[slot]),
                    ints(denoiser.registers.state.decided[slot]),
                    ints(denoiser.registers.state.predicted[slot]),
                    bool(outcome.done[row]),
                )
            )
    return trace
