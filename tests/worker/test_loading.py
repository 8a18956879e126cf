"""From a directory to an engine: what is checked, and what is allocated."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from easel.scheduler.request import Request, SamplingParams
from easel.worker.config import EngineConfig
from easel.worker.denoise import MaskedDenoiser
from easel.worker.errors import MissingFile, TensorMismatch, WorkerError
from easel.worker.loading import load_engine
from easel.worker.models.decoder import Decoder
from tests.worker.driving import generate
from tests.worker.tiny import EOS_IDS, Dimensions, TinyCheckpoint, write_tiny
from tests.worker.values import load_tensors, save_tensors

CONFIG = EngineConfig(slots=3, pages=10, dtype="float32")


def test_the_engine_has_the_sizes_asked_for(tiny: TinyCheckpoint) -> None:
    engine = load_engine(tiny.path, replace(CONFIG, page_size=16))
    shape = engine.shape
    assert (shape.slots, shape.pages, shape.page_size, shape.block_length) == (3, 10, 16, 8)
    assert (shape.max_model_tokens, shape.eos_token_ids) == (1024, frozenset(EOS_IDS))
    (keys,), (values,) = engine.runner.machine.cache.keys, engine.runner.machine.cache.values
    assert keys.shape == values.shape == (2, 160, 2, 8)
    assert engine.runner.machine.registers.state.tokens.shape == (3, 8)
    denoiser = engine.runner.machine.denoiser
    assert isinstance(denoiser, MaskedDenoiser)
    assert denoiser.eos_token_ids.tolist() == sorted(EOS_IDS)


def test_pages_hold_one_block_unless_said_otherwise(tiny: TinyCheckpoint) -> None:
    assert load_engine(tiny.path, CONFIG).shape.page_size == tiny.block_length


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_and_pages_have_the_dtype_asked_for(tiny: TinyCheckpoint, dtype: torch.dtype) -> None:
    config = replace(CONFIG, dtype=str(dtype).removeprefix("torch."), pack_weights="never")
    runner = load_engine(tiny.path, config).runner
    model = runner.machine.model
    assert isinstance(model, Decoder)
    qkv = model.layers[0].qkv
    assert isinstance(qkv, torch.Tensor)
    weights = [model.embedding, model.head, model.final_norm, qkv]
    cache = runner.machine.cache
    assert {tensor.dtype for tensor in [*weights, *cache.keys, *cache.values]} == {dtype}


def test_tied_embeddings_are_kept_once(tiny: TinyCheckpoint, tmp_path: Path) -> None:
    tied = load_engine(tiny.path, CONFIG).runner.machine.model
    assert isinstance(tied, Decoder)
    assert tied.head.data_ptr() == tied.embedding.data_ptr()
    untied = load_engine(write_tiny(tmp_path, Dimensions(tied=False)).path, CONFIG).runner.machine.model
    assert isinstance(untied, Decoder)
    assert untied.head.data_ptr() != untied.embedding.data_ptr()


def test_a_page_that_does_not_hold_whole_blocks_is_refused(tiny: TinyCheckpoint) -> None:
    with pytest.raises(WorkerError, match="page_size 12 must be a multiple of the block length 8"):
        load_engine(tiny.path, replace(CONFIG, page_size=12))


def test_a_sharded_checkpoint_generates_what_the_single_file_does(
    tiny: TinyCheckpoint, tmp_path: Path
) -> None:
    shutil.copytree(tiny.path, tmp_path, dirs_exist_ok=True)
    weights = load_tensors(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    shard_of = {name: f"model-{index % 3}.safetensors" for index, name in enumerate(weights)}
    for shard in set(shard_of.values()):
        save_tensors({name: weights[name] for name in weights if shard_of[name] == shard}, tmp_path / shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))
    request = Request("r", (5, 6, 7), SamplingParams(max_tokens=20))
    assert generate(load_engine(tmp_path, CONFIG), [request])["r"] == tiny.expected(request)


def test_a_tied_checkpoint_may_store_the_head_as_well(tiny: TinyCheckpoint, tmp_path: Path) -> None:
    shutil.copytree(tiny.path, tmp_path, dirs_exist_ok=True)
    weights = load_tensors(tmp_path / "model.safetensors")
    save_tensors(
        weights | {"lm_head.weight": weights["model.embed_tokens.weight"] * 2}, tmp_path / "model.safetensors"
    )
    request = Request("r", (5, 6, 7), SamplingParams(max_tokens=20))
    assert generate(load_engine(tmp_path, CONFIG), [request])["r"] == tiny.expected(request)


def test_weights_of_another_configuration_are_refused_by_name(tiny: TinyCheckpoint, tmp_path: Path) -> None:
    shutil.copytree(tiny.path, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_hidden_layers": 3}))
    with pytest.raises(TensorMismatch, match=r"'model\.layers\.2\.input_layernorm\.weight'"):
        load_engine(tmp_path, CONFIG)


def test_progress_reaches_all_tensors(tiny: TinyCheckpoint) -> None:
    seen: list[tuple[int, int]] = []
    load_engine(tiny.path, CONFIG, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1] == (len(seen), len(seen))


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"nowhere/config\.json is missing"):
        load_engine(tmp_path / "nowhere", CONFIG)


def test_threads_are_set_when_asked_for(tiny: TinyCheckpoint) -> None:
    before = torch.get_num_threads()
    try:
        load_engine(tiny.path, replace(CONFIG, threads=before + 1))
        assert torch.get_num_threads() == before + 1
        load_engine(tiny.path, CONFIG)
        assert torch.get_num_threads() == before + 1, "None leaves it alone"
    finally:
        torch.set_num_threads(before)
