"""The embedded Valkey comes up, and goes with its owner."""

import socket
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


def server_of(valkey: EmbeddedValkey) -> psutil.Process:
    return psutil.Process(int((valkey.folder / "valkey.pid").read_text()))


def kill_server_of(valkey: EmbeddedValkey) -> None:
    """Returns once another one has taken its place and answers."""
    before = valkey.restarts
    killed = server_of(valkey)
    killed.kill()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if valkey.restarts > before and command(valkey, "PING") == b"+PONG\r\n":
                return
        except OSError:
            continue
    raise TimeoutError


def command(valkey: EmbeddedValkey, *words: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(str(valkey.folder / "valkey.sock"))
        client.sendall(" ".join(words).encode() + b"\r\n")
        return client.recv(100)


def test_nothing_is_left_of_an_owner_that_is_killed_with_its_children() -> None:
    """As Ray ends an actor."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().decode().strip())
    rest = servers_in(folder)
    assert any("valkey-server" in process.name() for process in rest)
    for process in [*psutil.Process(owner.pid).children(), psutil.Process(owner.pid)]:
        process.kill()
    owner.communicate()
    _, alive = psutil.wait_procs(rest, timeout=20)
    assert alive == []
    assert not folder.exists()


@pytest.mark.parametrize(("keep_data", "found"), [(True, b"$3\r\nhas\r\n"), (False, b"$-1\r\n")])
def test_a_server_that_dies_is_started_again_with_what_it_is_to_keep(keep_data: bool, found: bytes) -> None:
    valkey = EmbeddedValkey(keep_data=keep_data)
    valkey.start()
    try:
        command(valkey, "SET", "it", "has")
        kill_server_of(valkey)
        assert command(valkey, "GET", "it") == found
        kill_server_of(valkey)
        assert valkey.restarts == 2
    finally:
        valkey.stop()
    assert servers_in(valkey.folder) == []


def test_a_log_that_cannot_be_read_is_dropped() -> None:
    valkey = EmbeddedValkey()
    valkey.start()
    try:
        command(valkey, "SET", "it", "has")
        log = next((valkey.folder / "appendonlydir").glob("*.incr.aof"))
        log.write_bytes(b"*3\r\n$3\r\nSET\r\n$" + b"x" * 100 + b"\r\n" + log.read_bytes())
        kill_server_of(valkey)
        assert command(valkey, "GET", "it") == b"$-1\r\n"
    finally:
        valkey.stop()


def test_it_is_stopped_even_if_its_guard_was_killed() -> None:
    valkey = EmbeddedValkey()
    valkey.start()
    guard = server_of(valkey).parent()
    assert guard is not None
    guard.kill()
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
