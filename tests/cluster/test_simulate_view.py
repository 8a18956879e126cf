from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from easel.cluster.cli import app
from easel.cluster.errors import ConfigError
from easel.cluster.simulate_view import compare, halves, load_trace, simulate_trace
from easel.scheduler.calibration import Calibration, replay
from easel.scheduler.messages import CostCoefficients
from easel.scheduler.trace import Trace, TraceHeader, write_trace
from tests.scheduler.simulations import random_works, simulate

COST = CostCoefficients(1e-3, 1e-5, 1e-9, 1e-6)
HEADER = TraceHeader(1, 4, 64, 8, 4, cost=COST, model="demo")


@pytest.fixture(scope="module")
def trace() -> Trace:
    """What a cluster would record whose steps take 1.5 times what its replicas believe."""
    plain = simulate(random_works(30, seed=6, spread=0.4)).outcome.requests
    asked = sorted(plain, key=lambda one: one.arrival)
    seen = replay(HEADER, asked, Calibration(COST, step_factor=1.5)).requests
    return Trace(HEADER, tuple(sorted(seen, key=lambda one: one.arrival)))


@pytest.fixture
def file(trace: Trace, tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl"
    path.write_text(write_trace(trace))
    return path


def test_the_true_cluster_has_no_error(trace: Trace) -> None:
    comparison = compare(HEADER, trace.requests, Calibration(COST, step_factor=1.5))
    assert comparison.worst == pytest.approx(0.0, abs=0.02)


def test_errors_have_the_sign_of_what_was_simulated(trace: Trace) -> None:
    slower = compare(HEADER, trace.requests, Calibration(COST, step_factor=3.0))
    assert slower.error("finish_p99") > 0.1
    assert slower.worst >= slower.error("finish_p99")


def test_it_calibrates_on_the_first_half_and_is_judged_on_the_second(trace: Trace) -> None:
    console = Console(record=True, width=200)
    comparison = simulate_trace(trace, console)
    printed = console.export_text()
    assert comparison.recorded.requests == len(halves(trace)[1])
    assert "15 requests that were not calibrated on" in printed
    assert "fitted by its replicas" in printed


def test_another_number_of_replicas_is_a_question(file: Path) -> None:
    answer = CliRunner().invoke(app, ["simulate", "--trace", str(file), "--replicas", "3", "--fit-all"])
    assert answer.exit_code == 0
    assert "simulated with 3 replicas" in answer.output
    assert "largest error" not in answer.output


def test_a_trace_that_is_not_there_is_an_error_that_says_how_to_make_one(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["simulate", "--trace", str(tmp_path / "none")])
    assert answer.exit_code == 1
    assert "easel bench URL --record FILE" in answer.stderr


def test_a_broken_trace_is_named_by_its_line(file: Path) -> None:
    file.write_text(file.read_text() + "{}\n")
    answer = CliRunner().invoke(app, ["simulate", "--trace", str(file)])
    assert answer.exit_code == 1
    assert "line 32 of the trace" in answer.stderr


def test_one_request_is_not_enough_to_calibrate_on(trace: Trace, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(write_trace(replace(trace, requests=trace.requests[:1])))
    with pytest.raises(ConfigError, match="two or more"):
        simulate_trace(load_trace(path), Console())
