from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from easel.bench.harness.bootstrap import mean, quantile, ratio, resample, sample_of
from easel.bench.harness.compare import Change, compare, differences, print_changes
from easel.bench.harness.generator import GeneratorLoad
from easel.bench.harness.records import Record
from easel.bench.harness.results import Results
from easel.scheduler.sim_report import percentile
from tests.bench.harness.fakes import a_record


def results(records: list[Record], **setup: Any) -> Results:
    return Results({"model": "fake", **setup}, records, GeneratorLoad(0.1, 0.0))


def a_load(seed: int, factor: float = 1.0, requests: int = 300) -> Results:
    """Requests of two blocks, times of an exponential distribution times the factor."""
    rng = Random(seed)
    records = list[Record]()
    for number in range(requests):
        first = factor * rng.expovariate(10.0)
        records.append(a_record(number, 0.1 * number, (first, first + factor * rng.expovariate(20.0))))
    return results(records)


def found(changes: list[Change], name: str) -> Change:
    return next(change for change in changes if change.name == name)


def test_a_load_compared_with_itself_is_no_different() -> None:
    load = a_load(1)
    for change in compare(load, load, draws=200):
        assert change.ratio is None or change.ratio.value == 1.0
        assert change.verdict in {"no difference seen", "not told"}


def test_a_slower_load_is_worse_beyond_doubt() -> None:
    changes = compare(a_load(1), a_load(2, factor=2.0), draws=200)
    for name in ("first block, p50", "between blocks, p50", "whole answer, mean"):
        change = found(changes, name)
        assert change.ratio is not None
        assert change.ratio.low < 2.0 < change.ratio.high
        assert change.verdict == "worse"
    assert (
        found(compare(a_load(2, factor=2.0), a_load(1), draws=200), "first block, mean").verdict == "better"
    )


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draw, rng = Random(3), np.random.default_rng(3)
    covered = 0
    for _ in range(60):
        samples = (sample_of([(index, draw.expovariate(1.0)) for index in range(80)], 80) for _ in "ab")
        found = ratio(*(resample(sample, mean, 150, rng) for sample in samples))
        covered += found is not None and found.low <= 1.0 <= found.high
    assert covered >= 51  # 95 % of 60 are 57; fewer than 51 would be one chance in a hundred


def test_a_seed_repeats_the_intervals() -> None:
    first, second = a_load(1), a_load(2)
    assert compare(first, second, draws=50, seed=7) == compare(first, second, draws=50, seed=7)
    assert compare(first, second, draws=50, seed=7) != compare(first, second, draws=50, seed=8)


def test_failed_requests_have_no_latency_but_count_as_failed() -> None:
    good = a_load(1)
    bad = results(
        [replace(record, error="timeout") if record.number % 2 else record for record in good.records]
    )
    changes = compare(bad, good, draws=100)
    assert found(changes, "failed requests").verdict == "better"
    assert found(changes, "answers / s").ratio is not None


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99, 1.0])
def test_a_weighted_quantile_is_that_of_the_values_repeated(share: float) -> None:
    rng = Random(5)
    values = [(rng.randrange(20), rng.random()) for _ in range(200)]
    drawn = np.array([rng.randrange(4) for _ in range(20)])
    repeated = [value for cluster, value in values for _ in range(int(drawn[cluster]))]
    assert quantile(share)(sample_of(values, 20), drawn) == percentile(repeated, share)


def test_gaps_of_one_conversation_are_drawn_together() -> None:
    """As one value each they would seem five times as certain as they are."""
    values = [(cluster, float(cluster % 2)) for cluster in range(40) for _ in range(25)]
    drawn = resample(sample_of(values, 40), mean, 2000, np.random.default_rng(0))
    assert float(np.std(drawn[1:])) == pytest.approx(0.5 / 40**0.5, rel=0.1)


def test_what_was_not_alike_is_said() -> None:
    first, second = results([a_record()], arrivals="poisson:5"), results([a_record()], arrivals="poisson:6")
    apart = differences(first, second)
    assert apart == ["arrivals: poisson:5 and poisson:6"]
    console = Console(record=True, width=120)
    print_changes(compare(first, second, draws=10), apart, console)
    printed = console.export_text()
    assert "not alike: arrivals" in printed
    assert "first block, p50" in printed
