"""The scheduler and the journal of an application that `serve deploy` deployed: nobody else holds them.

Both are detached actors, and end when Serve no longer has the application. Ray reads its environment
when it is first imported, so it is imported where it is used; an actor that is replaced is away for as
long as its successor's imports take, so there is no other here that takes long.
"""
# ruff: noqa: PLC0415

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, cast

from easel.cluster.errors import StartFailed
from easel.cluster.names import APPLICATION
from easel.cluster.scheduler_actor import ACTOR_NAME, NAMESPACE, SchedulerActor
from easel.cluster.valkey_server import EmbeddedValkey

LOGGER = logging.getLogger("easel.scheduler")

JOURNAL_ACTOR = "easel-journal"
CPUS = 0.01  # Ray places what asks for some on nodes that are to work, not on a head that has none
_LOOK_SECONDS = 5.0  # between two looks whether the application is still there
_LOOKS = 3  # in a row that do not find it, until the scheduler ends
_START_SECONDS = 60.0
_REPLACE_SECONDS = 15.0
_VERSION_SECONDS = 5.0
_RETRY_SECONDS = 0.1


class DeployedScheduler(SchedulerActor):
    """A scheduler that nobody stops: it ends by itself once its application has been deleted."""

    def __init__(self, *parts: Any, version: str, **more: Any) -> None:
        """`version` of the settings and the code; the rest as SchedulerActor takes it."""
        super().__init__(*parts, **more)
        self._version = version
        self._watching: asyncio.Task[None] | None = None

    async def version(self) -> str:
        """What it was told at its start."""
        self._start()
        return self._version

    def _start(self) -> None:
        super()._start()
        if self._watching is None:
            self._watching = asyncio.create_task(self._end_with_application())

    async def _end_with_application(self) -> None:
        missed = 0
        while missed < _LOOKS:
            await asyncio.sleep(_LOOK_SECONDS)
            there = await asyncio.to_thread(application_is_there)
            missed = 0 if there else missed + 1
        LOGGER.warning("the application is gone, so its scheduler ends")
        import ray

        end_actor(JOURNAL_ACTOR)
        cast(Any, ray).kill(cast(Any, ray).get_runtime_context().current_actor)


class JournalActor:
    """Holds the embedded Valkey of a cluster of one node."""

    def __init__(self, memory_mb: int) -> None:
        self._valkey = EmbeddedValkey(memory_mb)
        self._valkey.start()

    def url(self) -> str:
        return self._valkey.url


def ensure_scheduler(version: str, start: Callable[[], Any]) -> Any:
    """The scheduler of that version, with `start` if it is not there. Raises StartFailed.

    One of another version is ended first. Its successor learns from digests what runs, and who
    calls meanwhile calls again.
    """
    import ray

    deadline = time.monotonic() + _REPLACE_SECONDS
    while True:
        actor = _named(ACTOR_NAME)
        if actor is not None and _version_of(actor) == version:
            return actor
        end_actor(ACTOR_NAME)
        try:
            scheduler = start()
            cast(Any, ray).get(scheduler.version.remote(), timeout=_START_SECONDS)
            return scheduler
        except ValueError as error:  # the name is not free yet
            if time.monotonic() > deadline:
                raise StartFailed("the scheduler", f"its predecessor does not end: {error}") from error
            time.sleep(_RETRY_SECONDS)


def embedded_journal(memory_mb: int) -> str:
    """The URL of the Valkey that this Ray cluster of one node holds; it is started if need be."""
    import ray

    journal = cast(Any, ray).remote(JournalActor)
    actor = journal.options(
        name=JOURNAL_ACTOR, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, num_cpus=CPUS
    )
    return cast(Any, ray).get(actor.remote(memory_mb).url.remote(), timeout=_START_SECONDS)


def application_is_there() -> bool:
    """Whether Serve has, or may have, the application."""
    from ray import serve
    from ray.exceptions import ActorDiedError, RayError
    from ray.serve.exceptions import RayServeException

    try:
        return APPLICATION in cast(Any, serve).status().applications
    except ActorDiedError:
        return False  # Serve itself was shut down
    except (RayError, RayServeException) as error:
        LOGGER.warning("Serve does not say what it has: %s", error)
        return True


def end_actor(name: str) -> None:
    """End the detached actor of that name, for good, if there is one."""
    import ray

    actor = _named(name)
    if actor is not None:
        cast(Any, ray).kill(actor, no_restart=True)


def _named(name: str) -> Any:
    import ray

    try:
        return cast(Any, ray).get_actor(name, NAMESPACE)
    except ValueError:
        return None


def _version_of(actor: Any) -> str | None:
    """None: it does not say, or is of a kind that knows no versions."""
    import ray
    from ray.exceptions import RayError

    try:
        return cast(Any, ray).get(actor.version.remote(), timeout=_VERSION_SECONDS)
    except (RayError, AttributeError):
        return None
