"""From a checkpoint directory to a running engine."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from easel.scheduler.local import LocalScheduler
from easel.scheduler.messages import ReplicaShape
from easel.scheduler.phase import SequenceLayout
from easel.scheduler.window import window_pages_per_request
from easel.worker.config import EngineConfig
from easel.worker.denoise import Denoiser, MaskedDenoiser
from easel.worker.device import choose_dtype, cpu_features
from easel.worker.engine import Engine
from easel.worker.errors import WorkerError
from easel.worker.kv_cache import KVCache
from easel.worker.model_info import ModelInfo, read_json, read_model_info
from easel.worker.models.backbone import Backbone, BackboneConfig
from easel.worker.models.registry import definition_of
from easel.worker.pieces import Geometry
from easel.worker.registers import CanvasRegisters
from easel.worker.renoise import RenoisingDenoiser
from easel.worker.runner import Runner
from easel.worker.weights import Progress, load_parameters


def load_engine(
    path: Path,
    config: EngineConfig,
    *,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress | None = None,
) -> Engine:
    """Load a Hugging Face directory and allocate all state the engine will ever use.

    Raises CheckpointError when the directory cannot be used, WorkerError for a bad setting.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    info = read_model_info(path)
    definition = definition_of(info.architecture)
    dimensions = definition.read_config(read_json(path / "config.json", "it describes the model"))
    device = torch.device(config.device)
    dtype = choose_dtype(config.dtype, device, cpu_features())
    shape = replica_shape(info, dimensions, config)
    plan = definition.parameter_plan(dimensions)
    model = definition.build(dimensions, load_parameters(path, plan, dtype, device, progress))
    return Engine(
        model=info,
        shape=shape,
        scheduler=LocalScheduler(shape, compose_policy=config.compose_policy, policy=config.policy),
        runner=_runner(info, dimensions, shape, model, clock),
        clock=clock,
    )


def replica_shape(info: ModelInfo, dimensions: BackboneConfig, config: EngineConfig) -> ReplicaShape:
    """The limits a replica of this model has under these settings. Raises WorkerError."""
    layout = info.family.layout
    page_size = config.page_size or info.default_page_size
    if layout is SequenceLayout.BLOCK_CAUSAL and page_size % info.block_length:
        raise WorkerError(
            f"page_size {page_size} must be a multiple of the block length {info.block_length}."
        )
    window = next((group.window for group in dimensions.kv_groups if group.window), 0)
    per_request = window_pages_per_request(window, page_size, info.block_length) if window else 0
    return ReplicaShape(
        slots=config.slots,
        pages=config.pages,
        page_size=page_size,
        block_length=info.block_length,
        max_model_tokens=info.max_model_tokens,
        eos_token_ids=info.eos_token_ids,
        layout=layout,
        window=window,
        window_pages=config.slots * per_request,
        partial=config.partial or layout is SequenceLayout.BIDIRECTIONAL,
    )


def store_tokens(shape: ReplicaShape, dimensions: BackboneConfig) -> tuple[int, ...]:
    """Tokens of each KV group's store: its pages, and in partial mode the canvases."""
    canvases = shape.slots * shape.block_length if _keeps_canvases(shape) else 0
    return tuple(
        (shape.window_pages if group.window else shape.pages) * shape.page_size + canvases
        for group in dimensions.kv_groups
    )


def _keeps_canvases(shape: ReplicaShape) -> bool:
    """A bidirectional sequence has all its keys and values in pages."""
    return shape.partial and shape.layout.shares_prefix


def _runner(
    info: ModelInfo,
    dimensions: BackboneConfig,
    shape: ReplicaShape,
    model: Backbone,
    clock: Callable[[], float],
) -> Runner:
    device, dtype = model.head.device, model.head.dtype
    tokens = store_tokens(shape, dimensions)
    registers = CanvasRegisters.allocate(shape.slots, shape.block_length, info.mask_token_id, device)
    groups = dimensions.kv_groups
    return Runner(
        model=model,
        cache=KVCache.allocate(groups, tokens, shape.page_size, dtype, device),
        registers=registers,
        denoiser=_denoiser(info, registers, model),
        geometry=Geometry(
            layout=shape.layout,
            block_length=shape.block_length,
            page_size=shape.page_size,
            mask_token_id=info.mask_token_id,
            windows=tuple(group.window for group in groups),
            canvas_base=tuple(count - shape.slots * shape.block_length for count in tokens),
            shift=info.family.shift,
        ),
        clock=clock,
    )


def _denoiser(info: ModelInfo, registers: CanvasRegisters, model: Backbone) -> Denoiser:
    if info.family.renoises:
        return RenoisingDenoiser.allocate(registers, model)
    eos = torch.tensor(sorted(info.eos_token_ids), device=model.head.device)
    return MaskedDenoiser(registers, model.head, eos, plain_confidence=info.family.plain_confidence)
