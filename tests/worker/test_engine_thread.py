"""The engine's thread: commands from anywhere, events to callbacks, and a failure that is told."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from easel.scheduler.errors import RequestTooLong, SchedulerError
from easel.scheduler.messages import BlockEvent, CanvasSnapshot, PhasePolicy, StepSample
from easel.scheduler.request import CommitRule, DiffusionParams, FinishReason, Request, SamplingParams
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.engine_thread import EngineCallbacks, EngineThread
from easel.worker.errors import CheckpointError, EngineStopped
from easel.worker.loading import load_engine
from tests.worker.driving import generations
from tests.worker.tiny import TinyCheckpoint

Inbox = queue.SimpleQueue[BlockEvent | CanvasSnapshot]
Refusals = queue.SimpleQueue[tuple[str, SchedulerError]]
Failures = queue.SimpleQueue[BaseException]
PATIENCE = 60.0  # seconds until a test that waits for an event fails


@dataclass(slots=True)
class Listener:
    """Callbacks that queue what they are told; `gate` can hold the engine between two steps."""

    events: Inbox = field(default_factory=Inbox)
    refused: Refusals = field(default_factory=Refusals)
    failures: Failures = field(default_factory=Failures)
    gate: threading.Event = field(default_factory=threading.Event)

    def callbacks(self) -> EngineCallbacks:
        return EngineCallbacks(
            on_events=self.on_events,
            on_refused=lambda request_id, error: self.refused.put((request_id, error)),
            on_failure=self.failures.put,
        )

    def on_events(self, events: list[BlockEvent | CanvasSnapshot]) -> None:
        for event in events:
            self.events.put(event)
        assert self.gate.wait(PATIENCE)

    def until_finished(self, count: int) -> list[BlockEvent]:
        """Block events up to the end of the `count`-th request."""
        blocks: list[BlockEvent] = []
        while count:
            event = self.events.get(timeout=PATIENCE)
            if isinstance(event, BlockEvent):
                blocks.append(event)
                count -= event.finish is not None
        return blocks


@dataclass(slots=True)
class Fuse:
    """A clock that can be made to fail."""

    blown: bool = False
    now: float = 0.0

    def __call__(self) -> float:
        if self.blown:
            raise RuntimeError("the device is gone")
        self.now += 1e-3
        return self.now


@pytest.fixture
def listener() -> Listener:
    listener = Listener()
    listener.gate.set()
    return listener


@pytest.fixture
def fuse() -> Fuse:
    return Fuse()


@pytest.fixture
def thread(endless: TinyCheckpoint, listener: Listener, fuse: Fuse) -> Iterator[EngineThread]:
    thread = EngineThread(lambda: _engine(endless, fuse), listener.callbacks())
    thread.start()
    yield thread
    listener.gate.set()
    thread.stop()


def test_requests_from_several_threads_generate_what_they_do_alone(
    endless: TinyCheckpoint, thread: EngineThread, listener: Listener
) -> None:
    requests = endless.requests(12, seed=21)

    def submit(part: int) -> None:
        for request in requests[part::3]:
            thread.submit(request)

    submitters = [threading.Thread(target=submit, args=(part,)) for part in range(3)]
    for submitter in submitters:
        submitter.start()
    found = generations(listener.until_finished(len(requests)))
    for submitter in submitters:
        submitter.join()
    for request in requests:
        assert found[request.request_id] == endless.expected(request)


def test_start_returns_the_engine_with_its_shape(tiny: TinyCheckpoint, listener: Listener) -> None:
    thread = EngineThread(tiny.engine, listener.callbacks())
    engine = thread.start()
    thread.stop()
    assert (engine.shape.block_length, engine.model.path) == (tiny.block_length, tiny.path)


def test_a_request_that_cannot_fit_is_refused_and_the_loop_goes_on(
    endless: TinyCheckpoint, thread: EngineThread, listener: Listener
) -> None:
    thread.submit(Request("long", (5,) * 100, SamplingParams(max_tokens=2000)))
    name, error = listener.refused.get(timeout=PATIENCE)
    assert name == "long"
    assert isinstance(error, RequestTooLong)
    request = endless.requests(1, seed=22)[0]
    thread.submit(request)
    assert generations(listener.until_finished(1))[request.request_id] == endless.expected(request)


def test_a_cancelled_request_gets_one_last_event_and_frees_everything(
    thread: EngineThread, listener: Listener
) -> None:
    listener.gate.clear()
    thread.submit(_watched("r"))
    assert isinstance(listener.events.get(timeout=PATIENCE), CanvasSnapshot)
    thread.cancel("r")
    listener.gate.set()
    (event,) = listener.until_finished(1)
    assert event.finish is FinishReason.CANCELLED
    thread.stop()
    assert listener.events.empty()
    digest = thread.digest("a", 1)
    assert (digest.slots_used, digest.active) == (0, ())


def test_a_cancellation_that_comes_too_late_is_passed_over(
    endless: TinyCheckpoint, thread: EngineThread, listener: Listener
) -> None:
    first, second = endless.requests(2, seed=23)
    thread.submit(first)
    listener.until_finished(1)
    thread.cancel(first.request_id)
    thread.submit(second)
    assert generations(listener.until_finished(1))[second.request_id] == endless.expected(second)
    assert thread.failure is None


def test_a_policy_reaches_the_engine(
    endless: TinyCheckpoint, thread: EngineThread, listener: Listener
) -> None:
    thread.set_policy(PhasePolicy(epoch=7, time_to_live=1e9))
    thread.submit(endless.requests(1, seed=24)[0])
    listener.until_finished(1)
    thread.stop()
    assert thread.digest("a", 1).policy_epoch == 7


def test_a_digest_is_stamped_by_who_asks(thread: EngineThread) -> None:
    digest = thread.digest("replica-3", 17)
    assert (digest.replica_id, digest.sequence, digest.slots, digest.steps) == ("replica-3", 17, 2, 0)


def test_a_failing_step_is_told_and_ends_the_loop(
    thread: EngineThread, listener: Listener, fuse: Fuse
) -> None:
    listener.gate.clear()
    thread.submit(_watched("r"))
    listener.events.get(timeout=PATIENCE)
    fuse.blown = True
    listener.gate.set()
    failure = listener.failures.get(timeout=PATIENCE)
    assert str(failure) == "the device is gone"
    assert thread.failure is failure
    with pytest.raises(EngineStopped, match="the device is gone"):
        thread.submit(_watched("next"))
    with pytest.raises(EngineStopped, match="the device is gone"):
        thread.cancel("r")
    with pytest.raises(EngineStopped, match="the device is gone"):
        thread.set_policy(PhasePolicy())


def test_a_model_that_does_not_load_is_raised_by_start(tiny: TinyCheckpoint, listener: Listener) -> None:
    thread = EngineThread(lambda: load_engine(tiny.path / "nowhere", EngineConfig()), listener.callbacks())
    with pytest.raises(CheckpointError, match="nowhere"):
        thread.start()
    assert isinstance(listener.failures.get(timeout=PATIENCE), CheckpointError)


def test_stopping_ends_the_loop_with_requests_still_running(thread: EngineThread, listener: Listener) -> None:
    listener.gate.clear()
    thread.submit(_watched("r"))
    listener.events.get(timeout=PATIENCE)
    stopper = threading.Thread(target=thread.stop)
    stopper.start()
    listener.gate.set()
    stopper.join(PATIENCE)
    assert not stopper.is_alive()
    assert thread.failure is None
    assert thread.digest("a", 1).active == ("r",), "it was neither finished nor cancelled"


def test_digests_tell_of_the_steps_since_the_last_one_and_of_none_twice(
    thread: EngineThread, listener: Listener
) -> None:
    thread.submit(_watched("r"))
    told: list[StepSample] = []
    for sequence in range(3):
        listener.events.get(timeout=PATIENCE)
        told += thread.digest("a", sequence).recent
    steps = [sample.step for sample in told]
    assert steps
    assert steps == sorted(set(steps))
    assert all(sample.refresh_tokens + sample.reuse_tokens > 0 for sample in told)


def test_a_stopped_engine_takes_no_more_requests(thread: EngineThread) -> None:
    thread.stop()
    with pytest.raises(EngineStopped, match="asked to stop"):
        thread.submit(_watched("r"))


def test_an_engine_that_was_not_started_has_no_digest(tiny: TinyCheckpoint, listener: Listener) -> None:
    with pytest.raises(EngineStopped, match="it has not been started"):
        EngineThread(tiny.engine, listener.callbacks()).digest("a", 1)


def _engine(checkpoint: TinyCheckpoint, clock: Fuse) -> Engine:
    return load_engine(checkpoint.path, EngineConfig(slots=2, pages=128, dtype="float32"), clock=clock)


def _watched(name: str) -> Request:
    """Long, and heard of after every step."""
    slow = DiffusionParams(steps=8, commit_rule=CommitRule.STATIC_SCHEDULE)
    return Request(name, (5, 6, 7), SamplingParams(max_tokens=900, temperature=1.0), slow, snapshots=True)
