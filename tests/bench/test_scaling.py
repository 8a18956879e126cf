from collections.abc import Sequence
from random import Random
from statistics import mean

import pytest

from easel.bench.phase_steps import draw_steps
from easel.bench.scaling import COARSE, Case, coarse_cost, coarse_steps, simulation
from easel.scheduler.messages import Row
from easel.scheduler.phase import RowKind


def test_coarse_steps_are_a_quarter_of_the_fine_ones() -> None:
    fine, coarse = Random(1), Random(1)
    ratio = mean(draw_steps(fine) for _ in range(5_000)) / mean(coarse_steps(coarse) for _ in range(5_000))
    assert ratio == pytest.approx(COARSE, rel=0.05)


def test_refresh_work_is_not_repeated_in_a_coarse_step() -> None:
    def tokens(rows: Sequence[Row]) -> float:
        return float(sum(row.length for row in rows))

    reuse = Row(RowKind.REUSE, "a", 0, 0, 10, ())
    prefill = Row(RowKind.PREFILL, "b", 1, 0, 100, ())
    cost = coarse_cost(tokens)
    assert cost([reuse, prefill]) == 100 + COARSE * 10
    assert cost([prefill]) == 100


@pytest.mark.parametrize("case", [Case(2), Case(4, shards=2, skew=2.0)])
def test_clients_fill_the_slots_of_all_replicas(case: Case) -> None:
    cluster = simulation(case, seed=1)
    outcome = cluster.run(until=16.0)
    assert outcome.refused == []
    assert outcome.unfinished == pytest.approx(64 * case.replicas, rel=0.1)
    assert outcome.tokens_between(10.0, 16.0) > 0


def test_a_case_is_named_by_what_sets_it_apart() -> None:
    assert Case(1000).name == "1,000 replicas"
    assert Case(16, shards=4, lending=False, skew=2.0).name == (
        "16 replicas, 4 shards, skewed tenants (2), no lending"
    )
