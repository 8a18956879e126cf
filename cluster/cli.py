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

if TYPE_CHECKING:
    from easel.cluster.config import ClusterConfig

DEMO_MODEL_NAME = "easel-demo"
PIPE_WIDTH = 200
DEFAULT_URL = "http://127.0.0.1:8000"

app = typer.Typer(name="easel", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

ModelDir = Annotated[
    Path | None,
    typer.Argument(help="Directory of a Hugging Face checkpoint. Default: the embedded demo model."),
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

    key = api_key or os.environ.get("EASEL_API_KEYS", "").split(",")[0].strip()
    options = ChatOptions(model, temperature, seed, max_tokens, steps, threshold)
    console = Console(highlight=False)
    try:
        with ChatClient(url, key, options) as client:
            if prompt is None:
                converse(client, console, pace)
            else:
                ask(client, console, [{"role": "user", "content": prompt}], pace)
    except ClusterError as error:
        _fail(str(error))


@app.command()
def doctor(
    model_dir: ModelDir = None,
    host: Annotated[str, typer.Option(help="Address that would be served on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port that would be served on.")] = 8000,
) -> None:
    """Say whether this machine can run Easel, what is wrong, and how to mend it."""
    from easel.cluster.doctor import Verdict, examine
    from easel.cluster.doctor_report import print_findings

    findings = examine(model_dir or demo_model(), host, port)
    # A finding in a pipe or a file stays on one line.
    print_findings(findings, Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH))
    if any(finding.verdict is Verdict.BROKEN for finding in findings):
        raise typer.Exit(1)


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


def demo_model() -> Path:
    """The checkpoint that comes with Easel."""
    from importlib.resources import files

    return Path(str(files("easel.demo"))) / "checkpoint"


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
