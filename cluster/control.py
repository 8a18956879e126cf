"""What whoever started a cluster can tell it: stop admitting, drain a replica, restart all of them in turn.

Ray reads its environment when it is first imported, so it is imported where it is used.
"""
# ruff: noqa: PLC0415

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

Reply = TypeVar("Reply")
Report = Callable[[str], None]

CALL_SECONDS = 2.0
_POLL_SECONDS = 0.2
_SERVE_NAMESPACE = "serve"


class Restartable(Protocol):
    """Replicas that can be told to go, one by one."""

    def replicas(self) -> list[str]: ...

    def unfinished(self, replica_id: str | None = None) -> int: ...

    def drain(self, replica_id: str) -> None: ...

    def end_replica(self, replica_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ClusterControl:
    """A running cluster, by the handle of its scheduler. Calls that are not answered change nothing."""

    scheduler: Any  # handle of the SchedulerActor
    workers: str  # Serve's name for the worker deployment: application#deployment

    def close_admission(self) -> None:
        """Refuse new requests from now on."""
        ask(self.scheduler.close_admission, None)

    def unfinished(self, replica_id: str | None = None) -> int:
        """Requests that wait or run, of one replica or all; none when the scheduler cannot say."""
        return ask(self.scheduler.unfinished, 0, replica_id)

    def replicas(self) -> list[str]:
        """Ids of the replicas that report."""
        return ask(self.scheduler.replica_ids, [])

    def drain(self, replica_id: str) -> None:
        """Place nothing there any more, and have it give back what it runs at its blocks' ends."""
        ask(self.scheduler.drain, None, replica_id)

    def end_replica(self, replica_id: str) -> None:
        """End its process; Serve starts another one."""
        import ray

        try:
            actor = cast(Any, ray).get_actor(f"SERVE_REPLICA::{self.workers}#{replica_id}", _SERVE_NAMESPACE)
        except ValueError:
            return  # it has ended already
        cast(Any, ray).kill(actor)


@dataclass(frozen=True, slots=True)
class RollingRestart:
    """One replica after the other is drained, ended, and replaced; no request fails."""

    control: Restartable
    drain_seconds: float
    report: Report
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def run(self) -> None:
        """Returns when all have been replaced, or given up waiting for."""
        old = self.control.replicas()
        for replica_id in old:
            self.report(f"restarting replica {replica_id}")
            self._replace(replica_id, len(old))
        self.report(f"{len(old)} replicas were restarted")

    def _replace(self, replica_id: str, count: int) -> None:
        self.control.drain(replica_id)
        self._wait(lambda: self.control.unfinished(replica_id) == 0)
        self.control.end_replica(replica_id)
        # Its successor must be there before the next one goes.
        self._wait(lambda: replica_id not in self.control.replicas())
        self._wait(lambda: len(self.control.replicas()) >= count)

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = self.clock() + self.drain_seconds
        while not condition() and self.clock() < deadline:
            self.sleep(_POLL_SECONDS)


def ask(method: Any, otherwise: Reply, *arguments: object) -> Reply:
    """What an actor's method returns; `otherwise` while it is starting, or once it has ended."""
    import ray
    from ray.exceptions import RayError

    try:
        return cast(Any, ray).get(method.remote(*arguments), timeout=CALL_SECONDS)
    except RayError:
        return otherwise
