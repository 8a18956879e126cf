"""Random models and canvases for tests of the persistent launch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

from easel.kernels.canvas_state import CanvasState, Real, Whole
from easel.kernels.commit import StepTraits
from easel.kernels.commit_rules import Rule
from easel.kernels.persistent import (
    Executor,
    PersistentControl,
    PersistentLayer,
    PersistentOutcome,
    PersistentPages,
    PersistentScratch,
    PersistentTask,
    PersistentTrace,
    PersistentWeights,
    run_persistent,
)
from easel.kernels.rope import inverse_frequencies

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # "cpu": in the interpreter
POISON = -77
NAN = float("nan")
MASK, EOS = 3, 5


@dataclass(frozen=True, slots=True)
class Model:
    """Dimensions that are small, and mostly no powers of two."""

    hidden: int = 16
    layers: int = 2
    heads: int = 2
    kv_heads: int = 1
    dim: int = 8
    inner: int = 24
    vocabulary: int = 37
    sharpness: float = 3.0  # how far logits spread
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, slots=True)
class Canvas:
    """One slot. `per_step` positions are decided in each step at least, in every other step one more."""

    prefix: int = 11
    rule: Rule = Rule.CONFIDENCE_THRESHOLD
    temperature: float = 0.0
    known: int = 0
    limit: int | None = None  # None: the block
    threshold: float = 0.5
    entropy_bound: float = 2.0
    stop_entropy: float = -1.0
    per_step: int = 1
    active: bool = True
    taken: int = 0  # steps before


@dataclass(frozen=True, slots=True)
class Ran:
    """What a launch left."""

    task: PersistentTask
    outcome: PersistentOutcome
    trace: PersistentTrace

    def tensors(self) -> dict[str, Tensor]:
        """All that it may have written, on the CPU."""
        traced = {f"trace.{name}": tensor for name, tensor in self.trace.tensors().items()}
        whole = self.task.state.tensors() | traced | {"steps": self.outcome.steps}
        return {name: tensor.cpu() for name, tensor in whole.items()}


def weights_of(model: Model, seed: int = 0) -> PersistentWeights:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=generator) * scale).to(model.dtype)

    def norm(*shape: int) -> Tensor:
        return (0.5 + torch.rand(shape, generator=generator)).to(model.dtype)

    h, dim, queries = model.hidden, model.dim, model.heads * model.dim
    layers = [
        PersistentLayer(
            input_norm=norm(h),
            qkv=normal(queries + 2 * model.kv_heads * dim, h, scale=h**-0.5),
            qk_norm=norm(model.heads + model.kv_heads, dim),
            out=normal(h, queries, scale=queries**-0.5),
            mlp_norm=norm(h),
            gate_up=normal(2 * model.inner, h, scale=h**-0.5),
            down=normal(h, model.inner, scale=model.inner**-0.5),
        )
        for _ in range(model.layers)
    ]
    return PersistentWeights.stack(
        layers,
        embedding=normal(model.vocabulary, h),
        final_norm=norm(h),
        head=normal(model.vocabulary, h, scale=model.sharpness * h**-0.5),
        frequencies=inverse_frequencies(dim, 10_000.0),
        epsilon=1e-6,
    )


def state_of(canvases: Sequence[Canvas], block: int, vocabulary: int) -> CanvasState:
    state = CanvasState.allocate(len(canvases), block, torch.device("cpu"))
    draw = Random(len(canvases) * block)
    for slot, canvas in enumerate(canvases):
        known = [draw.randrange(EOS + 1, vocabulary) for _ in range(canvas.known)]
        state.tokens[slot] = torch.tensor([*known, *[MASK] * (block - canvas.known)])
        state.decided[slot, : canvas.known] = True
        state.predicted[slot] = state.tokens[slot]
        state.live[slot] = True
        state.quotas[slot] = canvas.per_step + torch.arange(block) % 2
        limit = block if canvas.limit is None else canvas.limit
        integers = {
            Whole.ACTIVE: int(canvas.active),
            Whole.STEP: canvas.taken,
            Whole.FIRST: canvas.known,
            Whole.LIMIT: limit,
            Whole.BLOCK_INDEX: slot % 3,
            Whole.SEED: 2**40 * slot + 123456789,
            Whole.RULE: int(canvas.rule),
        }
        numbers = {
            Real.THRESHOLD: canvas.threshold,
            Real.ENTROPY_BOUND: canvas.entropy_bound,
            Real.STOP_ENTROPY: canvas.stop_entropy,
            Real.TEMPERATURE: canvas.temperature,
        }
        for column, value in integers.items():
            state.integers[slot, column] = value
        for column, value in numbers.items():
            state.numbers[slot, column] = value
    return state


def task_of(
    canvases: Sequence[Canvas],
    model: Model | None = None,
    *,
    block: int = 8,
    page_size: int = 8,
    max_steps: int = 12,
    eos: Sequence[int] = (EOS,),
) -> PersistentTask:
    """Prefixes lie in scattered pages; what no canvas may see is not a number."""
    model = model or Model()
    weights = weights_of(model)
    traits = StepTraits(frozenset(canvas.rule for canvas in canvases), sampled=True)
    return PersistentTask(
        weights=weights,
        state=state_of(canvases, block, model.vocabulary),
        pages=_pages(canvases, model, page_size),
        control=PersistentControl.allocate(torch.device("cpu")),
        traits=traits,
        eos_token_ids=torch.tensor(eos, dtype=torch.int64),
        mask_token_id=MASK,
        max_steps=max_steps,
    )


def copy_of(task: PersistentTask) -> PersistentTask:
    """With registers and flags of its own."""
    state = CanvasState(*(tensor.clone() for tensor in task.state.tensors().values()))
    control = PersistentControl(task.control.shutdown.clone(), task.control.finished.clone())
    return replace(task, state=state, control=control)


def run(task: PersistentTask, executor: Executor) -> Ran:
    """Runs a copy of the task, with outputs and scratch poisoned beforehand."""
    task = copy_of(task)
    if executor is Executor.TRITON:
        task = on(task, DEVICE)
    trace, scratch = PersistentTrace.allocate(task), PersistentScratch.allocate(task)
    for tensor in trace.tensors().values():
        tensor.fill_(POISON)
    for tensor in scratch.tensors():
        tensor.fill_(NAN)
    steps = torch.full((task.slots,), POISON, dtype=torch.int32, device=task.state.tokens.device)
    outcome = PersistentOutcome(task.state, steps)
    run_persistent(task, outcome=outcome, trace=trace, scratch=scratch, executor=executor)
    return Ran(task, outcome, trace)


def on(task: PersistentTask, device: torch.device) -> PersistentTask:
    def moved(tensors: Sequence[Tensor]) -> list[Tensor]:
        return [tensor.to(device) for tensor in tensors]

    weights, pages, control = task.weights, task.pages, task.control
    kept = (pages.keys, pages.values, pages.table, pages.prefix)
    return replace(
        task,
        weights=PersistentWeights(*moved([*weights.tensors().values()]), epsilon=weights.epsilon),
        state=CanvasState(*moved([*task.state.tensors().values()])),
        pages=PersistentPages(*moved(kept), page_size=pages.page_size),
        control=PersistentControl(*moved((control.shutdown, control.finished))),
        eos_token_ids=task.eos_token_ids.to(device),
    )


def _pages(canvases: Sequence[Canvas], model: Model, page_size: int) -> PersistentPages:
    needed = [-(-canvas.prefix // page_size) for canvas in canvases]
    count, draw = sum(needed) + 2, Random(len(canvases))
    order = draw.sample(range(count), count)
    table = torch.full((len(canvases), max(needed, default=0) + 1), 1_000_000, dtype=torch.int32)
    shape = (model.layers, count * page_size, model.kv_heads, model.dim)
    keys, values = torch.full(shape, NAN, dtype=model.dtype), torch.full(shape, NAN, dtype=model.dtype)
    generator = torch.Generator().manual_seed(1)
    for slot, (canvas, pages) in enumerate(zip(canvases, needed, strict=True)):
        mine = [order.pop() for _ in range(pages)]
        table[slot, :pages] = torch.tensor(mine, dtype=torch.int32)
        within = [page * page_size + offset for page in mine for offset in range(page_size)]
        for store in (keys, values):
            filled = torch.randn((model.layers, canvas.prefix, *shape[2:]), generator=generator)
            store[:, within[: canvas.prefix]] = filled.to(model.dtype)
    prefix = torch.tensor([canvas.prefix for canvas in canvases], dtype=torch.int32)
    return PersistentPages(keys, values, table, prefix, page_size)
