from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from statistics import mean, stdev

import pytest

from easel.bench.harness.arrivals import Closed, Gamma, OpenLoop, Poisson, Ramp, Replay, parse_arrivals
from easel.bench.harness.errors import WrongOption
from easel.scheduler.phase import SequenceLayout
from easel.scheduler.trace import BlockTrace, RequestTrace, Trace, TraceHeader, write_trace


def gaps(process: OpenLoop, count: int = 20_000) -> list[float]:
    times = islice(process.times(Random(1)), count)
    return [later - sooner for sooner, later in pairwise(times)]


def variation(values: Sequence[float]) -> float:
    return stdev(values) / mean(values)


def test_poisson_arrivals_come_at_their_rate_and_as_unevenly_as_chance() -> None:
    found = gaps(Poisson(4.0))
    assert mean(found) == pytest.approx(0.25, rel=0.03)
    assert variation(found) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(("shape", "expected"), [(0.25, 2.0), (1.0, 1.0), (4.0, 0.5)])
def test_the_shape_makes_bursts_without_changing_the_rate(shape: float, expected: float) -> None:
    found = gaps(Gamma(4.0, shape))
    assert mean(found) == pytest.approx(0.25, rel=0.05)
    assert variation(found) == pytest.approx(expected, rel=0.08)


@pytest.mark.parametrize(("begin", "end"), [(1.0, 99.0), (99.0, 1.0), (50.0, 50.0)])
def test_a_ramp_goes_from_one_rate_to_another_and_stays_there(begin: float, end: float) -> None:
    times = list(_until(Ramp(begin, end, 100.0).times(Random(2)), 200.0))
    for low, high, rate in (
        (0, 50, (3 * begin + end) / 4),
        (50, 100, (begin + 3 * end) / 4),
        (100, 200, end),
    ):
        seen = sum(low <= at < high for at in times)
        assert seen == pytest.approx(rate * (high - low), rel=0.06, abs=25)


def _until(times: Iterator[float], end: float) -> Iterator[float]:
    for at in times:
        if at >= end:
            return
        yield at


@pytest.mark.parametrize("process", [Poisson(3.0), Gamma(3.0, 0.5), Ramp(1.0, 9.0, 10.0)])
def test_a_seed_repeats_the_arrivals(process: OpenLoop) -> None:
    first, again, other = (list(islice(process.times(Random(seed)), 50)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first == sorted(first)


def a_trace(path: Path) -> Path:
    block = (BlockTrace(9.0, 4, 8, 0.1),)
    requests = tuple(
        RequestTrace(f"r{index}", 5.0 + 2.0 * index, 10 + index, 64, block) for index in range(3)
    )
    path.write_text(write_trace(Trace(TraceHeader(1, 4, 64, 8, 8, SequenceLayout.BLOCK_CAUSAL), requests)))
    return path


def test_a_trace_is_replayed_from_its_first_arrival_and_faster_if_asked(tmp_path: Path) -> None:
    replay = parse_arrivals(f"replay:{a_trace(tmp_path / 'trace.jsonl')}:2")
    assert isinstance(replay, Replay)
    assert list(replay.times(Random(0))) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("closed:8", Closed(8)),
        ("poisson:2.5", Poisson(2.5)),
        ("gamma:5:0.3", Gamma(5.0, 0.3)),
        ("ramp:1:20:60", Ramp(1.0, 20.0, 60.0)),
    ],
)
def test_processes_are_named_with_their_numbers(text: str, expected: object) -> None:
    assert parse_arrivals(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "uniform:3", "poisson", "poisson:0", "poisson:x", "gamma:1", "closed:1.5", "replay", "replay:no"],
)
def test_what_is_no_process_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(WrongOption, match="--arrivals"):
        parse_arrivals(text)
