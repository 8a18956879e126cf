"""From a checkpoint directory to a running engine."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from easel.scheduler.local import LocalScheduler
from easel.scheduler.messages import ReplicaShape
from easel.worker.allocation import allocation
from easel.worker.config import EngineConfig
from easel.worker.device import choose_device, choose_dtype, cpu_features
from easel.worker.engine import Engine
from easel.worker.footprint import Footprint
from easel.worker.model_info import ModelInfo
from easel.worker.models.backbone import Backbone, BackboneConfig
from easel.worker.models.registry import definition_of
from easel.worker.pieces import Geometry
from easel.worker.runner import Runner
from easel.worker.sketch import sketch_directory
from easel.worker.state import allocate_state, store_tokens
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
    shape = allocation(Footprint.of(sketch, config, dtype), device).shape
    build = definition_of(sketch.info.architecture).build
    model = build(sketch.dimensions, load_parameters(path, sketch.plan, dtype, device, progress))
    return Engine(
        model=sketch.info,
        shape=shape,
        scheduler=LocalScheduler(shape, compose_policy=config.compose_policy, policy=config.policy),
        runner=_runner(sketch.info, sketch.dimensions, shape, model, clock),
        clock=clock,
    )


def _runner(
    info: ModelInfo,
    dimensions: BackboneConfig,
    shape: ReplicaShape,
    model: Backbone,
    clock: Callable[[], float],
) -> Runner:
    state = allocate_state(info, dimensions, shape, model)
    canvases = shape.slots * shape.block_length
    return Runner(
        model=model,
        cache=state.cache,
        registers=state.registers,
        denoiser=state.denoiser,
        geometry=Geometry(
            layout=shape.layout,
            block_length=shape.block_length,
            page_size=shape.page_size,
            mask_token_id=info.mask_token_id,
            windows=tuple(group.window for group in dimensions.kv_groups),
            canvas_base=tuple(count - canvases for count in store_tokens(shape, dimensions)),
            shift=info.family.shift,
        ),
        clock=clock,
    )
