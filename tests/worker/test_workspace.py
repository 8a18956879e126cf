"""What forwards take on a GPU, measured on a CPU with its kernels' results left empty."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from easel.kernels.attention import AttentionLayout, AttentionRow
from easel.kernels.attention_layout import ragged_rows
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
from tests.worker.random_checkpoint import SMALL, shallow, write_random
from tests.worker.storage_meter import StorageMeter

SLOTS, BLOCK = 8, 32
GPU = torch.device("cuda")
CONFIG = EngineConfig(
    slots=SLOTS,
    pages=4 * SLOTS,
    page_size=BLOCK,
    refresh_limit=2 * SLOTS * BLOCK,
    policy=PhasePolicy(target_seconds=1e9, refresh_tokens=1 << 20, opens_per_step=SLOTS),
)


@dataclass(slots=True)
class RaggedAttention:
    """Lays rows out as for a GPU, and attends to nothing."""

    most_tokens: int = 0

    def layout(self, rows: Sequence[AttentionRow], page_size: int, device: torch.device) -> AttentionLayout:
        self.most_tokens = max(self.most_tokens, sum(row.length for row in rows))
        return AttentionLayout((), ragged_rows(rows, page_size, device))

    def install(self, patch: pytest.MonkeyPatch) -> None:
        def attend(*arguments: Tensor) -> None:
            arguments[-1].zero_()

        kernel = ModuleType("easel.kernels.attention_triton")
        patch.setattr(kernel, "ragged_attention", attend, raising=False)
        patch.setitem(sys.modules, kernel.__name__, kernel)
        patch.setattr("easel.worker.batch.attention_layout", self.layout)


@pytest.mark.parametrize(
    ("family", "dtype"),
    [*((family, torch.float32) for family in SMALL), ("DiffusionGemma", torch.bfloat16)],
)
def test_a_forward_that_reads_pages_in_place_takes_no_more_than_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, dtype: torch.dtype
) -> None:
    """All canvases open in one forward; the bound is that for as many tokens as it had."""
    write_random(tmp_path, shallow(SMALL[family]))
    attention = RaggedAttention()
    attention.install(monkeypatch)
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
    batch = replace(LargestBatch.of(engine.shape), tokens=attention.most_tokens)
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
