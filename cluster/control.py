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
_UNHEARD = object()  # what a call that nobody answered comes to


class Restartable(Protocol):
    """Replicas that can be told to go, one by one; see ClusterControl."""

    def replicas(self) -> list[str] | None: ...

    def unfinished(self, replica_id: str | None = None) -> int | None: ...

    def drain(self, replica_id: str) -> bool: ...

    def end_replica(self, replica_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ClusterControl:
    """A running cluster, by the handle of its scheduler, which may be starting anew and not answer."""

    scheduler: Any  # handle of the SchedulerActor
    workers: str  # Serve's name for the worker deployment: application#deployment

    def close_admission(self) -> None:
        """Refuse new requests from now on."""
        ask(self.scheduler.close_admission, None)

    def unfinished(self, replica_id: str | None = None) -> int | None:
        """Requests that wait or run, of one replica or all; None: no answer."""
        return ask(self.scheduler.unfinished, None, replica_id)

    def replicas(self) -> list[str] | None:
        """Ids of the replicas that report; None: no answer."""
        return ask(self.scheduler.replica_ids, None)

    def drain(self, replica_id: str) -> bool:
        """Place nothing there any more, and have it give back what it runs at its blocks' ends.

        Returns whether the scheduler has heard it.
        """
        return ask(self.scheduler.drain, _UNHEARD, replica_id) is not _UNHEARD

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
    drain_seconds: float  # for a replica's requests to leave it
    start_seconds: float  # for its successor to come
    report: Report
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def run(self) -> None:
        """Returns when all have been replaced; stops where a successor does not come."""
        old = self._reporting()
        if not old:
            self.report("no replica was restarted: the scheduler does not answer or knows of none; try again")
            return
        for done, replica_id in enumerate(old):
            self.report(f"restarting replica {replica_id}")
            if not self._replace(replica_id, len(old)):
                self.report(
                    f"{done} of {len(old)} replicas were restarted: the successor of {replica_id} has not "
                    f"come within {self.start_seconds:.0f} s, so the others go on as they are"
                )
                return
        self.report(f"{len(old)} replicas were restarted")

    def _reporting(self) -> list[str]:
        """Those there are; none if nobody says so in time."""
        found: list[str] = []

        def said() -> bool:
            found[:] = self.control.replicas() or ()
            return bool(found)

        self._wait(said, self.drain_seconds)
        return found

    def _replace(self, replica_id: str, count: int) -> bool:
        self._wait(lambda: self.control.drain(replica_id), self.drain_seconds)
        self._wait(lambda: self.control.unfinished(replica_id) == 0, self.drain_seconds)
        self.control.end_replica(replica_id)
        # Its successor must be there before the next one goes.
        return self._wait(lambda: self._others(replica_id) >= count, self.start_seconds)

    def _others(self, replica_id: str) -> int:
        return len({*(self.control.replicas() or ())} - {replica_id})

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = self.clock() + seconds
        while not (met := condition()) and self.clock() < deadline:
            self.sleep(_POLL_SECONDS)
        return met


def ask(method: Any, otherwise: Reply, *arguments: object) -> Reply:
    """What an actor's method returns; `otherwise` while it is starting, or once it has ended."""
    import ray
    from ray.exceptions import RayError

    try:
        return cast(Any, ray).get(method.remote(*arguments), timeout=CALL_SECONDS)
    except RayError:
        return otherwise
