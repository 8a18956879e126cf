"""How gateways and replicas call the scheduler actor: by name, again and again while it restarts."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayTaskError

from easel.cluster.cluster_state import ClusterState, GatewayReport, StoredTimeline, Told
from easel.cluster.errors import ClusterError, SchedulerLost, Withdrawn
from easel.cluster.scheduler_actor import ACTOR_NAME, NAMESPACE
from easel.cluster.tallies import ClusterTallies
from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.errors import SchedulerError
from easel.scheduler.messages import Placement, ReplicaDigest, ReplicaOrders

_RETRY_SECONDS = 0.1
_PATIENCE_SECONDS = 30.0
_WITHDRAWALS = 3  # after so many somebody else seems to want the request too
_WATCH_SECONDS = 2.0  # between two questions whether a long call is still known

Reply = TypeVar("Reply")


class SchedulerClient:
    """One process's way to the central scheduler."""

    def __init__(self) -> None:
        self._actor: ActorHandle[Any] | None = None

    async def place(self, ticket: AdmissionTicket) -> Placement:
        """Waits for a replica. Raises QueueFull, NoReplica, SchedulerLost, or Withdrawn.

        A request that comes back soon after its client left may meet the end of its earlier course,
        which withdraws it; it is placed again, but not for ever: two may want the same request.
        """
        for _ in range(_WITHDRAWALS):
            with suppress(Withdrawn):
                return await self._persist(lambda actor: watched(actor, ticket))
            await asyncio.sleep(_RETRY_SECONDS)
        return await self._persist(lambda actor: watched(actor, ticket))

    async def end(self, request_id: str, output_tokens: int) -> None:
        """Best effort: a scheduler that restarts learns what runs from digests."""
        await self._try(lambda actor: actor.end.remote(request_id, output_tokens))

    async def report_lost(self, replica_id: str) -> None:
        """Best effort: the scheduler notices by itself, later."""
        await self._try(lambda actor: actor.report_lost.remote(replica_id))

    async def report_leaving(self, replica_id: str) -> None:
        """Best effort: the replica refuses requests by itself, or dies."""
        await self._try(lambda actor: actor.report_leaving.remote(replica_id))

    async def losses(self, known: int) -> tuple[int, list[str]]:
        """See SchedulerActor.losses. Raises SchedulerLost at once."""
        return await self._call(lambda actor: actor.losses.remote(known))

    async def status(self) -> dict[str, object]:
        """Raises SchedulerLost at once."""
        return await self._call(lambda actor: actor.status.remote())

    async def digest(self, digest: ReplicaDigest) -> ReplicaOrders:
        """Raises SchedulerLost at once."""
        return await self._call(lambda actor: actor.digest.remote(digest))

    async def take_report(self, report: GatewayReport) -> Told:
        """Raises SchedulerLost at once."""
        return await self._call(lambda actor: actor.take_report.remote(report))

    async def watch(self) -> ClusterState:
        """Raises SchedulerLost at once."""
        return await self._call(lambda actor: actor.watch.remote())

    async def tallies(self) -> ClusterTallies:
        """Raises SchedulerLost at once."""
        return await self._call(lambda actor: actor.tallies.remote())

    async def timeline(self, answer_id: str) -> StoredTimeline | None:
        """Raises SchedulerLost at once."""
        return await self._call(lambda actor: actor.timeline.remote(answer_id))

    async def loading(self, replica_id: str, done: int, total: int) -> None:
        """Best effort: it is only shown."""
        await self._try(lambda actor: actor.loading.remote(replica_id, done, total))

    async def report_load_failure(self, reason: str) -> None:
        """Best effort: Serve notices the failure, but not why."""
        await self._try(lambda actor: actor.report_load_failure.remote(reason))

    async def _persist(self, call: Callable[[Any], Awaitable[Reply]]) -> Reply:
        deadline = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        while True:
            try:
                return await self._call(call)
            except SchedulerLost:
                if asyncio.get_running_loop().time() > deadline:
                    raise SchedulerLost(_PATIENCE_SECONDS) from None
                await asyncio.sleep(_RETRY_SECONDS)

    async def _try(self, call: Callable[[Any], Awaitable[Any]]) -> None:
        try:
            await self._call(call)
        except SchedulerLost:
            return

    async def _call(self, call: Callable[[Any], Awaitable[Reply]]) -> Reply:
        try:
            if self._actor is None:
                self._actor = ray.get_actor(ACTOR_NAME, NAMESPACE)
            return await call(self._actor)
        except (RayActorError, ValueError) as error:  # ValueError: no actor of that name now
            self._actor = None
            raise SchedulerLost(0.0) from error
        except RayTaskError as error:
            if isinstance(error.cause, SchedulerError | ClusterError):
                raise error.cause from None
            raise


async def watched(actor: Any, ticket: AdmissionTicket, pause_seconds: float = _WATCH_SECONDS) -> Placement:
    """A call that may take long, and that a scheduler which dies under it may leave without an answer.

    Raises SchedulerLost when whoever answers now knows nothing of it.
    """
    placing = asyncio.ensure_future(actor.place.remote(ticket))
    try:
        while not (await asyncio.wait({placing}, timeout=pause_seconds))[0]:
            try:
                async with asyncio.timeout(pause_seconds):
                    known = await actor.is_placing.remote(ticket.request_id)
            except TimeoutError:
                known = False
            if not (known or placing.done()):
                raise SchedulerLost(pause_seconds)
        return placing.result()
    finally:
        placing.cancel()
