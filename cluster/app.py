"""The Ray Serve application: gateways in front, worker replicas behind, from one ClusterConfig."""

import os
from typing import Any, cast

from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from easel.cluster.autoscaling import serve_autoscaling
from easel.cluster.config import ClusterConfig
from easel.cluster.config_sections import TenantSection
from easel.cluster.gateway_replica import DrainingGatewayReplica, GatewayReplica
from easel.cluster.journal import JournalSettings
from easel.cluster.names import GATEWAYS, WORKERS
from easel.cluster.replica_router import PlacedReplicaRouter
from easel.cluster.worker_replica import ReplicaSettings, WorkerReplica
from easel.scheduler.central import ClusterLimits
from easel.scheduler.tenants import TenantLimits
from easel.scheduler.valve import ValveBounds
from easel.worker.config import EngineConfig, LoopKind

_CPUS = 0.1  # Ray only counts; threads are set where they are used
_STOP_SECONDS = 2.0  # of a replica, when whoever stops it has seen to its requests
_WORKER_SURGE = 25  # per cent, and one at least, that are there beyond their number while all are replaced
_COMMON: dict[str, Any] = {
    "max_ongoing_requests": 10_000,  # the scheduler limits requests, not Serve
    "health_check_period_s": 2,
    "health_check_timeout_s": 10,
    "graceful_shutdown_wait_loop_s": 0.2,
    "logging_config": {"log_level": "WARNING", "enable_access_log": False},
}


def build_application(
    config: ClusterConfig, journal: JournalSettings, gpus: float, *, rolling: bool = False
) -> Application:
    """What Serve deploys, on a cluster with that many GPUs. The scheduler actor must exist already.

    `rolling`: Serve is to replace and end replicas while there is traffic, so they finish their
    answers first, and their successors are there before they go; unless those need GPUs, of which
    there may be no more. Otherwise whoever stops the cluster has seen to its requests.
    """
    deployment, router = (
        cast(Any, serve.deployment),
        cast(Any, RequestRouterConfig),
    )  # Ray's types are partial
    drain_seconds, gpus_each = config.ray.drain_seconds, config.gpus_of_a_replica(gpus)
    workers = deployment(
        WorkerReplica,
        name=WORKERS,
        graceful_shutdown_timeout_s=drain_seconds if rolling or config.autoscaling.enabled else _STOP_SECONDS,
        request_router_config=router(request_router_class=PlacedReplicaRouter),
        ray_actor_options={"num_cpus": _CPUS, "num_gpus": gpus_each},
        max_surge_percent=_WORKER_SURGE if rolling and not gpus_each else 0,
        **_number_of_workers(config),
        **_COMMON,
    ).bind(
        ReplicaSettings(
            config.model, engine_config(config), journal, config.scheduler.hang_seconds, config.telemetry
        )
    )
    gateways = deployment(
        DrainingGatewayReplica if rolling else GatewayReplica,
        name=GATEWAYS,
        num_replicas=config.gateways,
        max_surge_percent=100 if rolling else 0,  # they share the port
        graceful_shutdown_timeout_s=drain_seconds + _STOP_SECONDS if rolling else _STOP_SECONDS,
        ray_actor_options={"num_cpus": _CPUS},
        **_COMMON,
    )
    return gateways.bind(config, journal, workers, drain_seconds if rolling else 0.0)


def _number_of_workers(config: ClusterConfig) -> dict[str, Any]:
    if config.autoscaling.enabled:
        return {"autoscaling_config": serve_autoscaling(config.autoscaling)}
    return {"num_replicas": config.replicas}


def engine_config(config: ClusterConfig) -> EngineConfig:
    """Replicas share the machine's cores unless told otherwise."""
    share = max(1, (os.cpu_count() or 1) // config.most_replicas)
    return EngineConfig(
        slots=config.engine.slots,
        pages=config.engine.pages,
        memory=config.engine.memory,
        page_size=config.engine.page_size,
        dtype=config.engine.dtype,
        loop=LoopKind(config.engine.loop),
        quantise=config.engine.quantise,
        pack_weights=config.engine.pack_weights,
        batch_invariant=config.engine.batch_invariant,
        device=config.engine.device,
        partial=config.engine.partial,
        refresh_limit=config.engine.refresh_limit,
        threads=config.engine.threads or share,
    )


def cluster_limits(config: ClusterConfig) -> ClusterLimits:
    """The part of the settings that the central scheduler's logic knows."""
    settings, valve = config.scheduler, config.scheduler.valve
    return ClusterLimits(
        max_waiting=settings.max_waiting,
        queue_ahead=settings.queue_ahead,
        digest_timeout_seconds=settings.digest_timeout_seconds,
        target_seconds=settings.target_seconds,
        tenants={tenant.name: tenant_limits(tenant) for tenant in config.tenants},
        valve=ValveBounds(
            enabled=valve.enabled,
            least_steps=valve.least_steps,
            least_threshold=valve.least_threshold,
            most_entropy_bound=valve.most_entropy_bound,
        ),
        preempt=settings.preempt,
        rebalance=settings.rebalance,
    )


def tenant_limits(tenant: TenantSection) -> TenantLimits:
    """What the central scheduler holds a tenant to; its keys are the gateways' concern."""
    return TenantLimits(
        weight=tenant.weight,
        max_requests=tenant.max_requests,
        max_canvases=tenant.max_canvases,
        tokens_per_minute=tenant.tokens_per_minute,
    )


def journal_settings(config: ClusterConfig, url: str) -> JournalSettings:
    """The part of the settings that every user of the journal knows."""
    return JournalSettings(
        url=url,
        prefix=config.journal.prefix,
        lease_seconds=config.journal.lease_seconds,
        terminal_seconds=config.journal.terminal_seconds,
        flush_seconds=config.journal.flush_seconds,
        buffer_records=config.journal.buffer_records,
        tls_ca=config.journal.tls_ca,
        tls_cert=config.journal.tls_cert,
        tls_key=config.journal.tls_key,
    )
