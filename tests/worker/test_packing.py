"""Matrices in oneDNN's order: the same model, in the room that was predicted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from easel.kernels.linear import PackedWeight, linear, packs
from easel.scheduler.request import DiffusionParams, Request, SamplingParams
from easel.worker.config import EngineConfig
from easel.worker.footprint import Footprint
from easel.worker.loading import load_engine
from easel.worker.parameters import weight_of
from easel.worker.sketch import sketch_directory
from easel.worker.storage import Storage
from easel.worker.weights import load_parameters
from tests.worker.driving import generate
from tests.worker.random_checkpoint import SMALL, shallow, write_random

pytestmark = pytest.mark.skipif(not packs(torch.float32), reason="torch was built without oneDNN")
CPU = torch.device("cpu")
PACKED = Storage(packed=True)
DTYPES = [
    pytest.param(dtype, marks=pytest.mark.skipif(not packs(dtype), reason="oneDNN cannot pack it here"))
    for dtype in (torch.float32, torch.bfloat16)
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("family", SMALL)
def test_matrices_are_packed_and_counted_and_nothing_else_is(
    tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    """Experts stay as they are: a product takes the few that its tokens chose."""
    write_random(tmp_path, shallow(SMALL[family]))
    sketch = sketch_directory(tmp_path)
    plain, packed = (
        load_parameters(tmp_path, sketch.loaded(storage), dtype, CPU) for storage in (Storage(), PACKED)
    )
    taken = 0
    for name, tensor in plain.items():
        weight = weight_of(packed, name)
        taken += weight.nbytes if isinstance(weight, torch.Tensor | PackedWeight) else 0
        if name not in sketch.plan.matrices or "expert" in name:
            assert torch.equal(packed[name], tensor)
            continue
        assert isinstance(weight, PackedWeight)
        x = torch.eye(tensor.shape[1], dtype=dtype)
        torch.testing.assert_close(linear(x, weight), tensor.t())
    predicted = Footprint.of(sketch, EngineConfig(), dtype, PACKED).weights
    assert taken <= predicted <= 1.02 * taken


@pytest.mark.parametrize("family", ["LLaDA2", "DiffusionGemma"])
def test_an_engine_with_packed_weights_generates_the_same(tmp_path: Path, family: str) -> None:
    write_random(tmp_path, shallow(SMALL[family]))
    config = EngineConfig(slots=2, pages=32, dtype="float32", pack_weights="never")
    sampling = SamplingParams(max_tokens=40, temperature=1.0)
    requests = [
        Request(str(index), tuple(range(5, 30 + index)), sampling, DiffusionParams(steps=3))
        for index in range(2)
    ]
    plain = generate(load_engine(tmp_path, config), requests)
    assert generate(load_engine(tmp_path, replace(config, pack_weights="always")), requests) == plain
