"""The commands `easel bench URL`, `compare` and `report`; what is heavy is imported when it is needed."""
# ruff: noqa: PLC0415

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

if TYPE_CHECKING:
    from easel.bench.harness.errors import HarnessError
    from easel.bench.harness.results import Results

PIPE_WIDTH = 200
DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_COMMAND = "run"
INTERRUPTED = 130  # what shells say of a command that Ctrl-C ended

Url = Annotated[str, typer.Argument(help="Where an OpenAI-compatible server answers.")]
Arrivals = Annotated[
    str,
    typer.Option(
        help="closed:CLIENTS, poisson:RATE, gamma:RATE:SHAPE (bursts below shape 1), ramp:FROM:TO:SECONDS or "
        "replay:TRACE[:SPEED]."
    ),
]
Clients = Annotated[int | None, typer.Option(min=1, help="Short for closed:CLIENTS; 8.")]
Rate = Annotated[float | None, typer.Option(min=0.0, help="Short for poisson:RATE.")]
Requests = Annotated[int | None, typer.Option(min=1, help="Arrivals in all; 200 unless --seconds is given.")]
Seconds = Annotated[float | None, typer.Option(min=0.1, help="No request begins later.")]
WorkloadName = Annotated[
    str, typer.Option(help="demo (answers are checked), prose, long, chats or file:PROMPTS.jsonl.")
]
PromptTokens = Annotated[str, typer.Option(help="N, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA.")]
LongTokens = Annotated[str, typer.Option(help="Of every eighth prompt of `long`.")]
OutputTokens = Annotated[str, typer.Option(help="Longest answers of prose, long and chats.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Longest answer of demo and file.")]
Turns = Annotated[int, typer.Option(min=1, help="Of a conversation of `chats`.")]
SystemTokens = Annotated[int, typer.Option(min=1, help="Of the prompt that all `chats` share.")]
ThinkSeconds = Annotated[float, typer.Option(min=0.0, help="Between two turns of `chats`.")]
SloText = Annotated[str, typer.Option(help="Seconds that a request may take: ttfb=0.5,gap=0.1,e2e=5.")]
Goodput = Annotated[float, typer.Option(min=0.0, max=1.0, help="Share that must; exit code 1 below it.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the results into this file.")]
Html = Annotated[Path | None, typer.Option("--html", help="Write a report with plots into this file.")]
Record = Annotated[Path | None, typer.Option(help="Write a trace for `easel simulate` into this file.")]
EndpointName = Annotated[str, typer.Option(help="chat or completions.")]
Model = Annotated[str, typer.Option(help="Default: the first that is served.", show_default=False)]
Temperature = Annotated[float, typer.Option(help="Below 0: the server's own.")]
Thresholds = Annotated[
    str, typer.Option(help="Easel: confidences that decide a position, one drawn per request: 0.9,1.0.")
]
Body = Annotated[str, typer.Option(help="JSON object whose fields every request gets.")]
Header = Annotated[list[str] | None, typer.Option("--header", help="NAME:VALUE, any number of times.")]
Usage = Annotated[bool, typer.Option(help="Ask for usage at the end of streams.")]
Retries = Annotated[int, typer.Option(min=0, help="After a 429, once its Retry-After is over; 0: it failed.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds of one request.")]
WarmUp = Annotated[int, typer.Option(min=0, help="Requests before the load that are not counted.")]
Seed = Annotated[int, typer.Option(help="Of arrivals and questions.")]
ApiKey = Annotated[str | None, typer.Option(help="Default: the first of EASEL_API_KEYS.", show_default=False)]
ResultsFile = Annotated[Path, typer.Argument(help="Written by `easel bench URL --json FILE`.")]
Draws = Annotated[int, typer.Option(min=1, help="Resamplings of the bootstrap.")]


class RunByDefault(TyperGroup):
    """What names no command of the group is a load's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)


bench_app = typer.Typer(cls=RunByDefault, help="Load a server and say how it did; compare two loads.")


@bench_app.command(DEFAULT_COMMAND)
def run(  # noqa: PLR0913, PLR0917 one parameter per option
    url: Url = DEFAULT_URL,
    arrivals: Arrivals = "",
    clients: Clients = None,
    rate: Rate = None,
    requests: Requests = None,
    seconds: Seconds = None,
    workload: WorkloadName = "",
    prompt_tokens: PromptTokens = "lognormal:64:0.6",
    long_tokens: LongTokens = "uniform:200:350",
    output_tokens: OutputTokens = "64",
    max_tokens: MaxTokens = 128,
    turns: Turns = 4,
    system_tokens: SystemTokens = 128,
    think_seconds: ThinkSeconds = 0.0,
    slo: SloText = "",
    goodput: Goodput = 0.95,
    json_file: Json = None,
    html_file: Html = None,
    record: Record = None,
    endpoint: EndpointName = "chat",
    model: Model = "",
    temperature: Temperature = 0.0,
    thresholds: Thresholds = "",
    body: Body = "",
    headers: Header = None,
    usage: Usage = True,
    retries: Retries = 0,
    timeout: Timeout = 600.0,
    warm_up: WarmUp = 0,
    seed: Seed = 0,
    api_key: ApiKey = None,
) -> None:
    """Load a server, say how it did, and whether it kept a promise.

    `easel bench compare A.json B.json` compares two loads; `easel bench report A.json OUT.html` draws one.
    """
    given = dict(locals())  # the parameters, which are the fields of Options
    _load(given, given.pop("json_file"), given.pop("html_file"))


@bench_app.command()
def compare(first: ResultsFile, second: ResultsFile, draws: Draws = 2000, seed: Seed = 0) -> None:
    """The ratio of each figure of two loads, with its 95 % confidence interval."""
    from easel.bench.harness import compare as comparison
    from easel.bench.harness.errors import HarnessError
    from easel.bench.harness.results import read_results

    try:
        loads = read_results(first), read_results(second)
    except HarnessError as error:
        _fail(error)
    changes = comparison.compare(*loads, draws=draws, seed=seed)
    comparison.print_changes(changes, comparison.differences(*loads), _console())


@bench_app.command()
def report(
    results: ResultsFile, html_file: Annotated[Path, typer.Argument(help="Where to draw it.")]
) -> None:
    """Draw the results of a load, as --html does."""
    from easel.bench.harness.errors import HarnessError
    from easel.bench.harness.page import write_page
    from easel.bench.harness.results import read_results

    try:
        write_page(read_results(results), html_file)
    except HarnessError as error:
        _fail(error)


def _load(given: dict[str, Any], json_file: Path | None, html_file: Path | None) -> None:
    from easel.bench.harness.errors import HarnessError
    from easel.bench.harness.options import Options, plan_of
    from easel.bench.harness.printed import print_results
    from easel.bench.harness.run import run_bench

    given["api_key"] = _first_key() if given["api_key"] is None else given["api_key"]
    given["headers"] = tuple(given["headers"] or ())
    console = _console()
    try:
        results = run_bench(plan_of(Options(**given)), console)
    except HarnessError as error:
        _fail(error)
    print_results(results, console)
    _write(results, json_file, html_file)
    if results.interrupted:
        raise typer.Exit(INTERRUPTED)
    if results.verdict is not None and not results.verdict.met:
        raise typer.Exit(1)


def _write(results: "Results", json_file: Path | None, html_file: Path | None) -> None:
    from easel.bench.harness.page import write_page
    from easel.bench.harness.results import write_results

    if json_file is not None:
        write_results(results, json_file)
    if html_file is not None:
        write_page(results, html_file)


def _console() -> Console:
    # A line in a pipe or a file stays one line.
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def _first_key() -> str:
    return os.environ.get("EASEL_API_KEYS", "").split(",")[0].strip()


def _fail(error: "HarnessError") -> NoReturn:
    typer.echo(f"easel: {error}", err=True)
    raise typer.Exit(error.exit_code)
