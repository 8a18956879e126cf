"""Runs an engine's loop in a thread of its own, so that an event loop beside it stays free."""

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from easel.scheduler.errors import SchedulerError, UnknownRequest
from easel.scheduler.messages import BlockEvent, CanvasSnapshot, PhasePolicy, ReplicaDigest
from easel.scheduler.request import Request
from easel.worker.engine import Engine
from easel.worker.errors import EngineStopped

ENGINE_THREAD = "easel-engine"


@dataclass(frozen=True, slots=True)
class _Submit:
    request: Request


@dataclass(frozen=True, slots=True)
class _Cancel:
    request_id: str


@dataclass(frozen=True, slots=True)
class _SetPolicy:
    policy: PhasePolicy


@dataclass(frozen=True, slots=True)
class _HandOver:
    request_id: str


@dataclass(frozen=True, slots=True)
class _Drain:
    pass


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


_Command = _Submit | _Cancel | _SetPolicy | _HandOver | _Drain


@dataclass(frozen=True, slots=True)
class EngineCallbacks:
    """Called from the engine's thread; each must return at once."""

    on_events: Callable[[list[BlockEvent | CanvasSnapshot]], None]
    on_refused: Callable[[str, SchedulerError], None]  # request id, why it was not queued
    on_failure: Callable[[BaseException], None]  # the loop has ended; no more events will come


class EngineThread:
    """Owns an engine. Every method may be called from any thread and returns at once."""

    def __init__(
        self,
        build: Callable[[], Engine],
        callbacks: EngineCallbacks,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._build = build
        self._callbacks = callbacks
        self._inbox: queue.SimpleQueue[_Command | _Stop] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=ENGINE_THREAD, daemon=True)
        self._loaded = threading.Event()
        self._engine: Engine | None = None
        self._digest: ReplicaDigest | None = None
        self._failure: BaseException | None = None
        self._stopping = False
        self._clock = clock
        self._step_began: float | None = None

    @property
    def busy_seconds(self) -> float:
        """How long the step in progress has taken so far; 0 between two."""
        began = self._step_began
        return 0.0 if began is None else self._clock() - began

    @property
    def failure(self) -> BaseException | None:
        """What ended the loop, if something did."""
        return self._failure

    def start(self) -> Engine:
        """Load the model; blocks until it is ready. Raises what loading raised.

        The engine is returned for its immutable `model` and `shape` only.
        """
        self._thread.start()
        self._loaded.wait()
        if self._engine is None:
            raise self._failure or EngineStopped("it did not load")
        return self._engine

    def submit(self, request: Request) -> None:
        self._post(_Submit(request))

    def cancel(self, request_id: str) -> None:
        self._post(_Cancel(request_id))

    def set_policy(self, policy: PhasePolicy) -> None:
        self._post(_SetPolicy(policy))

    def hand_over(self, request_id: str) -> None:
        """Give the request back at its block's end; one that is not here any more is passed over."""
        self._post(_HandOver(request_id))

    def drain(self) -> None:
        """Give all requests back at their blocks' ends, and refuse new ones."""
        self._post(_Drain())

    def digest(self, replica_id: str, sequence: int) -> ReplicaDigest:
        """The state after the last step, stamped anew, and some of the steps since the last call."""
        if self._engine is None or self._digest is None:
            raise EngineStopped("it has not been started")
        recent = self._engine.take_recent_steps()
        return replace(self._digest, replica_id=replica_id, sequence=sequence, recent=recent)

    def stop(self) -> None:
        """End the loop after the step in progress; requests still running get no more events."""
        self._stopping = True
        self._inbox.put(_Stop())
        self._thread.join()

    def _post(self, command: _Command) -> None:
        if self._failure is not None:
            raise EngineStopped(repr(self._failure))
        if self._stopping:
            raise EngineStopped("it was asked to stop")
        self._inbox.put(command)

    def _main(self) -> None:
        try:
            engine = self._build()
            self._digest = engine.digest("", 0)
            self._engine = engine
            self._loaded.set()
            while self._take_commands(engine):
                self._step_began = self._clock()
                events = engine.step(self._has_mail)
                self._step_began = None
                self._digest = engine.digest("", 0)
                if events:
                    self._callbacks.on_events(events)
        except Exception as error:  # noqa: BLE001 - the process's owner sees the failure and is replaced
            self._failure = error
            self._loaded.set()
            self._callbacks.on_failure(error)

    def _has_mail(self) -> bool:
        return not self._inbox.empty()

    def _take_commands(self, engine: Engine) -> bool:
        """Act on what has been posted, waiting for something when idle. False: stop."""
        while True:
            try:
                command = self._inbox.get(block=not engine.has_work)
            except queue.Empty:
                return True
            if isinstance(command, _Stop):
                return False
            self._act(engine, command)

    def _act(self, engine: Engine, command: _Command) -> None:
        match command:
            case _Submit(request):
                try:
                    engine.submit(request)
                except SchedulerError as error:
                    self._callbacks.on_refused(request.request_id, error)
            case _Cancel(request_id):
                with suppress(UnknownRequest):  # it finished while the cancellation was on its way
                    engine.cancel(request_id)
            case _SetPolicy(policy):
                engine.set_policy(policy)
            case _HandOver(request_id):
                with suppress(UnknownRequest):
                    engine.hand_over(request_id)
            case _Drain():
                engine.drain()
        self._digest = engine.digest("", 0)  # an idle engine takes no step that would bring a new one
