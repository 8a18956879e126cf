"""Starts the central scheduler as a named actor of the Ray cluster that this process has joined.

Ray reads its environment when it is first imported, so it is imported where it is used.
"""
# ruff: noqa: PLC0415

from typing import Any, cast

from easel.cluster.config import ClusterConfig
from easel.cluster.journal import JournalSettings
from easel.cluster.scheduler_actor import ACTOR_NAME, NAMESPACE, SchedulerActor

_CALLS = 10_000  # a waiting request is a call in progress


def start_scheduler(
    config: ClusterConfig,
    journal: JournalSettings,
    actor_class: type[SchedulerActor] = SchedulerActor,
    cpus: float = 0.0,
    **more: object,
) -> Any:
    """A handle of the new actor, which outlives this process. Raises ValueError if there is one already.

    `cpus`: only Ray counts them; with some, it is placed on a node that has any. The rest is for
    classes that take more than a SchedulerActor does.
    """
    import ray

    from easel.cluster.app import cluster_limits

    scheduler = cast(Any, ray).remote(actor_class)
    actor = scheduler.options(
        name=ACTOR_NAME,
        namespace=NAMESPACE,
        lifetime="detached",
        max_restarts=-1,
        max_concurrency=_CALLS,
        num_cpus=cpus,
    )
    return actor.remote(
        cluster_limits(config),
        journal,
        config.scheduler.no_replica_seconds,
        telemetry=config.telemetry,
        **more,
    )
