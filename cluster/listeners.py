"""Which ports the processes of a cluster on this machine listen on, and on which interface."""

from collections.abc import Iterator
from dataclasses import dataclass

import psutil

PROGRAMS = {
    "raylet": "Ray",
    "gcs_server": "Ray",
    "valkey-server": "Valkey",
    "redis-server": "Redis",
}
RAY_TITLE = "ray::"
EASEL_WORDS = ("easel serve", "easel.cluster")
LOOPBACK = ("127.", "::1")
EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True, order=True)
class Listener:
    """One listening TCP socket."""

    port: int
    address: str
    program: str
    pid: int

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.address.startswith(LOOPBACK)

    @property
    def interface(self) -> str:
        return "all interfaces" if self.address in EVERYWHERE else self.address


def cluster_listeners() -> list[Listener]:
    """Listening sockets of Ray, Valkey and Easel processes that this user may look at."""
    found: set[Listener] = set()
    for process in psutil.process_iter():
        try:
            program = program_of(process.name(), process.cmdline())
            if program is not None:
                found.update(_listening(process, program))
        except psutil.Error:
            continue  # it has ended, or belongs to somebody else
    return sorted(found)


def program_of(name: str, command: list[str]) -> str | None:
    """What the process is to a cluster, or None."""
    line = " ".join(command)
    if name in PROGRAMS:
        return PROGRAMS[name]
    if line.startswith(RAY_TITLE):
        return f"Ray ({line.split(' ')[0].removeprefix(RAY_TITLE)})"
    if any(words in line for words in EASEL_WORDS):
        return "Easel"
    return "Ray" if "/ray/" in line and "python" in name else None


def owner_of(port: int) -> str:
    """Name and process id of whoever listens on a port, as far as can be seen."""
    for connection in psutil.net_connections(kind="tcp"):
        address = connection.laddr
        if connection.status == psutil.CONN_LISTEN and address and address.port == port and connection.pid:
            return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return "a process of another user"


def _listening(process: psutil.Process, program: str) -> Iterator[Listener]:
    for connection in process.net_connections(kind="tcp"):
        if connection.status == psutil.CONN_LISTEN:
            yield Listener(connection.laddr.port, connection.laddr.ip, program, process.pid)
