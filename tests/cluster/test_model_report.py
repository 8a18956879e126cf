"""What `easel doctor` says of a model's sizes."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from easel.cluster.cli import app
from easel.cluster.doctor import Finding, Verdict
from easel.cluster.errors import ConfigError
from easel.cluster.model_report import Place, billions, examine_sizes, parse_bytes, readable, size_findings
from easel.worker.config import EngineConfig
from easel.worker.sketch import sketch_preset
from easel.worker.storage import Storage
from tests.checkpoints import write_tiny_checkpoint

GIB = 2**30


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def sizes(preset: str, memory: int) -> dict[str, Finding]:
    place = Place("a device", memory, choose=True)
    found = size_findings(sketch_preset(preset), EngineConfig(), torch.bfloat16, place)
    return {finding.name: finding for finding in found}


def test_a_preset_is_explained_before_anybody_downloads_it() -> None:
    found = sizes("LLaDA2.0-mini", 72 * GIB)
    assert found["family"].detail == "LLaDA2 (LLaDA2MoeModelLM), block-causal, blocks of 32"
    assert found["parameters"].detail == "16.26 B, of which a token meets 1.43 B"
    assert found["weights"].detail == "30.3 GiB in bfloat16"
    assert found["each slot"].detail.endswith("registers 1.1 KiB")
    assert found["prefix"].detail == "39.1 MiB per 1,000 tokens, pages of 32"
    assert found["fits"].verdict is Verdict.OK
    assert "256 slots" in found["fits"].detail
    assert "workspace" in found["fits"].detail


def test_weights_that_a_gpu_keeps_in_eight_bits_are_counted_so() -> None:
    place, storage = Place("a device", 72 * GIB, choose=True), Storage(quantise=True, float8=True)
    found = size_findings(sketch_preset("LLaDA2.0-mini"), EngineConfig(), torch.bfloat16, place, storage)
    details = {finding.name: finding.detail for finding in found}
    assert details["weights"] == "15.8 GiB in float8 and bfloat16"


def test_a_model_that_is_quantised_in_another_way_is_broken_and_says_why(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path)
    file = tmp_path / "config.json"
    gptq = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    file.write_text(json.dumps(json.loads(file.read_text()) | gptq))
    (found,) = examine_sizes(tmp_path, None, None, "auto")
    assert found.verdict is Verdict.BROKEN
    assert "quant_method='gptq'" in found.detail


def test_a_model_that_is_too_large_is_broken_and_says_why() -> None:
    fits = sizes("LLaDA2.0-flash", 72 * GIB)["fits"]
    assert fits.verdict is Verdict.BROKEN
    assert "weights 191.7" in fits.detail
    assert "a device with more memory" in fits.mend


def test_doctor_of_a_preset_looks_at_nothing_else() -> None:
    answer = doctor("--preset", "SDAR-8B-Chat", "--device-memory", "80GiB")
    assert answer.exit_code == 0
    assert answer.output.startswith("sizes\n")
    assert "72.0 GiB" in answer.output, "a tenth is left alone"
    assert "ports" not in answer.output


def test_doctor_fails_for_a_preset_that_does_not_fit() -> None:
    answer = doctor("--preset", "LLaDA2.0-flash", "--device-memory", "80GiB")
    assert answer.exit_code == 1
    assert "1 thing(s) to mend." in answer.output


def test_a_directory_is_explained_with_the_other_findings(tmp_path: Path, unused_tcp_port: int) -> None:
    write_tiny_checkpoint(tmp_path)
    answer = doctor(str(tmp_path), "--port", str(unused_tcp_port))
    assert answer.exit_code == 0
    assert "SDAR (SDARForCausalLM), block-causal, blocks of 8" in answer.output
    assert "16 slots and 1,024 pages (8,192 prefix tokens)" in answer.output


def test_of_a_directory_that_cannot_be_read_the_sizes_say_nothing(tmp_path: Path) -> None:
    assert examine_sizes(tmp_path, None, None, "auto") == []


@pytest.mark.parametrize(
    ("text", "size"), [("80GiB", 80 * GIB), ("24 GB", 24 * 10**9), ("512MiB", 2**29), ("1000", 1000)]
)
def test_amounts_of_memory_are_read_in_any_unit(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_an_amount_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="'lots' is no amount"):
        parse_bytes("lots")
    answer = doctor("--preset", "SDAR-8B-Chat", "--device-memory", "lots")
    assert answer.exit_code == 1
    assert "80GiB" in answer.stderr


@pytest.mark.parametrize(
    ("size", "text"), [(200, "200 B"), (1536, "1.5 KiB"), (2**20, "1.0 MiB"), (3 * 2**40, "3.0 TiB")]
)
def test_bytes_are_told_in_a_readable_unit(size: int, text: str) -> None:
    assert readable(size) == text


def test_small_models_are_counted_in_millions() -> None:
    assert (billions(1_500_000), billions(8_190_735_360)) == ("1.50 M", "8.19 B")
