"""From a checkpoint directory to a running engine."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from easel.scheduler.local import LocalScheduler
from easel.scheduler.messages import ReplicaShape
from easel.worker.allocation import allocation
from easel.worker.config import EngineConfig, LoopKind
from easel.worker.device import choose_device, choose_dtype, choose_storage, cpu_features
from easel.worker.engine import Engine
from easel.worker.footprint import Footprint
from easel.worker.invariance import choose_invariance
from easel.worker.loops import spare_slots, step_loop
from easel.worker.model_info import ModelInfo
from easel.worker.models.backbone import Backbone, BackboneConfig
from easel.worker.models.registry import definition_of
from easel.worker.pieces import Geometry
from easel.worker.runner import Runner
from easel.worker.sketch import sketch_directory
from easel.worker.state import allocate_state, store_tokens
from easel.worker.step_program import Machine
from easel.worker.weights import Progress, load_parameters


def load_engine(
    path: Path,
    config: EngineConfig,
    *,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress | None = None,
) -> Engine:
    """Load a Hugging Face directory and allocate all state the engine will ever use.

    Raises CheckpointError when the directory cannot be used, NotEnoughMemory when that would not fit
    the device, and another WorkerError for a bad setting; nothing has been allocated then.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    sketch = sketch_directory(path)
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device, cpu_features())
    storage = choose_storage(config, device, dtype, cpu_features())
    footprint = Footprint.of(sketch, config, dtype, storage, device=device)
    shape = allocation(footprint, device).shape
    fixed = choose_invariance(config, device, dtype, float8=bool(footprint.plan.float8))
    dimensions = sketch.dimensions.with_fixed_tiles() if fixed else sketch.dimensions
    build = definition_of(sketch.info.architecture).build
    model = build(dimensions, load_parameters(path, footprint.plan, dtype, device, progress))
    return Engine(
        model=sketch.info,
        shape=shape,
        scheduler=LocalScheduler(shape, compose_policy=config.compose_policy, policy=config.policy),
        runner=_runner(sketch.info, dimensions, shape, model, config.loop, clock, fixed=fixed),
        clock=clock,
    )


def _runner(
    info: ModelInfo,
    dimensions: BackboneConfig,
    shape: ReplicaShape,
    model: Backbone,
    loop: LoopKind,
    clock: Callable[[], float],
    *,
    fixed: bool,
) -> Runner:
    state = allocate_state(info, dimensions, shape, model, spare_slots(loop))
    machine = Machine(model, state.cache, state.registers, state.denoiser)
    canvases = shape.slots * shape.block_length
    return Runner(
        machine=machine,
        geometry=Geometry(
            layout=shape.layout,
            block_length=shape.block_length,
            page_size=shape.page_size,
            mask_token_id=info.mask_token_id,
            windows=tuple(group.window for group in dimensions.kv_groups),
            canvas_base=tuple(count - canvases for count in store_tokens(shape, dimensions)),
            shift=info.family.shift,
            fixed=fixed,
        ),
        loop=step_loop(loop, machine, shape, dimensions),
        clock=clock,
    )
