"""`easel roofline`: what it answers, draws and refuses."""

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from easel.cluster.cli import app


def roofline(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["roofline", *arguments])


def test_each_phase_of_each_batch_has_a_row() -> None:
    answer = roofline("--preset", "SDAR-1.7B-Chat", "--batch", "1, 8", "--prefix", "1024")
    assert answer.exit_code == 0
    phases = re.findall(r"^(prefill|commit \+ open|reuse) +(memory|arithmetic) +(\d+) ", answer.output, re.M)
    assert [(phase, batch) for phase, _, batch in phases] == [
        ("prefill", "1"),
        ("commit + open", "1"),
        ("commit + open", "8"),
        ("reuse", "1"),
        ("reuse", "8"),
    ]
    assert "0.83" in answer.output, "the worked example of docs/roofline.md"


def test_the_steps_of_a_masked_block_are_at_most_its_positions() -> None:
    capped = roofline("--preset", "SDAR-1.7B-Chat", "--steps", "9").output
    assert "4 steps a block of 4" in capped
    assert "9 steps a block of 256" in roofline("--preset", "DiffusionGemma-26B-A4B", "--steps", "9").output


def test_a_directory_is_answered_for_as_well_and_the_embedded_model_when_nothing_is_named() -> None:
    answer = roofline("--device", "mine", "--tflops", "0.1", "--tbs", "0.02", "--dtype", "float32")
    assert answer.exit_code == 0
    assert "on mine: 0.1 TFLOP/s, 0.02 TB/s" in answer.output


def test_a_devices_number_can_be_replaced() -> None:
    assert (
        "H100: 500 TFLOP/s, 3.35 TB/s"
        in roofline("--preset", "SDAR-8B-Chat", "--device", "h100", "--tflops", "500").output
    )


def test_a_bidirectional_model_rebuilds() -> None:
    every = roofline("--preset", "LLaDA-8B-Instruct", "--batch", "4").output
    cached = roofline("--preset", "LLaDA-8B-Instruct", "--batch", "4", "--rebuild-every", "8").output

    def speed(output: str) -> int:
        found = re.search(r"at most ([\d,]+) tokens/s", output)
        assert found is not None
        return int(found[1].replace(",", ""))

    assert "rebuild" in every
    assert speed(cached) > 3 * speed(every)


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "pictures" / "roofline.png"
    answer = roofline("--preset", "LLaDA2.0-mini", "--png", str(file))
    assert answer.exit_code == 0
    assert file.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_it_says_how_to_get_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    answer = roofline("--preset", "SDAR-8B-Chat", "--png", str(tmp_path / "x.png"))
    assert answer.exit_code == 1
    assert "pip install 'easel[demo]'" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--preset", "SDAR-9B"), "there is no preset 'SDAR-9B'"),
        (("--device", "H20"), "Did you mean H200?"),
        (("--batch", "1,many"), "numbers of canvases"),
        (("--dtype", "int4"), "dtype is 'int4'"),
        (("/nowhere", "--preset", "SDAR-8B-Chat"), "either a model directory or a preset"),
        (("/nowhere",), "config.json is missing"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(arguments: tuple[str, ...], complaint: str) -> None:
    answer = roofline(*arguments)
    assert answer.exit_code == 1
    assert complaint in answer.stderr
    assert answer.stderr.count("\n") == 1
