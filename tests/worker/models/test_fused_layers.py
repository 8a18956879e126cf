"""Layers compute on a GPU's fused kernels what they compute in plain torch. The kernels are interpreted."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from easel.bench.oracles.checkpoints import Sizes
from easel.bench.oracles.diffusion_gemma import Settings, TinyGemma, write_tiny
from easel.worker.batch import ForwardBatch, build_batch
from easel.worker.config import EngineConfig
from easel.worker.loading import load_engine
from easel.worker.runner import Runner
from tests.worker.models.backbones import BLOCK_CAUSAL
from tests.worker.rows import opening, plan, reuse, write

BLOCK = 8
CPU = torch.device("cpu")


def _write_gemma(path: Path, sizes: Sizes) -> None:
    write_tiny(path, TinyGemma(layer_types="SF", canvas_length=sizes.block_length), Settings())


WRITERS: Mapping[str, Callable[[Path, Sizes], object]] = {**BLOCK_CAUSAL, "DiffusionGemma": _write_gemma}


@torch.inference_mode()
@pytest.mark.parametrize("family", WRITERS)
def test_a_forward_of_fused_layers_gives_and_stores_what_plain_ones_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    WRITERS[family](tmp_path, Sizes(block_length=BLOCK))
    runner = load_engine(tmp_path, EngineConfig(slots=3, pages=4, page_size=BLOCK, dtype="float32")).runner
    machine, cache = runner.machine, runner.machine.cache
    stores = (*cache.keys, *cache.values)
    for store in stores:
        store.normal_(generator=torch.Generator().manual_seed(0))
    batch = _two_canvases_and_a_block_to_write(runner)
    conditioning = machine.denoiser.conditioning(batch.slots)
    before = [store.clone() for store in stores]
    plain = machine.model.forward(batch, cache, conditioning)
    written = [store.clone() for store in stores]
    for store, held in zip(stores, before, strict=True):
        store.copy_(held)
    _fuse(monkeypatch)
    torch.testing.assert_close(machine.model.forward(batch, cache, conditioning), plain, atol=1e-4, rtol=1e-4)
    for store, expected, held in zip(stores, written, before, strict=True):
        torch.testing.assert_close(store, expected, atol=1e-5, rtol=1e-5)
        assert not torch.equal(store, held)


def _fuse(patch: pytest.MonkeyPatch) -> None:
    for user in ("norm", "norm_rope", "moe", "moe_router"):
        patch.setattr(f"easel.kernels.{user}.has_triton", _yes)
    patch.setattr("easel.worker.models.decoder.has_triton", _yes)
    patch.setattr("easel.kernels.moe.suits_grouped_mm", _no)  # this takes a GPU


def _yes(*_arguments: object) -> bool:
    return True


def _no(*_arguments: object) -> bool:
    return False


def _two_canvases_and_a_block_to_write(runner: Runner) -> ForwardBatch:
    """Canvases after their first step, each behind a page."""
    slots = range(2)
    opens, steps = (
        [replace(make(slot, BLOCK, BLOCK, (slot,)), window_pages=(slot,)) for slot in slots]
        for make in (opening, reuse)
    )
    runner.run(plan(*opens))
    block = replace(write(2, BLOCK, tuple(range(5, 5 + BLOCK)), (2, 3)), window_pages=(2, 3))
    batch = build_batch(plan(block, *steps), runner.machine.registers, runner.geometry, CPU)
    batch.fill(runner.machine.registers)
    return batch
