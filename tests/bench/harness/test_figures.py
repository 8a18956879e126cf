from dataclasses import replace
from typing import Any

import pytest

from easel.bench.harness.errors import WrongOption
from easel.bench.harness.figures import by_label, figures_of, seconds_of
from easel.bench.harness.generator import GeneratorLoad
from easel.bench.harness.scrape import difference, read_counters
from easel.bench.harness.slo import Slo, judge, parse_slo
from tests.bench.harness.fakes import a_record

RECORDS = [a_record(number, float(number)) for number in range(9)]
FAILED = replace(a_record(9, 9.0, ()), error="status 503", tokens=None, canvases=None, correct=None)


def test_latencies_are_from_when_a_request_was_due() -> None:
    late = replace(a_record(0, 5.0), due=4.0)
    assert late.first_block_seconds == pytest.approx(1.1)
    assert late.seconds == pytest.approx(1.3)
    assert late.late_seconds == 1.0


def test_rates_count_answered_requests_and_their_tokens() -> None:
    figures = figures_of([*RECORDS, FAILED], seconds=3.0)
    assert (figures.requests, figures.answered, figures.errors) == (10, 9, {"status 503": 1})
    assert figures.requests_per_second == 3.0
    assert figures.output_tokens_per_second == 9 * 16 / 3.0
    assert (figures.right, figures.judged) == (9, 9)


def test_percentiles_are_values_that_were_seen() -> None:
    records = [a_record(number, 0.0, (0.1 * (number + 1),)) for number in range(10)]
    found = figures_of(records, 1.0).first_block
    assert found is not None
    assert (found.mean, found.p50, found.p90, found.p99) == pytest.approx((0.55, 0.5, 0.9, 1.0))


def test_canvases_are_told_where_answers_tell_them() -> None:
    canvases = figures_of(RECORDS, 1.0).canvases
    assert canvases is not None
    assert (canvases.blocks, canvases.steps) == (18, 72)
    assert (canvases.steps_per_block, canvases.tokens_per_forward) == (4.0, 2.0)
    assert figures_of([replace(record, canvases=None) for record in RECORDS], 1.0).canvases is None


def test_a_server_that_tells_no_usage_has_no_token_rate() -> None:
    figures = figures_of([replace(record, tokens=None) for record in RECORDS], 1.0)
    assert (figures.output_tokens, figures.output_tokens_per_second) == (None, None)


def test_nothing_answered_has_no_latencies() -> None:
    figures = figures_of([FAILED], 1.0)
    assert (figures.first_block, figures.gap, figures.whole, figures.answered) == (None, None, None, 0)
    assert seconds_of([]) == 0.0


def test_figures_are_told_apart_by_label() -> None:
    mixed = [replace(record, label="a" if record.number % 3 else "b") for record in RECORDS]
    assert {label: figures.requests for label, figures in by_label(mixed, 1.0).items()} == {"a": 6, "b": 3}
    assert by_label(RECORDS, 1.0) == {}


@pytest.mark.parametrize(
    ("slo", "kept"),
    [
        ("ttfb=0.1001,gap=0.2001,e2e=0.3001", True),
        ("", True),
        ("ttfb=0.09", False),
        ("gap=0.19", False),
        ("e2e=0.29", False),
    ],
)
def test_a_promise_is_kept_by_every_request_on_its_own(slo: str, kept: bool) -> None:
    assert parse_slo(slo).kept(a_record()) is kept


def test_a_failed_request_has_kept_nothing_and_counts() -> None:
    verdict = judge([*RECORDS, FAILED], Slo(), wanted=0.95, seconds=3.0)
    assert (verdict.share, verdict.requests_per_second, verdict.met) == (0.9, 3.0, False)
    assert judge([*RECORDS, FAILED], Slo(), wanted=0.9, seconds=3.0).met


@pytest.mark.parametrize("text", ["ttfb", "ttfb=", "ttfb=-1", "tpot=1", "gap=0.1;e2e=2"])
def test_what_is_no_promise_is_refused(text: str) -> None:
    with pytest.raises(WrongOption, match="--slo"):
        parse_slo(text)


def test_a_promise_says_what_it_is() -> None:
    assert str(parse_slo("gap=0.1, ttfb=0.5")) == "ttfb=0.5, gap=0.1"


@pytest.mark.parametrize(
    ("load", "saturated"),
    [(GeneratorLoad(0.3, 0.001), False), (GeneratorLoad(0.95, 0.001), True), (GeneratorLoad(0.3, 0.2), True)],
)
def test_a_generator_that_cannot_keep_up_is_seen(load: GeneratorLoad, saturated: bool) -> None:
    assert load.saturated is saturated


def metrics(**counters: float) -> dict[str, float]:
    text = "".join(
        f'{name}{{replica="{label}"}} {value / 2}\n' for name, value in counters.items() for label in "ab"
    )
    return read_counters(f"# TYPE easel_steps_total counter\n{text}other_total 7\n")


def test_counters_are_summed_over_their_labels_and_compared() -> None:
    before = metrics(easel_steps_total=10, easel_output_tokens_total=100, easel_blocks_total=2)
    after = metrics(easel_steps_total=30, easel_output_tokens_total=180, easel_blocks_total=7)
    found = difference(before, after)
    assert found is not None
    assert (found.steps, found.tokens, found.tokens_per_forward, found.steps_per_block) == (20, 80, 4.0, 4.0)
    assert found.positions_per_step is None


def test_the_counters_of_vllm_are_known() -> None:
    text = (
        'vllm:diffusion_num_denoising_steps_total{engine="0",model_name="a b"} 10.0\n'
        "vllm:diffusion_num_canvas_positions_total 2560\n"
        "vllm:diffusion_num_committed_tokens_total 5.0e+01\n"
    )
    found = difference({}, read_counters(text))
    assert found is not None
    assert (found.tokens_per_forward, found.positions_per_step) == (5.0, 256.0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),
        (metrics(easel_steps_total=9), metrics(easel_steps_total=2)),
        ({}, metrics(easel_blocks_total=1)),
    ],
)
def test_counters_that_are_missing_or_began_anew_tell_nothing(before: Any, after: Any) -> None:
    assert difference(before, after) is None
