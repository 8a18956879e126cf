"""The benchmark for an H200, dry: what it says, and that neither failures nor time make it silent."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console

from easel.bench.h200 import run
from easel.bench.h200_cells import Cell, Line, Status, run_cells
from easel.bench.h200_loops import cuda_loop
from easel.bench.h200_parts import CALLS, floor_of
from easel.bench.h200_published import both_logits, published_model
from easel.bench.h200_replica import Lap, Replica, Scene, take_turns
from easel.bench.h200_report import GOALS, cell_name, goals_met
from easel.bench.h200_shapes import DRY, FULL, convert_to_fp8, random_parameters
from easel.bench.h200_work import all_cells, open_session
from easel.bench.report import figure
from easel.worker.host_loop import HostLoop, Interrupted
from easel.worker.step_program import StepProgram
from easel.worker.storage import Storage

CPU = torch.device("cpu")
SCENE = Scene(canvases=1, prefix=DRY.prefix, steps=DRY.gemma_steps, page_size=DRY.page_size)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("h200") / "dry.json"
    run(open_session(dry=True), 60.0, out, Console(quiet=True))
    return json.loads(out.read_text(encoding="utf-8"))


def test_a_dry_run_measures_every_cell(written: dict[str, Any]) -> None:
    expected = [cell.name for cell in all_cells(open_session(dry=True))]
    lines = written["lines"]
    assert list(dict.fromkeys(line["cell"] for line in lines)) == expected
    assert [(line["cell"], line["message"]) for line in lines if line["status"] != "measured"] == []


def test_every_canvas_takes_its_steps_and_commits_its_block(written: dict[str, Any]) -> None:
    timed = [line for line in written["lines"] if line["rate"] is not None]
    blocks = {"DiffusionGemma": 8, "SDAR-1.7B, blocks of 4": 4, "SDAR-1.7B, blocks of 8": 8, "embedded": 32}
    for line in timed:
        block = next(length for name, length in blocks.items() if line["cell"].startswith(name))
        assert line["tokens"] == line["canvases"] * block, line["cell"]
        assert len(line["rate"]["rounds"]) == DRY.rounds
    assert {line["variant"] for line in timed} == {"host", "graph", "while", "persistent", "transformers"}


def test_the_parts_of_a_step_add_up_to_it(written: dict[str, Any]) -> None:
    found = [line["parts"] for line in written["lines"] if line["parts"]]
    assert len(found) == 2 * len(DRY.gemma_canvases)
    for parts in found:
        whole = parts.pop("step")
        assert parts.keys() == {*CALLS, "rest"}
        assert all(seconds > 0.0 for seconds in parts.values())
        assert sum(parts.values()) == pytest.approx(whole)


def test_nothing_that_ran_dry_counts_as_measured(written: dict[str, Any]) -> None:
    assert written["dry"]
    assert [goal["found"] for goal in written["goals"]] == [None] * len(GOALS)
    assert {line["share"] for line in written["lines"]} == {None}


@pytest.mark.parametrize("prefix", [32, 304], ids=["one prefill", "two prefills"])
def test_transformers_runs_on_the_same_weights(prefix: int) -> None:
    shape = DRY.gemma()
    parameters = random_parameters(shape.sketch.plan, torch.float32, CPU)
    replica = Replica.build(shape.sketch, parameters, replace(SCENE, prefix=prefix))
    model = published_model(shape, parameters)
    theirs, ours = both_logits(model, replica)
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=5e-5)
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    assert own <= {parameter.untyped_storage().data_ptr() for parameter in parameters.values()}


def test_float8_weights_lie_in_memory_as_after_loading() -> None:
    sketch = DRY.gemma().sketch
    plan = sketch.loaded(Storage(quantise=True, float8=True))
    parameters = random_parameters(sketch.plan, torch.bfloat16, CPU)
    convert_to_fp8(sketch, parameters)
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in parameters.items()}
    assert found == {
        name: (shape, plan.dtype_of(name, torch.bfloat16)) for name, shape in plan.parameters.items()
    }


def test_both_weights_of_a_model_are_never_held_at_once() -> None:
    session = open_session(dry=True)
    _, first = session.gemma(float8=False)
    _, second = session.gemma(float8=True)
    assert first is second
    assert session.gemma(float8=True)[1] is second
    assert session.gemma(float8=False)[1] is not second


@pytest.mark.parametrize(
    ("canvases", "float8", "milliseconds"),
    [
        (1, False, 12.9),
        (8, False, 28.8),
        (32, False, 102.0),
        (1, True, 7.1),
        (8, True, 19.4),
        (32, True, 72.0),
    ],
)
def test_the_roofline_is_the_published_models(canvases: int, float8: bool, milliseconds: float) -> None:
    scene = Scene(canvases, FULL.prefix, FULL.gemma_steps, FULL.page_size)
    floor = floor_of(FULL.gemma().sketch, scene, "H200", float8=float8)
    assert floor is not None
    assert 1e3 * floor == pytest.approx(milliseconds, rel=0.01)


def test_a_device_nobody_measured_has_no_roofline() -> None:
    assert floor_of(FULL.gemma().sketch, SCENE, "CPU") is None


def test_a_cell_that_fails_is_a_line_and_the_others_go_on() -> None:
    heard: list[Line] = []
    lines = run_cells([_cell("first", _raise), _cell("second", _measured)], 60.0, lambda: 0.0, heard.append)
    assert [(line.cell, line.status) for line in lines] == [
        ("first", Status.FAILED),
        ("second", Status.MEASURED),
    ]
    assert lines[0].message == "MemoryError: no room"
    assert heard == lines


def test_a_cell_that_no_longer_fits_is_listed() -> None:
    cells = [_cell("long", _measured, least=61.0), _cell("short", _measured)]
    lines = run_cells(cells, 60.0, lambda: 0.0, lambda line: None)
    assert [line.status for line in lines] == [Status.SKIPPED, Status.MEASURED]
    assert lines[0].message == "needs 61 s, and 60 s are left"


def test_a_cell_that_never_ends_is_interrupted() -> None:
    def forever(seconds: float) -> Sequence[Line]:
        while True:
            pass

    lines = run_cells([_cell("endless", forever, most=0.05)], 60.0, lambda: 0.0, lambda line: None)
    assert (lines[0].status, lines[0].message) == (Status.FAILED, "OutOfTime: interrupted after 0 s")


def test_a_variant_that_fails_leaves_the_others_their_turns() -> None:
    lap = Lap(opening=0.1, step=0.2, seconds=0.5, tokens=8)

    def broken() -> Lap:
        raise RuntimeError("no such package")

    lines = take_turns("cell", SCENE, {"broken": broken, "sound": lambda: lap}, 3, lambda: False)
    assert {line.variant: line.status for line in lines} == {
        "sound": Status.MEASURED,
        "broken": Status.FAILED,
    }
    assert lines[0].rate == figure([16.0] * 3)


def test_loops_that_a_machine_cannot_run_are_lines_that_say_so() -> None:
    session = open_session(dry=True)
    session.make_loop = cuda_loop
    lines = run(session, 60.0, None, Console(quiet=True), only=cell_name("SDAR-1.7B, blocks of 4", 1))
    status = {line.variant: line.status for line in lines}
    assert status == {"host": Status.MEASURED, "graph": Status.FAILED, "while": Status.FAILED}
    assert all("CUDA" in line.message for line in lines if line.status is Status.FAILED)


def test_no_round_begins_when_time_is_over() -> None:
    lap = Lap(opening=0.1, step=0.2, seconds=0.5, tokens=8)
    lines = take_turns("cell", SCENE, {"one": lambda: lap}, 5, lambda: True)
    assert lines[0].rate == figure([16.0])


def test_canvases_that_take_other_steps_are_refused() -> None:
    sketch, parameters = open_session(dry=True).gemma(float8=False)
    replica = Replica.build(sketch, parameters, SCENE)
    with pytest.raises(RuntimeError, match=r"1 forwards and steps \[3\], not 2 and 3"):
        replica.lap(replica.runner(_OneStep()))


def test_goals_are_met_by_the_best_variant() -> None:
    cell, sdar = cell_name("DiffusionGemma", 1), cell_name("SDAR-1.7B, blocks of 4", 1)
    lines = [
        Line(cell, "host", rate=figure([900.0])),
        Line(cell, "graph", rate=figure([980.0])),
        Line(sdar, "host", step=figure([0.0030])),
        Line(sdar, "graph", step=figure([0.0015])),
        Line(sdar, "while", status=Status.FAILED),
    ]
    found = {goal.name: (goal.found, goal.met) for goal in goals_met(lines, measured=True)}
    assert list(found.values()) == [(980.0, True), (None, None), (None, None), (2.0, True)]


class _OneStep:
    """A loop that says less than it did."""

    def run(self, program: StepProgram, most: int, interrupted: Interrupted) -> int:
        HostLoop().run(program, most, interrupted)
        return 1


def _cell(name: str, run: Any, *, least: float = 0.0, most: float = 60.0) -> Cell:
    return Cell(name, least, most, run)


def _measured(seconds: float) -> Sequence[Line]:
    return [Line("second")]


def _raise(seconds: float) -> Sequence[Line]:
    raise MemoryError("no room\nat all")
