"""The `easel` command. Heavy modules are imported by the command that needs them: `--version` is instant."""
# ruff: noqa: PLC0415

import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from easel.bench.harness.command import bench_app
from easel.cluster.demo_model import DEMO_MODEL_NAME, demo_model

if TYPE_CHECKING:
    from easel.cluster.config import ClusterConfig

PIPE_WIDTH = 200
DEFAULT_URL = "http://127.0.0.1:8000"

app = typer.Typer(name="easel", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(bench_app, name="bench")

ModelDir = Annotated[
    Path | None,
    typer.Argument(help="Directory of a Hugging Face checkpoint. Default: the embedded demo model."),
]
Preset = Annotated[
    str | None, typer.Option(help="A published model by name, instead of a directory; a wrong one lists all.")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file with settings.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"easel {version('easel')}")
        raise typer.Exit


@app.callback()
def easel(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Serve block-diffusion language models on a cluster."""


@app.command()
def serve(
    model_dir: ModelDir = None,
    replicas: Annotated[int | None, typer.Option(help="Worker replicas.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, typer.Option(help="HTTP port; 8000 by default.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Journal. Default: an embedded Valkey.")] = None,
    config: ConfigFile = None,
) -> None:
    """Start a cluster on this machine and serve until Ctrl-C."""
    from easel.cluster.errors import ClusterError
    from easel.cluster.lifecycle import serve_forever
    from easel.worker.errors import WorkerError

    console = Console(highlight=False)
    given = {
        "replicas": replicas,
        "host": host,
        "port": port,
        "journal": {"redis_url": redis_url} if redis_url else None,
    }
    try:
        settings = serve_settings(model_dir, config, os.environ, given)
        # Lines are meant to be copied: no wrapping, no markup.
        serve_forever(settings, lambda text: console.print(text, markup=False, soft_wrap=True))
    except (ClusterError, WorkerError) as error:
        _fail(str(error))


@app.command()
def chat(  # noqa: PLR0913, PLR0917 one parameter per option
    prompt: Annotated[str | None, typer.Argument(help="One question; without it, a conversation.")] = None,
    url: Annotated[str, typer.Option(help="Where a cluster serves.")] = DEFAULT_URL,
    model: Annotated[str | None, typer.Option(help="Default: the first that the cluster serves.")] = None,
    api_key: Annotated[
        str | None, typer.Option(help="Default: the first of EASEL_API_KEYS.", show_default=False)
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    seed: Annotated[int | None, typer.Option(help="Repeats an answer.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer.")] = None,
    steps: Annotated[int | None, typer.Option(help="Most denoising steps per block.")] = None,
    threshold: Annotated[float | None, typer.Option(help="Confidence that decides a position.")] = None,
    pace: Annotated[float, typer.Option(help="Shortest time a step is shown, in seconds.")] = 0.08,
) -> None:
    """Talk to a running cluster and watch its canvases settle, step by step."""
    from easel.cluster.chat import ask, converse
    from easel.cluster.chat_client import ChatClient, ChatOptions
    from easel.cluster.errors import ClusterError

    options = ChatOptions(model, temperature, seed, max_tokens, steps, threshold)
    console = Console(highlight=False)
    try:
        with ChatClient(url, api_key or _first_key(), options) as client:
            if prompt is None:
                converse(client, console, pace)
            else:
                ask(client, console, [{"role": "user", "content": prompt}], pace)
    except ClusterError as error:
        _fail(str(error))


@app.command()
def top(
    url: Annotated[str, typer.Argument(help="Where a cluster serves.")] = DEFAULT_URL,
    api_key: Annotated[
        str | None, typer.Option(help="Default: the first of EASEL_API_KEYS.", show_default=False)
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print it once, as for a pipe.")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 0.5,
) -> None:
    """Watch a running cluster: replicas, phases of their steps, queue, faults, requests. Ctrl-C ends."""
    from easel.cluster.errors import ClusterError
    from easel.cluster.top import show_once, watch
    from easel.cluster.top_client import TopClient

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    try:
        with TopClient(url, api_key or _first_key()) as client:
            (show_once if once else watch)(client, console, every)
    except ClusterError as error:
        _fail(str(error))


@app.command()
def doctor(
    model_dir: ModelDir = None,
    preset: Preset = None,
    device_memory: Annotated[
        str | None, typer.Option(help="Memory to fit a replica in, such as 80GiB. Default: this machine's.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    host: Annotated[str, typer.Option(help="Address that would be served on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port that would be served on.")] = 8000,
) -> None:
    """Say whether this machine can run Easel and the model, what is wrong, and how to mend it.

    With --preset only the model is looked at, which nobody needs to have downloaded.
    """
    from easel.cluster.doctor import Verdict, examine
    from easel.cluster.doctor_report import print_findings
    from easel.cluster.errors import ClusterError
    from easel.cluster.model_report import examine_sizes
    from easel.worker.errors import WorkerError

    try:
        if preset is None:
            findings = examine(model_dir or demo_model(), host, port)
            findings += examine_sizes(model_dir or demo_model(), None, device_memory, dtype)
        else:
            findings = examine_sizes(None, preset, device_memory, dtype)
    except (ClusterError, WorkerError) as error:
        _fail(str(error))
    # A finding in a pipe or a file stays on one line.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    print_findings(findings, console, "Easel can run here." if preset is None else "The model fits.")
    if any(finding.verdict is Verdict.BROKEN for finding in findings):
        raise typer.Exit(1)


@app.command()
def roofline(  # noqa: PLR0913, PLR0917 one parameter per option
    model_dir: ModelDir = None,
    preset: Preset = None,
    device: Annotated[
        str, typer.Option(help="H200, H100, A100, L40S; any with --tflops and --tbs.")
    ] = "H200",
    tflops: Annotated[float | None, typer.Option(help="Arithmetic, in 10¹² a second.")] = None,
    tbs: Annotated[float | None, typer.Option(help="Memory traffic, in 10¹² bytes a second.")] = None,
    batch: Annotated[
        str, typer.Option(help="Canvases denoised together, separated by commas.")
    ] = "1,8,64,256",
    prefix: Annotated[int, typer.Option(min=0, help="Tokens before each canvas.")] = 2048,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps of a block.")] = 8,
    rebuild_every: Annotated[
        int, typer.Option(min=0, help="LLaDA and Dream: steps between full recomputations; 0: all are.")
    ] = 0,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "bfloat16",
    png: Annotated[Path | None, typer.Option(help="Also draw it, into this file.")] = None,
) -> None:
    """Say how fast a model can be on a device at best, phase by phase, and what bounds it."""
    from easel.cluster.errors import ClusterError
    from easel.cluster.roofline_view import ask_roofline, plot_roofline, print_roofline
    from easel.worker.errors import WorkerError

    try:
        question = ask_roofline(
            model_dir if model_dir or preset else demo_model(),
            preset,
            (device, tflops, tbs),
            batch,
            prefix=prefix,
            steps=steps,
            rebuild_every=rebuild_every,
            dtype=dtype,
        )
        print_roofline(question, Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH))
        if png is not None:
            plot_roofline(question, png)
    except (ClusterError, WorkerError) as error:
        _fail(str(error))


@app.command()
def simulate(
    trace: Annotated[Path, typer.Option(help="A file written by `easel bench --record`.")],
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Another number of replicas than recorded: what if?")
    ] = None,
    fit_all: Annotated[
        bool, typer.Option("--fit-all", help="Calibrate on all requests, not on the first half alone.")
    ] = False,
) -> None:
    """Replay a recorded trace in a simulated cluster driven by the real schedulers, and compare."""
    from easel.cluster.errors import ClusterError
    from easel.cluster.simulate_view import load_trace, simulate_trace
    from easel.scheduler.errors import SchedulerError

    try:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
        simulate_trace(load_trace(trace), console, replicas, fit_all=fit_all)
    except (ClusterError, SchedulerError) as error:
        _fail(str(error))


@app.command()
def key() -> None:
    """Make an API key, and the hash of it that the configuration wants (tenants, key_hashes)."""
    from hashlib import sha256
    from secrets import token_urlsafe

    made = f"easel-{token_urlsafe(32)}"
    typer.echo(f"key   {made}\nhash  {sha256(made.encode()).hexdigest()}")


def serve_settings(
    model_dir: Path | None, file: Path | None, environment: Mapping[str, str], given: Mapping[str, Any]
) -> "ClusterConfig":
    """The merged settings; the embedded model where nobody names another. Raises ConfigError."""
    from easel.cluster.config import load_config

    overrides = {**given, "model": model_dir}
    if model_dir is None and "EASEL_MODEL" not in environment and not _names_a_model(file):
        overrides |= {"model": demo_model()}
        if "EASEL_MODEL_NAME" not in environment:
            overrides |= {"model_name": DEMO_MODEL_NAME}
    return load_config(file, environment, overrides)


def _first_key() -> str:
    return os.environ.get("EASEL_API_KEYS", "").split(",")[0].strip()


def _names_a_model(file: Path | None) -> bool:
    import yaml

    if file is None or not file.is_file():
        return False
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return False  # load_config says what is wrong with it
    return isinstance(settings, dict) and "model" in settings


def _fail(message: str) -> NoReturn:
    typer.echo(f"easel: {message}", err=True)
    raise typer.Exit(1)
