"""What a persistent launch refuses before anything is touched."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from easel.kernels.canvas_state import CanvasState
from easel.kernels.commit import StepTraits
from easel.kernels.commit_rules import Rule
from easel.kernels.persistent import (
    Executor,
    PersistentLayer,
    PersistentOutcome,
    PersistentTask,
    PersistentTrace,
    PersistentWeights,
    run_persistent,
)
from tests.kernels.persistent_inputs import Canvas, task_of

ALL = frozenset(Rule)


def weights(task: PersistentTask, **changed: Tensor) -> PersistentTask:
    return replace(task, weights=replace(task.weights, **changed))


def pages(task: PersistentTask, **changed: Tensor | int) -> PersistentTask:
    return replace(task, pages=replace(task.pages, **changed))


def state(task: PersistentTask, **changed: Tensor) -> PersistentTask:
    return replace(task, state=CanvasState(**(task.state.tensors() | changed)))


WRONG: dict[str, Callable[[PersistentTask], PersistentTask]] = {
    "cuts are not covered": lambda task: replace(task, traits=StepTraits(ALL, sampled=True, cut=True)),
    "edits are not covered": lambda task: replace(task, traits=StepTraits(ALL, edits=True)),
    "partial steps are not covered": lambda task: replace(task, traits=StepTraits(ALL, partial=True)),
    "max_steps is 0": lambda task: replace(task, max_steps=0),
    "mask 37 of 37 tokens": lambda task: replace(task, mask_token_id=37),
    "not torch.float16": lambda task: weights(task, embedding=task.weights.embedding.half()),
    r"down must be .* torch.float32": lambda task: weights(task, down=task.weights.down.bfloat16()),
    "qkv must be": lambda task: weights(task, qkv=task.weights.qkv[:, 1:]),
    "head must be": lambda task: weights(task, head=task.weights.head[1:]),
    "frequencies must be": lambda task: weights(task, frequencies=task.weights.frequencies[1:]),
    "do not go together": lambda task: weights(task, qk_norm=task.weights.qk_norm[:, :2]),
    "stacked matrices": lambda task: weights(task, down=task.weights.down[0]),
    "pages.keys must be": lambda task: pages(task, keys=task.pages.keys[..., 1:]),
    "pages.values must be": lambda task: pages(task, values=task.pages.values.transpose(1, 2)),
    "pages.table must be": lambda task: pages(task, table=task.pages.table.long()),
    "pages.prefix must be": lambda task: pages(task, prefix=task.pages.prefix[1:]),
    "a page of 0 tokens": lambda task: pages(task, page_size=0),
    "tokens must be": lambda task: state(task, tokens=task.state.tokens.int()),
    "integers must be": lambda task: state(task, integers=task.state.integers[:, 1:]),
    "numbers must be": lambda task: state(task, numbers=task.state.numbers.double()),
    "eos_token_ids must be": lambda task: replace(task, eos_token_ids=torch.tensor([1.0])),
    "control.shutdown must be": lambda task: replace(
        task, control=replace(task.control, shutdown=torch.zeros(1, dtype=torch.bool))
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_tasks_that_do_not_fit_together_or_are_not_covered_are_refused(message: str) -> None:
    task = WRONG[message](task_of([Canvas(), Canvas()]))
    with pytest.raises(ValueError, match=f"persistent: .*{message}"):
        run_persistent(task, executor=Executor.TORCH)


def test_outcomes_and_traces_of_another_shape_are_refused() -> None:
    task = task_of([Canvas()], max_steps=2)
    outcome = PersistentOutcome(task.state, torch.zeros(2, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"outcome.steps must be \(1,\)"):
        run_persistent(task, outcome=outcome)
    trace = PersistentTrace.allocate(replace(task, max_steps=1))
    with pytest.raises(ValueError, match=r"trace.layers must be \(2, 1, "):
        run_persistent(task, trace=trace)


@pytest.mark.parametrize("name", ["bias", "normalise", "experts"])
def test_layers_that_are_not_covered_are_refused(name: str) -> None:
    one, matrix = torch.ones(8), torch.ones(8, 8)
    layer = PersistentLayer(one, matrix, matrix, matrix, one, matrix, matrix)
    wrong = {
        "bias": replace(layer, qkv_bias=one),
        "normalise": replace(layer, qk_norm=None),
        "experts": replace(layer, gate_up=matrix[None]),
    }
    with pytest.raises(ValueError, match=f"layer 1 .*{name}"):
        PersistentWeights.stack(
            [layer, wrong[name]], embedding=matrix, final_norm=one, head=matrix, frequencies=one, epsilon=1e-6
        )


def test_a_step_reads_all_weights_but_the_embedding() -> None:
    found = task_of([Canvas()]).weights
    numbers = (16 + 32 * 16 + 3 * 8 + 16 * 16 + 16 + 48 * 16 + 16 * 24) * 2 + 16 + 37 * 16 + 4
    assert found.nbytes == 4 * numbers


def test_stages_need_no_triton() -> None:
    program = "import sys; sys.modules['triton'] = None; import easel.kernels.persistent"
    subprocess.run([sys.executable, "-P", "-W", "error", "-c", program], check=True, timeout=60)
