"""What forwards take on a GPU, measured on a CPU with its kernels' results left empty."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from easel.scheduler.messages import PhasePolicy, ReplicaShape
from easel.scheduler.request import DiffusionParams, Request, SamplingParams
from easel.worker.config import EngineConfig
from easel.worker.footprint import Footprint
from easel.worker.largest_batch import LargestBatch
from easel.worker.loading import load_engine
from easel.worker.sketch import sketch_directory, sketch_preset
from easel.worker.workspace_gpu import gpu_workspace_bytes
from tests.fakes import shape, windowed_shape
from tests.worker.driving import drain
from tests.worker.empty_kernels import EmptyKernels
from tests.worker.random_checkpoint import SMALL, shallow, write_random
from tests.worker.storage_meter import StorageMeter

SLOTS, BLOCK = 8, 32
GPU = torch.device("cuda")
CONFIG = EngineConfig(
    slots=SLOTS,
    pages=4 * SLOTS,
    page_size=BLOCK,
    refresh_limit=2 * SLOTS * BLOCK,
    batch_invariant="never",  # as "auto" has it on a GPU
    policy=PhasePolicy(target_seconds=1e9, refresh_tokens=1 << 20, opens_per_step=SLOTS),
)


@pytest.mark.parametrize("fed_at_once", [1 << 14, 100])
@pytest.mark.parametrize(
    ("family", "dtype"),
    [*((family, torch.float32) for family in SMALL), ("LLaDA2", torch.bfloat16)],
)
def test_a_forward_that_reads_pages_in_place_takes_no_more_than_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, dtype: torch.dtype, fed_at_once: int
) -> None:
    """All canvases open in one forward; the bound is that for as many tokens as it had."""
    write_random(tmp_path, _wide(shallow(SMALL[family])))
    kernels = EmptyKernels()
    kernels.install(monkeypatch)
    for user in ("models.mlp", "models.diffusion_gemma", "workspace_gpu"):
        monkeypatch.setattr(f"easel.worker.{user}.FED_AT_ONCE", fed_at_once)
    config = replace(CONFIG, dtype=str(dtype).removeprefix("torch."))
    with StorageMeter() as meter:
        engine = load_engine(tmp_path, config)
        held, meter.peak = meter.live, meter.live
        for index in range(SLOTS):
            tokens = tuple((7 * index + position) % 400 + 10 for position in range(BLOCK - 1))
            sampling = SamplingParams(max_tokens=BLOCK + 1, temperature=1.0, top_k=20, top_p=0.9)
            engine.submit(Request(str(index), tokens, sampling, DiffusionParams(steps=2)))
        drain(engine)
    found = Footprint.of(sketch_directory(tmp_path), config, dtype, device=GPU)
    batch = replace(LargestBatch.of(engine.shape), tokens=kernels.most_tokens)
    groups = found.sketch.dimensions.kv_groups
    bound = gpu_workspace_bytes(found.sketch.anatomy, groups, batch, dtype.itemsize)
    assert 0.4 * bound < meter.peak - held <= bound
    assert bound <= found.workspace(SLOTS, 4 * SLOTS)


@pytest.mark.parametrize("name", ["SDAR-8B-Chat", "DiffusionGemma-26B-A4B"])
def test_a_gpu_copies_no_keys_and_makes_no_masks(name: str) -> None:
    on_cpu, on_gpu = (
        Footprint.of(sketch_preset(name), EngineConfig(), torch.bfloat16, device=torch.device(device))
        for device in ("cpu", "cuda")
    )
    assert on_gpu.workspace(64, 64 * 64) < on_cpu.workspace(64, 64 * 64)
    assert on_gpu.parts(64, 4096).keys() == on_cpu.parts(64, 4096).keys()


@pytest.mark.parametrize(
    ("shape", "tokens"),
    [
        (replace(shape(slots=100), refresh_limit=64), 2 * 400 + 64),
        (replace(windowed_shape(slots=100), refresh_limit=64, commit_limit=10), 400 + 40 + 64),
        (replace(windowed_shape(slots=100), refresh_limit=1, commit_limit=1 << 30), 2 * 400 + 4),
    ],
)
def test_the_largest_forward_holds_all_canvases_the_commits_it_may_and_the_quota(
    shape: ReplicaShape, tokens: int
) -> None:
    assert LargestBatch.of(shape).tokens == tokens


def _wide(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same with hidden states of 512 numbers: a forward takes more than its head."""
    wider = {name: 512 for name in ("hidden_size", "d_model") if name in config}
    text = {"text_config": _wide(config["text_config"])} if "text_config" in config else {}
    return {**config, **wider, **text}
