"""GET /cluster and GET /cluster/requests/{id}: what the cluster is doing, and what became of a request."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import APIRouter, Request

from easel.cluster.cluster_state import ClusterState, StoredTimeline
from easel.cluster.gateway.cluster_json import cluster_json, timeline_json, with_own
from easel.cluster.gateway.errors import ApiError, shown
from easel.cluster.gateway.gateway import Gateway
from easel.cluster.gateway.statistics import Json
from easel.cluster.gateway.timelines import Timelines

FRESH_SECONDS = 0.25  # however many look on, the scheduler is asked no more often


class ClusterSource(Protocol):
    """Where the state of the whole cluster is found."""

    async def state(self) -> ClusterState:
        """Of all replicas and tenants. Raises ClusterError."""
        ...

    async def timeline(self, answer_id: str) -> StoredTimeline | None:
        """Of any tenant; None when it is not known. Raises ClusterError."""
        ...


class NoCluster:
    """For a gateway on its own: it shows its own requests and nothing else."""

    async def state(self) -> ClusterState:
        return ClusterState("off", 0, 0, (), (), ())

    async def timeline(self, answer_id: str) -> StoredTimeline | None:
        return None


class UnknownTimeline(ApiError):
    """No request of that id is remembered, or it is another tenant's."""

    def __init__(self, answer_id: str) -> None:
        message = f"No request {shown(answer_id)} of yours is remembered; only recent ones are."
        super().__init__(404, message, code="request_not_found")
        self.answer_id = answer_id


@dataclass(slots=True)
class ClusterView:
    """What one gateway can show. Belongs to one event loop."""

    timelines: Timelines
    clock: Callable[[], float]  # seconds, monotonic
    source: ClusterSource = field(default_factory=NoCluster)
    _state: ClusterState | None = None
    _asked_at: float = 0.0
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def cluster(self, tenant: str, model: str) -> Json:
        """As a tenant may see it. Raises ClusterError when the scheduler does not answer."""
        state = await self._fresh()
        requests = with_own(state.answers, self.timelines.summaries())
        visible = [request for request in requests if request.tenant == tenant]
        return cluster_json(state, visible, model, state.journal, self.timelines.wall())

    async def timeline(self, tenant: str, answer_id: str) -> Json:
        """Raises UnknownTimeline, or ClusterError when the scheduler does not answer."""
        found = self.timelines.timeline(answer_id) or await self.source.timeline(answer_id)
        if found is None or found.summary.tenant != tenant:
            raise UnknownTimeline(answer_id)
        return timeline_json(found)

    async def _fresh(self) -> ClusterState:
        async with self._asking:
            if self._state is None or self.clock() - self._asked_at >= FRESH_SECONDS:
                self._state = await self.source.state()
                self._asked_at = self.clock()
            return self._state


def cluster_router(gateway: Gateway, view: ClusterView) -> APIRouter:
    """The routes, bound to a gateway."""
    router = APIRouter(tags=["operations"])

    @router.get("/cluster")
    async def cluster(http: Request) -> Json:
        """Replicas with their last steps, queue, faults, and the caller's own recent requests."""
        return await view.cluster(http.state.tenant, gateway.model.name)

    @router.get("/cluster/requests/{request_id}")
    async def timeline(request_id: str, http: Request) -> Json:
        """One of the caller's recent requests, event by event."""
        return await view.timeline(http.state.tenant, request_id)

    return router
