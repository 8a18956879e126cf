from math import isclose

import pytest

from easel.scheduler.sim_report import Slo, percentile, summarise, variation
from easel.scheduler.trace import BlockTrace, RequestTrace


def trace(arrival: float, *at: float) -> RequestTrace:
    return RequestTrace("a", arrival, 4, 16, tuple(BlockTrace(moment, 2, 10, 0.1) for moment in at))


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 2.0), (0.75, 3.0), (0.99, 4.0), (1.0, 4.0)]
)
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([3.0, 1.0, 4.0, 2.0], share) == expected


def test_nothing_has_no_percentile_and_no_variation() -> None:
    assert percentile([], 0.5) == variation([]) == 0.0


def test_variation_is_relative() -> None:
    assert isclose(variation([1.0, 3.0]), 0.5)
    assert isclose(variation([10.0, 30.0]), 0.5)


def test_throughput_counts_blocks_that_arrive_in_the_window() -> None:
    found = summarise([trace(0.0, 1.0, 2.0, 9.0)], since=0.0, until=4.0)
    assert found.tokens_per_second == 20 / 4


def test_without_a_window_everything_counts_until_the_last_block() -> None:
    assert summarise([trace(0.0, 1.0, 4.0)]).tokens_per_second == 20 / 4


def test_latencies_are_of_requests_that_arrive_in_the_window() -> None:
    found = summarise([trace(0.0, 1.0), trace(5.0, 8.0, 9.0)], since=4.0)
    assert (found.requests, found.first_block_p99, found.gap_p50, found.finish_p99) == (1, 3.0, 1.0, 4.0)


def test_goodput_counts_only_kept_promises() -> None:
    slow_start, slow_gap, good = trace(0.0, 3.0), trace(0.0, 1.0, 4.0), trace(0.0, 1.0, 2.0)
    found = summarise([slow_start, slow_gap, good], Slo(first_block=2.0, gap=2.0))
    assert found.kept_share == pytest.approx(1 / 3)
    assert found.goodput == pytest.approx(20 / 4.0)


def test_a_figure_is_found_by_its_name() -> None:
    found = summarise([trace(0.0, 1.0)])
    assert found.figure("first_block_p50") == found.first_block_p50
