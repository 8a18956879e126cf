"""Steps of whole blocks in one launch: the kernel, on a GPU or in Triton's interpreter, beside its stages."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from easel.kernels.canvas_state import Whole
from easel.kernels.commit_rules import Rule
from easel.kernels.noise import uniform
from easel.kernels.persistent import Executor, PersistentTask
from easel.kernels.persistent_head_triton import uniform_numbers
from easel.kernels.persistent_stages import TOKEN_DRAW
from tests.kernels.persistent_inputs import DEVICE, MASK, POISON, Canvas, Model, Ran, run, task_of

GREEDY, DRAWN = Canvas(known=2, per_step=2), Canvas(prefix=17, temperature=0.8, per_step=3)


@pytest.mark.parametrize("rule", Rule)
def test_every_stage_of_every_step_equals_the_plain_functions(rule: Rule) -> None:
    canvases = [replace(canvas, rule=rule) for canvas in (GREEDY, DRAWN)]
    found = assert_as_by_stages(task_of(canvases, block=7, page_size=5))
    assert found.outcome.done.all()


@pytest.mark.parametrize("seed", range(4))
def test_shapes_that_fill_no_tile_make_no_difference(seed: int) -> None:
    draw = Random(seed)
    kv_heads = draw.choice([1, 2])
    model = Model(
        hidden=draw.choice([6, 20, 33]),
        layers=draw.choice([1, 3]),
        heads=kv_heads * draw.choice([1, 3]),
        kv_heads=kv_heads,
        dim=draw.choice([2, 6, 20]),
        inner=draw.choice([5, 40]),
        vocabulary=draw.choice([17, 50]),
    )
    canvas = Canvas(draw.randrange(40), known=1, temperature=draw.choice([0.0, 1.3]), per_step=3)
    block, page_size = draw.randrange(3, 19), draw.randrange(1, 9)
    assert_as_by_stages(task_of([canvas], model, block=block, page_size=page_size, max_steps=2))


def test_the_earlier_of_equally_sure_positions_goes_first() -> None:
    rules = (Rule.STATIC_SCHEDULE, Rule.ENTROPY_BOUND)
    canvases = [Canvas(rule=rule, per_step=3, entropy_bound=0.0) for rule in rules]
    found = assert_as_by_stages(task_of(canvases, Model(sharpness=0.0), max_steps=1))
    assert found.task.state.decided.tolist() == [[True] * 3 + [False] * 5] * 2


def test_a_step_beyond_the_schedule_decides_as_many_as_its_last() -> None:
    task = task_of([Canvas(rule=Rule.SEQUENTIAL, taken=30)], max_steps=1)
    task.state.quotas[0] = torch.arange(1, 9) // 2
    assert assert_as_by_stages(task).task.state.decided[0].tolist() == [True] * 4 + [False] * 4


def test_bfloat16_is_rounded_where_modules_round() -> None:
    task = task_of([GREEDY, DRAWN], Model(dtype=torch.bfloat16, sharpness=6.0), max_steps=1)
    by_stages = run(task, Executor.TORCH)
    found = run(task, Executor.TRITON)
    step = 2 * torch.finfo(torch.bfloat16).eps  # the interpreter cuts off what a GPU rounds
    for name in ("layers", "hidden", "confidence", "entropy"):
        pair = (ran.tensors()[f"trace.{name}"].float() for ran in (found, by_stages))
        # Numbers are at most about 4; sums of another order may round the other way.
        torch.testing.assert_close(*pair, atol=4 * step, rtol=step)
    assert torch.equal(found.task.state.tokens.cpu(), by_stages.task.state.tokens)


def test_canvases_end_each_after_its_own_number_of_steps() -> None:
    canvases = [
        replace(GREEDY, per_step=4),
        replace(GREEDY, limit=3, rule=Rule.SEQUENTIAL, per_step=1),
        replace(DRAWN, stop_entropy=50.0, per_step=1),
        replace(DRAWN, rule=Rule.STATIC_SCHEDULE),
    ]
    found = assert_as_by_stages(task_of(canvases))
    assert found.outcome.steps.tolist() == [2, 1, 1, 3]
    assert found.outcome.done.all()
    undecided = found.task.state.whole(Whole.UNDECIDED).tolist()
    assert undecided == [0, 5, 0, 0], "what lies beyond the limit is left as it is"


def test_what_follows_a_decided_end_of_sequence_is_not_waited_for() -> None:
    task = task_of([Canvas(rule=Rule.SEQUENTIAL, temperature=2.0, known=2)], eos=())
    task.state.quotas.fill_(1)
    output = run(task, Executor.TORCH).task.state.tokens[0, 2:].tolist()
    assert len(set(output[:4])) == 4
    known = int(task.state.tokens[0, 0])  # ends nothing: it belongs to the prompt
    ends = torch.tensor([output[3], known, output[1]])
    found = assert_as_by_stages(replace(task, eos_token_ids=ends))
    assert found.outcome.steps.tolist() == [2]
    assert found.task.state.tokens[0, 2:].tolist() == [*output[:2], *[MASK] * 4]


def test_slots_that_are_not_active_are_not_touched() -> None:
    idle = replace(DRAWN, active=False, prefix=40)
    task = task_of([idle, GREEDY, idle], max_steps=1)
    found = assert_as_by_stages(task)
    for name, before in task.state.tensors().items():
        assert torch.equal(found.tensors()[name][::2], before[::2])
    assert found.outcome.steps.tolist() == [POISON, 1, POISON]


def test_a_canvas_that_ran_out_of_steps_goes_on_as_if_nothing_had_been() -> None:
    task = task_of([replace(DRAWN, rule=Rule.STATIC_SCHEDULE)], max_steps=2)
    part = run(task, Executor.TRITON)
    assert int(part.outcome.steps) == 2
    assert not part.outcome.done.any()
    part.task.control.shutdown.zero_()
    rest = run(part.task, Executor.TRITON)
    whole = run(replace(task, max_steps=12), Executor.TORCH)
    assert int(rest.outcome.steps) == 1
    assert torch.equal(rest.task.state.tokens.cpu(), whole.task.state.tokens)


@pytest.mark.parametrize("executor", [Executor.TORCH, Executor.TRITON])
def test_no_step_is_taken_when_the_flag_is_up(executor: Executor) -> None:
    task = task_of([GREEDY, DRAWN])
    task.control.shutdown.fill_(1)
    found = run(task, executor)
    assert found.outcome.steps.tolist() == [0, 0]
    for name, before in task.state.tensors().items():
        assert torch.equal(found.tensors()[name], before)
    for tensor in found.trace.tensors().values():
        assert torch.equal(tensor, torch.full_like(tensor, POISON))


@pytest.mark.parametrize("executor", [Executor.TORCH, Executor.TRITON])
@pytest.mark.parametrize("count", [0, 3])
def test_the_last_to_end_raises_the_flag_and_leaves_the_count_at_zero(count: int, executor: Executor) -> None:
    control = run(task_of([replace(GREEDY, active=False)] * count), executor).task.control
    assert int(control.shutdown) == 1
    assert int(control.finished) == 0


def test_random_numbers_are_those_of_every_other_path_bit_for_bit() -> None:
    seed, block, step = 2**62 + 12345678901, 77, 3
    out = torch.full((16,), float(POISON), dtype=torch.float64, device=DEVICE)
    _write_numbers[(1,)](seed, block, step, out)
    place = torch.arange(16)
    seeds, blocks, steps = (torch.full_like(place, number) for number in (seed, block, step))
    assert torch.equal(out.cpu(), uniform(seeds, blocks, steps, place, TOKEN_DRAW))


@triton.jit
def _write_numbers(seed: Any, block: Any, step: Any, out: Any) -> None:
    place = tl.arange(0, 16)
    tl.store(out + place, uniform_numbers(seed, block, step, place))


def test_the_kernel_of_the_demo_model_fits_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-P", Path(__file__).with_name("persistent_build.py")]
    told = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
    used = json.loads(told.stdout)
    assert used["shared"] <= 227 * 1024
    assert used["REG"] <= 255
    assert used["STACK"] <= 512, "spills"


def assert_as_by_stages(task: PersistentTask) -> Ran:
    """Runs both and compares all that they wrote; returns the kernel's."""
    found, expected = run(task, Executor.TRITON), run(task, Executor.TORCH)
    for name, tensor in expected.tensors().items():
        torch.testing.assert_close(found.tensors()[name], tensor, atol=1e-5, rtol=1e-5, msg=name)
    return found
