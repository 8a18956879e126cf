from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from easel.bench.harness.arrivals import Closed
from easel.bench.harness.errors import NoServer, NothingAnswered
from easel.bench.harness.live import Progress, frame
from easel.bench.harness.load import Load, LoadPlan
from easel.bench.harness.options import Options, plan_of
from easel.bench.harness.printed import print_results
from easel.bench.harness.results import Results
from easel.bench.harness.run import bench
from easel.bench.harness.wire import BodyPlan
from easel.bench.harness.workloads import Questions, known_questions
from easel.scheduler.trace import read_trace
from tests.bench.harness.fakes import (
    FakeAsker,
    FakeEasel,
    FakeServer,
    VirtualClock,
    a_record,
    serving,
)

ANSWERS = {question.prompt: question.answer for question in known_questions()}


async def ran(fake: FakeServer, console: Console | None = None, **options: Any) -> Results:
    async with serving(fake) as url:
        return await bench(plan_of(Options(url, **options)), console or Console(quiet=True))


def printed(results: Results) -> str:
    file = StringIO()
    print_results(results, Console(width=200, file=file))
    return file.getvalue()


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.asyncio
async def test_a_plain_server_is_loaded_and_its_answers_judged(endpoint: str) -> None:
    fake = FakeServer(ANSWERS.__getitem__)
    results = await ran(fake, endpoint=endpoint, requests=12, clients=3)
    figures = results.figures
    assert (figures.answered, figures.right, figures.judged) == (12, 12, 12)
    assert figures.output_tokens == fake.tokens_made
    assert all("diffusion" not in body for body in fake.asked)
    assert results.setup["model"] == "fake"


@pytest.mark.asyncio
async def test_canvas_figures_come_from_the_servers_counters_where_answers_have_none() -> None:
    results = await ran(FakeServer(), requests=8, clients=2)
    assert results.figures.canvases is None
    assert results.server is not None
    assert results.server.tokens_per_forward == pytest.approx(2.0, rel=0.1)
    assert "by the server's counters" in printed(results)


@pytest.mark.asyncio
async def test_wrong_answers_are_told_from_right_ones() -> None:
    results = await ran(FakeServer(lambda prompt: ANSWERS[prompt] if "add" in prompt else "no"), requests=40)
    assert 0 < results.figures.right < 40
    assert "answers are right" in printed(results)


@pytest.mark.asyncio
async def test_refusals_are_honoured_or_counted() -> None:
    patient = await ran(FakeServer(refuse_first=3), requests=5, clients=1, retries=3)
    assert (patient.figures.answered, patient.figures.refusals) == (5, 3)
    hasty = await ran(FakeServer(refuse_first=3), requests=5, clients=1)
    assert (hasty.figures.answered, hasty.figures.errors) == (2, {"status 429": 3})
    assert "3 refusals (429)" in printed(hasty)


@pytest.mark.asyncio
async def test_a_promise_that_is_kept_or_missed_is_said() -> None:
    kept = await ran(FakeServer(), requests=4, slo="e2e=60")
    assert kept.verdict is not None
    assert kept.verdict.met
    missed = await ran(FakeServer(refuse_first=2), requests=4, clients=1, slo="e2e=60", goodput=0.9)
    assert missed.verdict is not None
    assert (missed.verdict.share, missed.verdict.met) == (0.5, False)
    assert "90.0% wanted: MISSED" in printed(missed)


@pytest.mark.asyncio
async def test_requests_that_warm_up_are_not_counted() -> None:
    fake = FakeServer()
    results = await ran(fake, requests=4, warm_up=3)
    assert (len(fake.asked), len(results.records)) == (7, 4)


@pytest.mark.asyncio
async def test_lengths_in_tokens_are_measured_by_the_servers_own_tokenizer() -> None:
    """The fake counts a token for every four characters, and three more."""
    fake = FakeServer()
    results = await ran(fake, workload="prose", prompt_tokens="100", output_tokens="9", requests=4)
    assert results.setup["tokens_per_character"] == 0.25
    assert [record.tokens.prompt for record in results.records if record.tokens] == [100] * 4
    assert {body["max_tokens"] for body in fake.asked[2:]} == {9}


@pytest.mark.asyncio
async def test_a_load_that_nobody_answers_is_an_error_that_says_why() -> None:
    with pytest.raises(NothingAnswered, match="status 503"):
        await ran(FakeServer(status=503), requests=3)


@pytest.mark.parametrize("options", [{"clients": 3}, {"rate": 2000.0}])
@pytest.mark.asyncio
async def test_a_load_on_easel_is_recorded_for_the_simulator(tmp_path: Path, options: dict[str, Any]) -> None:
    file = tmp_path / "new" / "trace.jsonl"
    results = await ran(FakeEasel(lambda prompt: ANSWERS[prompt][:1]), requests=12, record=file, **options)
    with file.open() as lines:
        trace = read_trace(lines)
    assert (len(trace.requests), trace.header.slots, trace.header.model) == (12, 4, "fake")
    for request in trace.requests:
        assert [(block.steps, block.tokens, block.seconds) for block in request.blocks] == [
            (3, 1, 0.007),
            (1, 1, 0.002),
        ]
        assert (request.prompt_tokens, request.queue_seconds, request.correct) == (9, 0.005, False)
    assert results.figures.canvases is not None
    assert "24 blocks, 2.00 steps a block, 0.50 tokens a forward" in printed(results)


@pytest.mark.asyncio
async def test_who_cannot_be_recorded_is_found_out_before_the_load(tmp_path: Path) -> None:
    fake = FakeServer()
    with pytest.raises(NoServer, match="health"):
        await ran(fake, requests=12, record=tmp_path / "trace.jsonl")
    assert fake.asked == []


@pytest.mark.asyncio
async def test_a_terminal_is_shown_the_load_and_a_pipe_is_not() -> None:
    shown = Console(force_terminal=True, record=True, width=100)
    quiet = Console(record=True, width=100)  # pytest's output is no terminal
    for console in (shown, quiet):
        await ran(FakeServer(), console, requests=4)
    assert "under way" in shown.export_text()
    assert quiet.export_text() == ""


def test_the_live_picture_holds_what_matters() -> None:
    progress = Progress()
    for record in (a_record(0), a_record(1), a_record(2, error="status 503")):
        progress.take(record)
    load = Load(FakeAsker(VirtualClock()), Questions(), LoadPlan(Closed(1), BodyPlan("m")), VirtualClock())
    console = Console(record=True, width=100)
    console.print(frame(progress, load, 2.0, 0.25))
    text = console.export_text()
    assert "2 answered" in text
    assert "1 failed" in text
    assert "status 503: 1" in text
    assert "generator 25% of a core" in text
