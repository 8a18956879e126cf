"""The limits of a replica, and everything it allocates for good besides the weights."""

from dataclasses import dataclass

import torch

from easel.scheduler.messages import ReplicaShape
from easel.scheduler.phase import SequenceLayout
from easel.scheduler.window import with_window
from easel.worker.config import EngineConfig
from easel.worker.denoise import Denoiser, MaskedDenoiser
from easel.worker.errors import WorkerError
from easel.worker.kv_cache import KVCache
from easel.worker.model_info import ModelInfo
from easel.worker.models.backbone import Backbone, BackboneConfig
from easel.worker.registers import CanvasRegisters
from easel.worker.renoise import RenoisingDenoiser


@dataclass(frozen=True, slots=True)
class EngineState:
    """What every step reads and writes; its size never changes."""

    cache: KVCache
    registers: CanvasRegisters
    denoiser: Denoiser


def replica_shape(
    info: ModelInfo, dimensions: BackboneConfig, config: EngineConfig, slots: int, pages: int
) -> ReplicaShape:
    """The shape of a replica of that many slots and pages. Raises WorkerError."""
    layout = info.family.layout
    page_size = config.page_size or info.default_page_size
    if layout is SequenceLayout.BLOCK_CAUSAL and page_size % info.block_length:
        raise WorkerError(
            f"page_size {page_size} must be a multiple of the block length {info.block_length}."
        )
    window = next((group.window for group in dimensions.kv_groups if group.window), 0)
    shape = ReplicaShape(
        slots=slots,
        pages=pages,
        page_size=page_size,
        block_length=info.block_length,
        max_model_tokens=info.max_model_tokens,
        eos_token_ids=info.eos_token_ids,
        layout=layout,
        partial=config.partial or layout is SequenceLayout.BIDIRECTIONAL,
        refresh_limit=config.refresh_limit,
    )
    return with_window(shape, window) if window else shape


def store_tokens(shape: ReplicaShape, dimensions: BackboneConfig) -> tuple[int, ...]:
    """Tokens of each KV group's store: its pages, and in partial mode the canvases."""
    # A bidirectional sequence has all its keys and values in pages.
    keeps_canvases = shape.partial and shape.layout.shares_prefix
    canvases = shape.slots * shape.block_length if keeps_canvases else 0
    return tuple(
        (shape.window_pages if group.window else shape.pages) * shape.page_size + canvases
        for group in dimensions.kv_groups
    )


def allocate_state(
    info: ModelInfo, dimensions: BackboneConfig, shape: ReplicaShape, model: Backbone, spare_slots: int = 0
) -> EngineState:
    """State on the model's device, in its dtype. On the meta device it has sizes and takes no memory.

    Spare slots have registers and no pages: no request is given one.
    """
    device, dtype = model.head.device, model.head.dtype
    tokens = store_tokens(shape, dimensions)
    slots = shape.slots + spare_slots
    registers = CanvasRegisters.allocate(slots, shape.block_length, info.mask_token_id, device)
    return EngineState(
        cache=KVCache.allocate(dimensions.kv_groups, tokens, shape.page_size, dtype, device),
        registers=registers,
        denoiser=_denoiser(info, registers, model),
    )


def _denoiser(info: ModelInfo, registers: CanvasRegisters, model: Backbone) -> Denoiser:
    if info.family.renoises:
        return RenoisingDenoiser.allocate(registers, model)
    eos = torch.tensor(sorted(info.eos_token_ids), device=model.head.device)
    return MaskedDenoiser(
        registers,
        model.head,
        eos,
        plain_confidence=info.family.plain_confidence,
        fixed_shapes=model.head.is_cuda,
    )
