"""Reaching the very replica the scheduler chose, through Ray Serve's own routing.

See docs/decisions/0003-gateway-reaches-the-placed-replica.md.
"""

import contextvars
import time
from collections.abc import AsyncGenerator
from typing import Any

from grpc.aio import AioRpcError
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from easel.cluster.errors import ClusterError, ReplicaLeft, ReplicaLost
from easel.scheduler.errors import SchedulerError
from easel.scheduler.messages import BlockEvent, CanvasSnapshot, GenerationTask
from easel.worker.errors import EngineStopped

_NEWS_SECONDS = 5.0  # by then Serve has told this process of a replica that just started


class PlacedReplicaRouter(RequestRouter):
    """Sends a request to the replica that its `replica_id` argument names, and nowhere else."""

    def initialize_state(self, **kwargs: Any) -> None:
        """Called by Serve after construction."""
        self._seen: set[str] = set()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The named replica alone. Fails the request when there is none of that name."""
        if pending_request is None:
            return [candidate_replicas]
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        self._seen |= replicas.keys()
        wanted: str = pending_request.kwargs["replica_id"]
        # Without this, Ray asks again at once, for ever, and blocks the event loop.
        pending_request.routing_context.should_backoff = True
        if wanted in replicas:
            return [[replicas[wanted]]]
        waited = time.time() - pending_request.created_at
        if not pending_request.future.done() and (wanted in self._seen or waited > _NEWS_SECONDS):
            pending_request.future.set_exception(ReplicaLeft(wanted, "it is not among the running replicas"))
        # Ray looks at the future only when it is offered somebody.
        return [candidate_replicas] if pending_request.future.done() else []


class ServeReplicas:
    """The worker deployment's replicas, addressed one by one."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._generate: Any = handle.options(method_name="generate", stream=True)

    async def generate(
        self, replica_id: str, task: GenerationTask
    ) -> AsyncGenerator[BlockEvent | CanvasSnapshot, None]:
        """One request's events. Closing cancels it. Raises ReplicaLost, StaleLease or RequestTooLong."""
        # With an id of its own each: Ray's router mixes up calls that share a request's id.
        response = contextvars.Context().run(lambda: self._generate.remote(task, replica_id=replica_id))
        try:
            async for event in response:
                yield event
        except RayTaskError as error:
            cause: BaseException = error.cause
            raise _translate(replica_id, cause) from None
        except (RayError, RayServeException, AioRpcError) as error:
            raise ReplicaLost(replica_id, type(error).__name__) from error
        finally:
            response.cancel()


def _translate(replica_id: str, cause: BaseException) -> BaseException:
    """What the replica meant: the request's own errors pass, anything else costs it the request."""
    if isinstance(cause, SchedulerError | ClusterError):
        return cause
    reason = cause.reason if isinstance(cause, EngineStopped) else repr(cause)
    return ReplicaLost(replica_id, reason)
