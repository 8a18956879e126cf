"""A cluster without Ray: gateway, scheduler, journal and one engine in this process, but real ones.

Whatever observing costs in any of the cluster's processes is paid here by one, beside the forwards.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from easel.bench.workload import Job
from easel.cluster.config_sections import TelemetrySection
from easel.cluster.dispatch import RayBackend
from easel.cluster.gateway.app import build_gateway
from easel.cluster.gateway.metrics import GatewayMetrics
from easel.cluster.gateway.observation import CountedPlacements, Observation
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.cluster.heap import settle_heap
from easel.cluster.journal import Journal, JournalSettings
from easel.cluster.journal_writer import JournalWriter, nobody
from easel.cluster.placement_watch import Unwatched
from easel.cluster.replica_streams import Event, ReplicaStreams
from easel.cluster.scheduler_actor import SchedulerActor
from easel.cluster.tasks import end_tasks
from easel.cluster.telemetry import Telemetry, start_telemetry
from easel.cluster.valkey_server import EmbeddedValkey
from easel.cluster.work_spans import GenerationSpan
from easel.scheduler.central import ClusterLimits
from easel.scheduler.errors import SchedulerError
from easel.scheduler.messages import GenerationTask
from easel.worker.config import EngineConfig
from easel.worker.engine_thread import EngineCallbacks, EngineThread
from easel.worker.loading import load_engine
from easel.worker.model_info import ModelInfo

REPLICA = "replica"
_DIGEST_SECONDS = 1 / 15
_SCRAPE_SECONDS = 5.0  # Prometheus asks every 15 or 30
_DATA = "data: "


@dataclass(frozen=True, slots=True)
class OneProcessCluster:
    """Answers requests through `client`."""

    model: ModelInfo
    client: httpx.AsyncClient
    engine: EngineThread

    async def run(self, jobs: Sequence[Job], concurrency: int) -> int:
        """Closed loop: so many streams are always under way; returns output tokens."""
        waiting = iter(jobs)

        async def work() -> int:
            return sum([await self._stream(job) for job in waiting])

        return sum(await asyncio.gather(*(work() for _ in range(concurrency))))

    @property
    def forwards(self) -> int:
        """Since the start."""
        return self.engine.digest(REPLICA, 0).steps

    async def _stream(self, job: Job) -> int:
        body = {
            "model": self.model.name,
            "messages": [{"role": "user", "content": job.task.prompt}],
            "max_tokens": job.request.sampling.max_tokens,
            "stream": True,
            "diffusion": {"threshold": job.request.diffusion.threshold},
        }
        response = await self.client.post("/v1/chat/completions", json=body)
        response.raise_for_status()
        *_, last, _done = (line for line in response.text.splitlines() if line.startswith(_DATA))
        return json.loads(last.removeprefix(_DATA))["usage"]["completion_tokens"]


@dataclass(slots=True)
class OwnReplica:
    """What a worker replica does, for a gateway in the same process."""

    engine: EngineThread
    writer: JournalWriter
    telemetry: Telemetry
    streams: ReplicaStreams = field(init=False)

    def __post_init__(self) -> None:
        self.streams = ReplicaStreams(self.engine, self.writer.offer)

    async def generate(self, replica_id: str, task: GenerationTask) -> AsyncGenerator[Event, None]:
        """See easel.cluster.attempt.Replicas."""
        with GenerationSpan(self.telemetry.tracing, task, replica_id) as span:
            async for event in self.streams.run(task):
                span.take(event)
                yield event

    async def report_to(self, scheduler: SchedulerActor) -> None:
        """Digests up, policies down, until cancelled."""
        sequence = 0
        while True:
            sequence += 1
            orders = await scheduler.digest(self.engine.digest(REPLICA, sequence))
            if orders.policy is not None:
                self.engine.set_policy(orders.policy)
            await asyncio.sleep(_DIGEST_SECONDS)


@asynccontextmanager
async def one_process_cluster(
    model_path: Path, engine_config: EngineConfig, section: TelemetrySection | None
) -> AsyncGenerator[OneProcessCluster]:
    """`section` None: nobody observes it, its counts in memory aside; else /metrics is asked now and then."""
    valkey = EmbeddedValkey()
    valkey.start()
    settings = JournalSettings(valkey.url)
    journals = [Journal(settings), Journal(settings)]
    loop = asyncio.get_running_loop()
    callbacks = _callbacks(loop, lambda: replica.streams)
    engine = EngineThread(lambda: load_engine(model_path, engine_config), callbacks)
    worker = start_telemetry(section, "worker", REPLICA)
    replica = OwnReplica(engine, JournalWriter(journals[0], nobody), worker)
    model = (await asyncio.to_thread(engine.start)).model
    scheduler = SchedulerActor(ClusterLimits(), settings, is_stopping=_never, telemetry=section)
    gateway = start_telemetry(section, "gateway", "gateway")
    metrics = GatewayMetrics(loop.time, model.block_length, section and section.metrics_directory)
    watch = CountedPlacements(Unwatched(), metrics)
    backend = RayBackend(
        scheduler,
        replica,
        journals[1],
        JournalWriter(journals[1], nobody),
        page_size=model.default_page_size,
        watch=watch,
    )
    observation = Observation(gateway, metrics, scheduler.tallies)
    app = build_gateway(backend, model, ChatTokenizer.load(model_path), observation=observation)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway", timeout=600)
    tasks = [asyncio.create_task(replica.writer.run()), asyncio.create_task(replica.report_to(scheduler))]
    if section is not None:
        tasks.append(asyncio.create_task(_scrape(client)))
    settle_heap()
    try:
        yield OneProcessCluster(model, client, engine)
    finally:
        await end_tasks(tasks)
        await client.aclose()
        await asyncio.to_thread(engine.stop)
        await scheduler.close()
        for journal in journals:
            await journal.close()
        for telemetry in (worker, gateway):
            await asyncio.to_thread(telemetry.stop)
        valkey.stop()


def _callbacks(loop: asyncio.AbstractEventLoop, streams: Callable[[], ReplicaStreams]) -> EngineCallbacks:
    """From the engine's thread into the event loop; a failure of the engine ends that."""

    def on_events(events: list[Event]) -> None:
        loop.call_soon_threadsafe(streams().deliver, events)

    def on_refused(request_id: str, error: SchedulerError) -> None:
        loop.call_soon_threadsafe(streams().refuse, request_id, error)

    def on_failure(_: BaseException) -> None:
        loop.call_soon_threadsafe(loop.stop)

    return EngineCallbacks(on_events, on_refused, on_failure)


async def _scrape(client: httpx.AsyncClient) -> None:
    while True:
        await asyncio.sleep(_SCRAPE_SECONDS)
        (await client.get("/metrics")).raise_for_status()


async def _never() -> bool:
    return False
