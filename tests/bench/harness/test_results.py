import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from easel.bench.harness.errors import BrokenResults
from easel.bench.harness.generator import GeneratorLoad
from easel.bench.harness.page import page
from easel.bench.harness.results import Results, as_json, read_results, write_results
from easel.bench.harness.scrape import ServerFigures
from easel.bench.harness.slo import Verdict
from easel.bench.harness.svg import Axis, Series, plot
from tests.bench.harness.fakes import a_record

RECORDS = [
    *(a_record(number, number / 3, label="<short>" if number % 2 else "long") for number in range(9)),
    replace(a_record(9, 3.0, (), error="status 503"), tokens=None, canvases=None, correct=None, detail="<b>"),
]
TIMES: dict[str, Any] = dict.fromkeys(("due", "began", "sent", "end", "chunks"))  # written to the microsecond
RESULTS = Results(
    {"model": "a & b", "arrivals": "poisson:3"},
    RECORDS,
    GeneratorLoad(0.95, 0.2),
    ServerFigures(20, 80, 4.0, None, 4.0),
    Verdict("ttfb=0.5", 0.95, 0.9, 2.5),
    notes=["a note"],
)


def test_results_read_are_those_written(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.json"
    write_results(RESULTS, file)
    read = read_results(file)
    first = file.read_text()
    write_results(read, file)
    assert json.loads(file.read_text())["requests"] == json.loads(first)["requests"]
    assert [replace(record, **TIMES) for record in read.records] == [
        replace(record, **TIMES) for record in RECORDS
    ]
    assert read.figures.answered == 9
    assert read.verdict == RESULTS.verdict


def test_results_hold_figures_for_readers_and_say_their_format() -> None:
    written = json.loads(json.dumps(as_json(RESULTS), allow_nan=False))
    assert written["format"] == "easel-bench-1"
    assert written["figures"]["first_block"]["p50"] == pytest.approx(0.1)
    assert set(written["labels"]) == {"<short>", "long", ""}
    assert written["slo"]["met"] is False


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "easel-bench-0"}', '{"format": "easel-bench-1"}']
)
def test_a_file_that_holds_no_results_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.json"
    file.write_text(text)
    with pytest.raises(BrokenResults, match=r"a\.json"):
        read_results(file)


def test_the_page_stands_alone_and_runs_nothing() -> None:
    written = page(RESULTS)
    assert not re.search(r"<script|<link|https?:|src=|url\(|@import|\son\w+=", written)
    assert "a &amp; b under load" in written
    assert "&lt;b&gt;" in written
    assert "<b>" not in written
    assert "MISSED" in written
    assert "the generator could not keep up" in written


def test_the_pages_plots_are_well_formed_and_hold_every_request() -> None:
    written = page(RESULTS)
    drawings = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", written)]
    assert len(drawings) == 5
    assert len(drawings[0].findall(".//circle")) == 2 * 9


@pytest.mark.parametrize("change", [{"tokens": None, "canvases": None}, {"chunks": ()}])
def test_a_server_that_tells_little_still_has_a_page(change: dict[str, Any]) -> None:
    little = [replace(record, **change) for record in RECORDS]
    assert "<svg" in page(replace(RESULTS, records=little))


@pytest.mark.parametrize("most", [1e-6, 0.03, 1.0, 7.0, 99.0, 12345.0])
def test_ticks_are_round_and_few(most: float) -> None:
    ticks = Axis("x", most).ticks
    assert 3 <= len(ticks) <= 12
    assert ticks[0] == 0.0
    assert ticks[-1] <= most * 1.001


def test_a_plot_of_nothing_is_empty_axes() -> None:
    drawn = ElementTree.fromstring(plot("<none>", "s", "ms", (Series("a", ()),)))
    assert drawn.attrib["aria-label"] == "<none>"
