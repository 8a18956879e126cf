"""Canvas registers: opening a slot forgets its past and touches no other."""

import pytest
import torch
from torch import Tensor

from easel.kernels.canvas_state import Real, Whole
from easel.kernels.commit import StepTraits
from easel.kernels.commit_rules import Rule
from easel.scheduler.messages import CanvasSpec
from easel.scheduler.request import CommitRule, DiffusionParams, SamplingParams, Schedule
from easel.worker.registers import CanvasRegisters
from easel.worker.schedules import step_quotas
from tests.worker.rows import canvas
from tests.worker.values import floats, ints

BLOCK = 8
MASK = 3

SPECS = [
    canvas(BLOCK),
    canvas(5, known=(7, 8, 9), block_index=4),
    canvas(
        BLOCK,
        sampling=SamplingParams(temperature=0.5, top_k=4, top_p=0.75, seed=2**63 - 1),
        diffusion=DiffusionParams(
            steps=3,
            commit_rule=CommitRule.ENTROPY_BOUND,
            threshold=0.25,
            entropy_bound=1.5,
            schedule=Schedule.COSINE,
            stop_entropy=0.125,
            edit_threshold=0.5,
        ),
        snapshots=True,
    ),
]


@pytest.mark.parametrize("spec", SPECS)
def test_nothing_of_a_slots_past_survives_an_opening(spec: CanvasSpec) -> None:
    used, fresh = _poisoned(), _registers()
    used.open(1, spec)
    fresh.open(1, spec)
    for name in _tensor_names():
        assert torch.equal(_tensor(used, name)[1], _tensor(fresh, name)[1]), name
    assert (used.traits[1], used.watched[1]) == (fresh.traits[1], fresh.watched[1])


def test_opening_a_slot_leaves_the_others_as_they_were() -> None:
    registers, before = _poisoned(), _poisoned()
    registers.open(1, SPECS[2])
    for name in _tensor_names():
        for slot in (0, 2):
            assert torch.equal(_tensor(registers, name)[slot], _tensor(before, name)[slot]), name
    assert registers.traits[::2] == before.traits[::2]
    assert registers.watched[::2] == before.watched[::2]


def test_the_prompts_part_is_decided_and_the_rest_is_masked() -> None:
    registers = _poisoned()
    registers.open(0, SPECS[1])
    assert registers.state.tokens[0].tolist() == [7, 8, 9, *[MASK] * 5]
    assert registers.state.decided[0].tolist() == [True] * 3 + [False] * 5
    assert registers.state.confidence[0].tolist() == [1.0] * 3 + [0.0] * 5
    integers = _integers(registers, 0)
    assert (integers[Whole.FIRST], integers[Whole.LIMIT], integers[Whole.BLOCK_INDEX]) == (3, 5, 4)
    assert (integers[Whole.ACTIVE], integers[Whole.STEP]) == (1, 0)
    assert (integers[Whole.UNDECIDED], integers[Whole.LIVE]) == (BLOCK - 3, BLOCK)


def test_a_requests_parameters_are_taken_over() -> None:
    registers = _poisoned()
    spec = SPECS[2]
    registers.open(2, spec)
    assert tuple(ints(registers.state.quotas[2])) == step_quotas(BLOCK, 3, Schedule.COSINE)
    assert registers.watched[2]
    integers, numbers = _integers(registers, 2), floats(registers.state.numbers[2])
    assert integers[Whole.RULE] == Rule.ENTROPY_BOUND
    assert integers[Whole.SEED] == 2**63 - 1, "all 63 bits"
    assert integers[Whole.TOP_K] == 4
    assert numbers[Real.THRESHOLD :] == [0.25, 1.5, 0.125, 0.5, 0.75, 0.5]
    assert registers.traits[2] == StepTraits(frozenset({Rule.ENTROPY_BOUND}), *[True] * 4, shown=True)


def test_the_traits_of_a_step_are_those_of_all_its_canvases() -> None:
    registers = _registers()
    for slot, spec in enumerate(SPECS):
        registers.open(slot, spec)
    plain = StepTraits(frozenset({Rule.CONFIDENCE_THRESHOLD}))
    assert registers.traits_of([0, 1]) == plain
    both = frozenset({Rule.CONFIDENCE_THRESHOLD, Rule.ENTROPY_BOUND})
    assert registers.traits_of([0, 2]) == StepTraits(both, *[True] * 4, shown=True)


def test_a_stop_entropy_that_is_off_is_below_any_entropy() -> None:
    registers = _poisoned()
    registers.open(0, SPECS[0])
    assert float(registers.state.real(Real.STOP_ENTROPY)[0]) < 0.0


def test_memory_of_a_slot_is_counted() -> None:
    # Per position: tokens, predicted and quotas of 8 bytes, confidence of 4, decided and live of 1.
    # Per slot: eleven integers of 8 bytes and eight floats of 4.
    assert _registers().bytes_per_slot() == BLOCK * 30 + 11 * 8 + 8 * 4


def test_the_live_positions_of_a_canvas_are_all_at_first() -> None:
    registers = _registers()
    registers.open(1, SPECS[1])
    registers.state.live[2] = torch.tensor([False, True] * 4)
    assert registers.live_positions([2, 1]) == {2: [1, 3, 5, 7], 1: list(range(BLOCK))}
    assert registers.live_positions([]) == {}


def _registers() -> CanvasRegisters:
    return CanvasRegisters.allocate(3, BLOCK, MASK, torch.device("cpu"))


def _poisoned() -> CanvasRegisters:
    registers = _registers()
    for name in _tensor_names():
        _tensor(registers, name).fill_(77)
    registers.traits[:] = [StepTraits(frozenset({Rule.STATIC_SCHEDULE}))] * 3
    registers.watched[:] = [True, True, False]
    return registers


def _tensor_names() -> list[str]:
    return list(_registers().state.tensors())


def _tensor(registers: CanvasRegisters, name: str) -> Tensor:
    return registers.state.tensors()[name]


def _integers(registers: CanvasRegisters, slot: int) -> list[int]:
    return ints(registers.state.integers[slot])
