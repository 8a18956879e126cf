"""A forward of canvases can be recorded: nothing in it waits for the device or comes from the host."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from easel.bench.oracles.checkpoints import Sizes
from easel.bench.oracles.diffusion_gemma import Settings, TinyGemma, write_tiny
from easel.kernels.moe import expert_mlp_static
from easel.kernels.soft_embedding import embedding_root
from easel.worker.batch import ForwardBatch, build_batch
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.graph_loop import LoopState
from easel.worker.loading import load_engine
from easel.worker.models import gemma_layers, mlp
from easel.worker.step_program import Machine, Node
from tests.worker.models.backbones import BLOCK_CAUSAL
from tests.worker.recording import Tape, TapeRecorder, kernels_for
from tests.worker.rows import opening, plan, reuse

SLOTS, BLOCK = 3, 8
CPU = torch.device("cpu")


def _write_gemma(path: Path, sizes: Sizes) -> None:
    write_tiny(path, TinyGemma(layer_types="SF", canvas_length=sizes.block_length), Settings())


WRITERS: Mapping[str, Callable[[Path, Sizes], object]] = {**BLOCK_CAUSAL, "DiffusionGemma": _write_gemma}


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tape]:
    """Experts take the way that depends on no value, as their Triton launches do."""
    tape = Tape()
    for module in (mlp, gemma_layers):
        monkeypatch.setattr(module, "expert_mlp", expert_mlp_static)
    with kernels_for(tape, monkeypatch):
        yield tape


@torch.inference_mode()
@pytest.mark.parametrize("family", WRITERS)
def test_a_recorded_forward_of_canvases_reads_other_tokens_when_it_is_launched_again(
    tmp_path: Path, tape: Tape, family: str
) -> None:
    machine, batch = _canvases(_engine(tmp_path, family))
    found = torch.empty(len(batch.tokens), machine.model.head.shape[1])
    state = LoopState.allocate(CPU)

    def forward() -> None:
        found.copy_(_forward(machine, batch))

    recording = TapeRecorder(tape).record([Node("forward", forward)], state)
    before = found.clone()
    _change(batch)
    state.start(1)
    recording.run(1, lambda: False)
    assert not torch.equal(found, before)
    torch.testing.assert_close(found, _forward(machine, batch), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("family", WRITERS)
def test_a_forward_of_canvases_makes_no_tensor_of_the_hosts_numbers(
    tmp_path: Path, tape: Tape, family: str
) -> None:
    machine, batch = _canvases(_engine(tmp_path, family))
    with _Operators() as seen:
        _forward(machine, batch)
    assert seen.count > 20
    assert not seen.from_host


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_root_that_scales_embeddings_is_rounded_as_a_tensor_of_it_would_be(dtype: torch.dtype) -> None:
    for width in range(1, 9000, 7):
        found = embedding_root(torch.empty(1, width, dtype=dtype, device="meta"))
        assert found == float(torch.tensor(width**0.5, dtype=dtype))


def test_numbers_of_the_host_are_noticed() -> None:
    held = torch.zeros(3)
    for use in (lambda: held * torch.tensor(2.0), lambda: held[[0, 2]]):
        with _Operators() as seen:
            use()
        assert seen.from_host == 1


class _Operators(TorchDispatchMode):
    """Counts operators, and those that make a tensor of the host's numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.from_host = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.count += 1
        self.from_host += func is torch.ops.aten.lift_fresh.default
        return func(*args, **(kwargs or {}))


def _engine(path: Path, family: str) -> Engine:
    WRITERS[family](path, Sizes(block_length=BLOCK))
    return load_engine(path, EngineConfig(slots=SLOTS, pages=SLOTS, page_size=BLOCK, dtype="float32"))


def _canvases(engine: Engine) -> tuple[Machine, ForwardBatch]:
    """A batch of nothing but canvases, each after its first step and behind a page that holds something."""
    runner, machine = engine.runner, engine.runner.machine
    for store in (*machine.cache.keys, *machine.cache.values):
        store.normal_(generator=torch.Generator().manual_seed(0))
    opens, steps = (
        [replace(make(slot, BLOCK, BLOCK, (slot,)), window_pages=(slot,)) for slot in range(SLOTS)]
        for make in (opening, reuse)
    )
    runner.run(plan(*opens))
    batch = build_batch(plan(*steps), machine.registers, runner.geometry, CPU)
    batch.fill(machine.registers)
    assert all(layout.ragged is not None for layout in batch.layouts)
    return machine, batch


def _forward(machine: Machine, batch: ForwardBatch) -> Tensor:
    return machine.model.forward(batch, machine.cache, machine.denoiser.conditioning(batch.slots))


def _change(batch: ForwardBatch) -> None:
    """Other tokens elsewhere, conditioned on what other slots hold."""
    batch.tokens.copy_(batch.tokens.roll(1) + 1)
    batch.positions.add_(3)
    batch.slots.copy_(batch.slots.roll(1))
