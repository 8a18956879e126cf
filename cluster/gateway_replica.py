"""One gateway under Ray Serve: an HTTP server of its own on the cluster's port.

Gateways share the port by SO_REUSEPORT; Serve supervises them but is not in a request's way.
See docs/decisions/0003-gateway-reaches-the-placed-replica.md.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Generator

import uvicorn
from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle

from easel.cluster.answer_store import JournaledAnswers
from easel.cluster.config import ClusterConfig
from easel.cluster.dispatch import RayBackend
from easel.cluster.edge_settings import edge_settings
from easel.cluster.gateway.answer_drive import AnswerTimes
from easel.cluster.gateway.app import build_gateway
from easel.cluster.gateway.cluster_view import ClusterView
from easel.cluster.gateway.observation import CountedPlacements
from easel.cluster.gateway.settings import system_sources
from easel.cluster.gateway.timelines import Timelines
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.cluster.gateway_observation import observed, shared_metrics
from easel.cluster.heap import settle_heap
from easel.cluster.journal import Journal, JournalSettings
from easel.cluster.journal_writer import JournalWriter, nobody
from easel.cluster.placement_watch import PlacementWatch
from easel.cluster.replica_router import ServeReplicas
from easel.cluster.scheduler_client import SchedulerClient
from easel.cluster.telemetry import start_telemetry
from easel.cluster.timeline_reports import TimelineReports
from easel.worker.errors import WorkerError
from easel.worker.model_info import read_model_info

_LEAST_READ_BYTES = 65_536  # more than headers may take, so that too long ones are answered, not cut off
_BACKLOG = 2048  # connections that wait to be accepted
_IDLE_SECONDS = 75  # of a kept connection


class GatewayReplica:
    """Serves HTTP from its construction until its process ends."""

    async def __init__(
        self,
        config: ClusterConfig,
        journal: JournalSettings,
        workers: DeploymentHandle[object],
        drain_seconds: float = 0.0,
    ) -> None:
        """Raises CheckpointError, or OSError when the port cannot be bound.

        `drain_seconds`: when Serve ends this gateway, its answers may take so long to come to their end.
        """
        self._telemetry = start_telemetry(config.telemetry, "gateway", str(os.getpid()))
        try:
            model = read_model_info(config.model, config.model_name)
            tokenizer = ChatTokenizer.load(config.model)
        except WorkerError as error:
            await SchedulerClient().report_load_failure(str(error))
            raise
        shares_prefix = model.family.layout.shares_prefix
        if shares_prefix and not config.engine.partial:
            model = model.without_partial_steps
        page_size = config.engine.page_size or model.default_page_size
        connected = Journal(journal)
        sources = system_sources()
        timelines = Timelines(sources.clock, sources.wall)
        metrics = shared_metrics(config, sources.clock, model.block_length)
        watch = CountedPlacements(timelines, metrics)
        backend = build_backend(config, connected, workers, page_size if shares_prefix else None, watch)
        reports = TimelineReports(
            timelines, SchedulerClient(), sources.new_id(), lambda: backend.journal_degraded
        )
        answers = JournaledAnswers(connected, sources.new_id(), config.journal.driver_seconds)
        settings = edge_settings(config)
        times = AnswerTimes(driver_seconds=config.journal.driver_seconds)
        view = ClusterView(timelines, sources.clock, reports)
        observation = observed(metrics, self._telemetry, backend)
        app = build_gateway(backend, model, tokenizer, settings, sources, answers, times, view, observation)
        self._reporting = asyncio.create_task(reports.run())
        self._answers = app.state.answers
        self._answers.start()  # answers that a dead gateway left are gone on with, asked for or not
        self._server = _server_of(app, drain_seconds, config.limits.max_header_bytes)
        settle_heap()
        self._serving = asyncio.create_task(self._server.serve([_listen(config.host, config.port)]))

    async def check_health(self) -> None:
        """Called by Serve, which replaces the gateway when this raises."""
        if self._serving.done():
            raise RuntimeError(f"the HTTP server has ended: {self._serving!r}")

    async def drain(self) -> None:
        """No new connections, and answers come to their end; then what there is to tell is told."""
        self._server.should_exit = True
        await self._serving
        await self._answers.stop()
        await asyncio.to_thread(self._telemetry.stop)


class DrainingGatewayReplica(GatewayReplica):
    """One that Serve may end while there is traffic.

    Where the whole cluster stops, its requests have been seen to, and a destructor that waits could
    only hold the end up.
    """

    async def __del__(self) -> None:
        """Called by Serve before it ends this process."""
        await self.drain()


class _Server(uvicorn.Server):
    """Leaves signals to Ray, whose process this is."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _server_of(app: FastAPI, drain_seconds: float, header_bytes: int) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            log_config=None,  # start_telemetry has seen to it
            access_log=False,
            lifespan="off",
            http="h11",  # the one of uvicorn's parsers that limits the size of headers
            h11_max_incomplete_event_size=max(_LEAST_READ_BYTES, 2 * header_bytes),
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=max(1, int(drain_seconds)),
        )
    )


def build_backend(
    config: ClusterConfig,
    journal: Journal,
    workers: DeploymentHandle[object],
    page_size: int | None,
    watch: PlacementWatch | None = None,
) -> RayBackend:
    """One process's way into the cluster. `page_size` None: prefixes are not shared."""
    settings = journal.settings
    return RayBackend(
        SchedulerClient(),
        ServeReplicas(workers),
        journal,
        # A gateway owns no lease, so nothing it writes can be stale.
        JournalWriter(journal, nobody, settings.flush_seconds, settings.buffer_records),
        page_size=page_size,
        max_attempts=config.scheduler.max_attempts,
        watch=watch,
    )


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((host, port))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener
