"""Which way a replica loops over its steps."""

from importlib.util import find_spec

import torch

from easel.kernels.persistent import PersistentControl
from easel.scheduler.messages import ReplicaShape
from easel.worker.config import LoopKind
from easel.worker.cuda_graphs import GraphRecorder
from easel.worker.cuda_while import WhileRecorder
from easel.worker.denoise import MaskedDenoiser
from easel.worker.errors import WorkerError
from easel.worker.fixed_inputs import Bounds, bucket_sizes
from easel.worker.graph_loop import GraphLoop, Recorder
from easel.worker.host_loop import HostLoop, StepLoop
from easel.worker.models.backbone import BackboneConfig
from easel.worker.persistent_loop import PersistentLoop, persistent_weights
from easel.worker.step_program import Machine


def step_loop(kind: LoopKind, machine: Machine, shape: ReplicaShape, dimensions: BackboneConfig) -> StepLoop:
    """The loop of that kind. Raises WorkerError where the device or what is installed cannot run it."""
    if kind is LoopKind.HOST:
        return HostLoop()
    if machine.registers.device.type != "cuda":
        raise WorkerError(
            f"loop {kind.value!r} runs steps on a CUDA device; use {LoopKind.HOST.value!r} on a CPU."
        )
    bounds = Bounds(
        block_length=shape.block_length,
        pages=tuple(_pages_seen(shape, group.window) for group in dimensions.kv_groups),
        spare_slot=shape.slots,
    )
    if kind is LoopKind.PERSISTENT:
        return _persistent(machine, bounds)
    return GraphLoop(machine, _recorder(kind), bounds, bucket_sizes(shape.slots))


def spare_slots(kind: LoopKind) -> int:
    """Slots besides those of requests: recorded steps are padded with a canvas that is never active."""
    return 1 if kind in {LoopKind.GRAPH, LoopKind.WHILE} else 0


def _persistent(machine: Machine, bounds: Bounds) -> PersistentLoop:
    if not isinstance(machine.denoiser, MaskedDenoiser):
        raise WorkerError("loop 'persistent' denoises masked canvases, not those of this model; use 'graph'.")
    weights, device = persistent_weights(machine.model), machine.registers.device
    room = int(torch.cuda.get_device_properties(device).L2_cache_size)
    if weights.nbytes > room:
        raise WorkerError(
            f"loop 'persistent' reads the weights from the L2 cache of {room} bytes in every step, "
            f"and they are {weights.nbytes}; use 'graph'."
        )
    # In pinned memory, so that the host can raise it while the kernel runs.
    shutdown = torch.zeros(1, dtype=torch.int32, pin_memory=True)
    finished = torch.zeros(1, dtype=torch.int32, device=device)
    return PersistentLoop(machine, machine.denoiser, weights, bounds, PersistentControl(shutdown, finished))


def _pages_seen(shape: ReplicaShape, window: int | None) -> int:
    """The most pages that a canvas's row reads, the page that is cut off at the front included."""
    tokens = min(shape.max_model_tokens, shape.pages * shape.page_size)
    if window is not None:
        tokens = min(tokens, window) + shape.page_size
    return -(-tokens // shape.page_size)


def _recorder(kind: LoopKind) -> Recorder:
    if kind is LoopKind.GRAPH:
        return GraphRecorder()
    if find_spec("cuda") is None or find_spec("cuda.core") is None:
        raise WorkerError("loop 'while' needs the package 'cuda-core': install easel with the extra 'cuda'.")
    return WhileRecorder()
