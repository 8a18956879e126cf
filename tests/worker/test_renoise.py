"""The renoising denoiser against its definition, a canvas and a step at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from easel.scheduler.messages import CanvasSpec
from easel.scheduler.request import SamplingParams
from easel.worker.batch import ForwardBatch
from easel.worker.kv_cache import KVCache
from easel.worker.registers import CanvasRegisters
from easel.worker.renoise import RenoisingDenoiser
from tests.worker.renoising import (
    BLOCK,
    CPU,
    DIFFUSION,
    SOFTCAP,
    SPECS,
    VOCABULARY,
    WIDTH,
    Definition,
    Head,
    Outcome,
    hidden_states,
    new_denoiser,
    open_canvas,
    take,
)
from tests.worker.values import ints


@pytest.mark.parametrize("spec", SPECS[:3], ids=["drawn", "cooler", "greedy"])
def test_every_step_is_the_definitions(spec: CanvasSpec) -> None:
    denoiser = new_denoiser()
    open_canvas(denoiser, 2, spec)
    expected = Definition(spec, denoiser.head)
    for step in range(spec.diffusion.steps):
        assert ints(denoiser.registers.state.tokens[2]) == expected.tokens
        hidden = hidden_states(step // 2)
        outcome = take(denoiser, [2], hidden[None])
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
    denoiser.own.soft.fill_(7.0)
    open_canvas(denoiser, 0, SPECS[0])
    counts = registers.state.tokens[0].bincount(minlength=VOCABULARY)
    assert len(counts) == VOCABULARY
    # Five standard deviations of a count whose mean is 121.
    assert int((counts - 4000 / VOCABULARY).abs().max()) < 55
    assert not denoiser.conditioning(torch.tensor([0])).any()


def test_nothing_of_a_slots_past_is_kept() -> None:
    used, fresh = new_denoiser(), new_denoiser()
    open_canvas(used, 1, SPECS[3])
    take(used, [1], hidden_states(0)[None])
    for denoiser in (used, fresh):
        open_canvas(denoiser, 1, SPECS[0])
    assert _trace(used, [1]) == _trace(fresh, [1])


def test_a_canvas_is_the_same_whatever_is_denoised_beside_it() -> None:
    together = new_denoiser()
    for slot, spec in enumerate(SPECS):
        open_canvas(together, slot, spec)
    beside = _trace(together, [3, 0, 2, 1])
    for slot, spec in enumerate(SPECS):
        alone = new_denoiser()
        open_canvas(alone, slot, spec)
        assert _trace(alone, [slot])[slot] == beside[slot]


def test_a_canvas_ends_at_its_last_step_however_unsure_it_is() -> None:
    denoiser = new_denoiser()
    open_canvas(denoiser, 0, replace(SPECS[0], diffusion=replace(DIFFUSION, steps=3, stop_entropy=None)))
    hidden = torch.zeros(1, BLOCK, WIDTH)
    assert [bool(take(denoiser, [0], hidden).done) for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(("stability", "steps"), [(1, 2), (2, 3), (4, 5)])
def test_a_sure_canvas_ends_once_its_predictions_have_stood_for_the_steps_asked_for(
    stability: int, steps: int
) -> None:
    denoiser = new_denoiser()
    diffusion = replace(DIFFUSION, steps=30, stability=stability, stop_entropy=10.0)
    open_canvas(denoiser, 0, replace(SPECS[0], diffusion=diffusion))
    assert not _step(denoiser, 0).done  # another prediction, which does not count
    done = [bool(_step(denoiser, 1).done) for _ in range(steps)]
    assert done == [False] * (steps - 1) + [True]


def test_an_unsure_canvas_goes_on_though_its_predictions_stand() -> None:
    denoiser = new_denoiser()
    open_canvas(denoiser, 0, replace(SPECS[0], diffusion=replace(DIFFUSION, steps=30, stop_entropy=1e-6)))
    assert not any(bool(_step(denoiser, 1).done) for _ in range(29))


def test_a_step_reports_all_positions_as_ones_to_compute_next() -> None:
    denoiser = new_denoiser()
    for slot, spec in enumerate(SPECS):
        open_canvas(denoiser, slot, spec)
    outcome = take(denoiser, [0, 2], torch.stack([hidden_states(0), hidden_states(1)]))
    assert ints(outcome.live) == [BLOCK, BLOCK]


def test_top_k_confines_what_is_drawn() -> None:
    drawn, kept = new_denoiser(), new_denoiser()
    diffusion = replace(DIFFUSION, entropy_bound=1e3, stop_entropy=None)
    for denoiser, top_k in ((drawn, 0), (kept, 1)):
        sampling = SamplingParams(temperature=3.0, seed=1, top_k=top_k)
        open_canvas(denoiser, 0, replace(SPECS[0], sampling=sampling, diffusion=diffusion))
        _step(denoiser, 0)
    assert ints(kept.registers.state.tokens[0]) == ints(kept.registers.state.predicted[0])
    assert ints(drawn.registers.state.tokens[0]) != ints(drawn.registers.state.predicted[0])


def test_the_cost_of_a_slot_is_what_allocation_grows_by() -> None:
    def size(slots: int) -> int:
        own = new_denoiser(slots).own
        return sum(getattr(own, name).nbytes for name in own.__slots__)

    assert new_denoiser().bytes_per_slot() == size(5) - size(4)


def test_a_model_without_a_softcap_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Plain:
        head: Tensor

        def forward(self, batch: ForwardBatch, cache: KVCache, conditioning: Tensor | None) -> Tensor:
            raise NotImplementedError

    with pytest.raises(TypeError, match="Plain has no softcap"):
        RenoisingDenoiser.allocate(CanvasRegisters.allocate(1, BLOCK, 0, CPU), Plain(torch.zeros(3, 2)))


def test_a_step_changes_nothing_of_a_canvas_that_is_finished() -> None:
    denoiser, slots = new_denoiser(), [2, 0, 3]
    for slot, spec in enumerate(SPECS):
        open_canvas(denoiser, slot, spec)
    while not bool(take(denoiser, slots, torch.stack([hidden_states(slot) for slot in slots])).done.all()):
        pass
    before = _everything(denoiser)
    take(denoiser, slots, torch.stack([hidden_states(slot + 10) for slot in slots]))
    for name, held in _everything(denoiser).items():
        assert torch.equal(held, before[name]), name


def _everything(denoiser: RenoisingDenoiser) -> dict[str, Tensor]:
    held = denoiser.own.tensors() | denoiser.registers.state.tensors()
    return {name: value.clone() for name, value in held.items()}


def _step(denoiser: RenoisingDenoiser, seed: int) -> Outcome:
    return take(denoiser, [0], hidden_states(seed)[None])


def _trace(denoiser: RenoisingDenoiser, slots: Sequence[int]) -> dict[int, list[object]]:
    """What each slot comes to over some steps with hidden states that depend on the slot only."""
    trace: dict[int, list[object]] = {slot: [] for slot in slots}
    for step in range(6):
        outcome = take(denoiser, slots, torch.stack([hidden_states(10 * slot + step // 3) for slot in slots]))
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
