"""The embedded Valkey comes up, and goes with its owner."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from easel.cluster.errors import StartFailed
from easel.cluster.valkey_server import EmbeddedValkey

OWNER = (
    "import sys; from easel.cluster.valkey_server import EmbeddedValkey\n"
    "server = EmbeddedValkey(); server.start(); print(server.folder, flush=True); sys.stdin.read()"
)


def servers_in(folder: Path) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in word for word in process.info["cmdline"] or ())
    ]


def test_stopping_ends_the_process_and_removes_its_files() -> None:
    valkey = EmbeddedValkey()
    valkey.start()
    assert servers_in(valkey.folder) != []
    valkey.stop()
    assert servers_in(valkey.folder) == []
    assert not valkey.folder.exists()


def test_it_ends_when_its_owner_is_killed() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().decode().strip())
    assert (folder / "valkey.sock").exists()
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 20
    while servers_in(folder) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert servers_in(folder) == []
    assert not folder.exists()


def test_a_server_that_cannot_start_says_why() -> None:
    valkey = EmbeddedValkey(memory_mb=-1)
    with pytest.raises(StartFailed, match="Valkey"):
        valkey.start()
    valkey.stop()
    assert not valkey.folder.exists()
