"""From a checkpoint directory to a running engine."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from easel.scheduler.local import LocalScheduler
from easel.scheduler.messages import ReplicaShape
from easel.worker.config import EngineConfig
from easel.worker.device import choose_dtype, cpu_features
from easel.worker.engine import Engine
from easel.worker.errors import WorkerError
from easel.worker.kv_cache import KVCache, KVCacheShape
from easel.worker.model_info import ModelInfo, read_model_info
from easel.worker.models.config import DecoderConfig, read_decoder_config
from easel.worker.models.decoder import build_decoder, expected_tensors, redundant_tensors
from easel.worker.registers import CanvasRegisters
from easel.worker.runner import Runner
from easel.worker.weights import Progress, load_weights


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
    decoder = read_decoder_config(path)
    shape = _replica_shape(info, config)
    return Engine(
        model=info,
        shape=shape,
        scheduler=LocalScheduler(shape, compose_policy=config.compose_policy, policy=config.policy),
        runner=_runner(path, config, shape, info, decoder, clock, progress),
        clock=clock,
    )


def _replica_shape(info: ModelInfo, config: EngineConfig) -> ReplicaShape:
    page_size = config.page_size or info.block_length
    if page_size % info.block_length:
        raise WorkerError(
            f"page_size {page_size} must be a multiple of the block length {info.block_length}."
        )
    return ReplicaShape(
        slots=config.slots,
        pages=config.pages,
        page_size=page_size,
        block_length=info.block_length,
        max_model_tokens=info.max_model_tokens,
        eos_token_ids=info.eos_token_ids,
    )


def _runner(
    path: Path,
    config: EngineConfig,
    shape: ReplicaShape,
    info: ModelInfo,
    decoder: DecoderConfig,
    clock: Callable[[], float],
    progress: Progress | None,
) -> Runner:
    device = torch.device(config.device)
    dtype = choose_dtype(config.dtype, device, cpu_features())
    expected, ignored = expected_tensors(decoder), redundant_tensors(decoder)
    weights = load_weights(path, expected, dtype, device, progress, ignored)
    cache = KVCacheShape(decoder.layers, shape.pages, shape.page_size, decoder.kv_heads, decoder.head_dim)
    return Runner(
        model=build_decoder(decoder, weights),
        cache=KVCache.allocate(cache, dtype, device),
        registers=CanvasRegisters.allocate(shape.slots, shape.block_length, info.mask_token_id, device),
        eos_token_ids=torch.tensor(sorted(info.eos_token_ids), device=device),
        clock=clock,
    )
