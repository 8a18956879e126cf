"""Checkpoints of eight bits: every published format is loaded as the numbers that it means."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from easel.bench.oracles.float8 import Float8Format, write_float8
from easel.kernels.fp8 import FLOAT8, Fp8Weight, dequantise
from easel.worker.config import EngineConfig
from easel.worker.errors import TensorMismatch
from easel.worker.footprint import Footprint
from easel.worker.parameters import scale_of
from easel.worker.sketch import sketch_directory, sketch_preset
from easel.worker.storage import Storage
from tests.worker.float8_cases import FAMILIES, KEPT, load, write_family
from tests.worker.values import load_tensors, save_tensors

FORMATS = tuple(Float8Format)


@pytest.fixture(scope="module")
def random_of(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """By family, a checkpoint that is not quantised."""
    return {family: write_family(tmp_path_factory.mktemp("float"), family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def random(request: pytest.FixtureRequest, random_of: Mapping[str, Path]) -> Path:
    return random_of[request.param]


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.value)
def test_a_device_without_float8_gets_the_numbers_that_are_meant(
    tmp_path: Path, random: Path, kind: Float8Format
) -> None:
    published, meant = tmp_path / "published", tmp_path / "meant"
    write_float8(random, kind, published=published, meant=meant)
    for dtype in (torch.float32, torch.bfloat16):
        expected = load(meant, dtype=dtype)
        found = load(published, dtype=dtype)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), (name, dtype)


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.value)
def test_a_device_with_float8_keeps_numbers_and_scales_that_mean_the_same(
    tmp_path: Path, random: Path, kind: Float8Format
) -> None:
    published, meant = tmp_path / "published", tmp_path / "meant"
    write_float8(random, kind, published=published, meant=meant)
    expected, found = load(meant), load(published, KEPT)
    matrices = sketch_directory(random).plan.matrices
    assert {name for name, tensor in found.items() if tensor.dtype == FLOAT8} == matrices
    for name, tensor in expected.items():
        kept = found[name]
        if name in matrices:
            kept = dequantise(Fp8Weight(kept, found[scale_of(name)]), torch.float32)
        assert torch.equal(kept, tensor), name


def test_modules_that_are_left_out_keep_their_numbers(tmp_path: Path, random_of: Mapping[str, Path]) -> None:
    """A fused matrix of which a part is left out is not kept in float8, nor experts of which one is."""
    published, meant = tmp_path / "published", tmp_path / "meant"
    left_out = ["model.layers.0.self_attn.k_proj", "model.layers.1.mlp.experts.2.up_proj"]
    write_float8(
        random_of["SDAR-MoE"],
        Float8Format.COMPRESSED_CHANNELS,
        published=published,
        meant=meant,
        left_out=left_out,
    )
    expected, found = load(meant), load(published)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    plan = sketch_directory(published).loaded(KEPT)
    assert plan.matrices - plan.float8 == {"layers.0.qkv"} | {
        f"layers.1.expert_{name}" for name in ("gate_up", "down")
    }
    mixed = load(published, KEPT)
    for name in plan.matrices - plan.float8:
        assert torch.equal(mixed[name], expected[name])


@pytest.mark.parametrize("first", ["numbers", "scales"])
def test_scales_may_lie_in_another_shard_than_their_numbers(
    tmp_path: Path, random_of: Mapping[str, Path], first: str
) -> None:
    published, meant = tmp_path / "published", tmp_path / "meant"
    write_float8(random_of["SDAR"], Float8Format.TRANSFORMERS_BLOCKS, published=published, meant=meant)
    tensors = load_tensors(published / "model.safetensors")
    scales = {name: tensor for name, tensor in tensors.items() if name.endswith("_scale_inv")}
    numbers = {name: tensor for name, tensor in tensors.items() if name not in scales}
    (published / "model.safetensors").unlink()
    shards = {"a": numbers, "b": scales} if first == "numbers" else {"a": scales, "b": numbers}
    for shard, held in shards.items():
        save_tensors(held, published / f"{shard}.safetensors")
    listed = ",".join(f'"{name}":"{shard}.safetensors"' for shard, held in shards.items() for name in held)
    (published / "model.safetensors.index.json").write_text(f'{{"weight_map":{{{listed}}}}}')
    assert all(torch.equal(load(published)[name], tensor) for name, tensor in load(meant).items())


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("model.layers.0.self_attn.o_proj.weight_scale_inv", "found nothing"),
        ("model.layers.0.self_attn.o_proj.weight", "expected one of F8_E4M3, found F32"),
        ("model.norm.weight", "expected one of BF16, .*found F8_E4M3"),
    ],
)
def test_a_checkpoint_that_is_not_as_it_says_is_refused_by_name(
    tmp_path: Path, random_of: Mapping[str, Path], name: str, problem: str
) -> None:
    published = tmp_path / "published"
    kind = Float8Format.TRANSFORMERS_BLOCKS
    write_float8(random_of["SDAR"], kind, published=published, meant=tmp_path / "meant")
    tensors = load_tensors(published / "model.safetensors")
    changed = tensors.pop(name)
    if changed.dtype == FLOAT8:
        tensors[name] = changed.float()
    elif "scale" not in name:
        tensors[name] = changed.to(FLOAT8)
    save_tensors(tensors, published / "model.safetensors")
    with pytest.raises(TensorMismatch, match=f"{name}.*{problem}"):
        load(published)


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.value)
def test_weights_are_counted_as_they_lie_in_memory(tmp_path: Path, random: Path, kind: Float8Format) -> None:
    published = tmp_path / "published"
    write_float8(random, kind, published=published, meant=tmp_path / "meant")
    for storage in (Storage(), KEPT):
        sketch = sketch_directory(published)
        predicted = Footprint.of(sketch, EngineConfig(), torch.bfloat16, storage).weights
        loaded = load(published, storage, torch.bfloat16)
        assert predicted == sum(tensor.nbytes for tensor in loaded.values())


def test_weights_of_the_published_model_by_hand() -> None:
    """In float8 every matrix takes half, and a scale of four bytes for each of its rows."""
    sketch = sketch_preset("DiffusionGemma-26B-A4B")
    wide, kept = (
        Footprint.of(sketch, EngineConfig(), torch.bfloat16, storage).weights
        for storage in (Storage(), Storage(quantise=True, float8=True))
    )
    experts = 30 * 128 * (1408 * 2816 + 2816 * 704)
    sliding = 2816 * (16 + 8 + 8) * 256 + 16 * 256 * 2816
    full = 2816 * (16 + 2) * 512 + 16 * 512 * 2816
    dense = 31 * 3 * 2816 * 2112
    rows = 30 * 128 * (1408 + 2816) + 25 * (8192 + 2816) + 5 * (9216 + 2816) + 31 * (2 * 2112 + 2816)
    assert wide - kept == experts + 25 * sliding + 5 * full + dense - 4 * rows
