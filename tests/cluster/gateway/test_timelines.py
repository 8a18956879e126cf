"""A gateway's own record of what became of its answers."""

from dataclasses import dataclass, field, replace

import pytest

from easel.cluster.cluster_state import AnswerState, Json
from easel.cluster.gateway.choice import Choice, choices_of
from easel.cluster.gateway.errors import Interrupted
from easel.cluster.gateway.timelines import KEPT, MOST_EVENTS, Timelines, reason_of
from easel.scheduler.errors import QueueFull
from easel.scheduler.request import FinishReason, Request, SamplingParams
from tests.cluster.gateway.fakes import block, byte_tokenizer

TOKENIZER = byte_tokenizer()


@dataclass(slots=True)
class World:
    """A recorder under clocks that are moved by hand, and an answer of two choices."""

    now: float = 50.0
    wall: float = 1000.0
    timelines: Timelines = field(init=False)
    choices: list[Choice] = field(init=False)

    def __post_init__(self) -> None:
        self.timelines = Timelines(lambda: self.now, lambda: self.wall)
        requests = [Request(f"chat-a-{index}", (9,), SamplingParams(max_tokens=99)) for index in range(2)]
        self.choices = choices_of(requests, (), TOKENIZER)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds

    def begin(self) -> None:
        self.timelines.begin("chat-a", "tenant", self.wall, "trace")

    def commit(self, choice: int, index: int, seconds: float = 0.25, last: bool = False) -> None:
        taken = self.choices[choice]
        event = block(taken.request, index, (40, 41), FinishReason.STOP if last else None)
        self.timelines.block("chat-a", taken, replace(event, seconds=seconds))
        taken.take(event)

    def events(self) -> list[Json]:
        timeline = self.timelines.timeline("chat-a")
        assert timeline is not None
        return list(timeline.events)

    def state(self) -> AnswerState:
        (summary,) = self.timelines.summaries()
        return summary.state


def test_an_answer_s_way_is_recorded_with_the_time_of_each_event() -> None:
    world = World()
    world.begin()
    world.pass_time(1.0)
    world.timelines.placed("chat-a-0", "r1", 1)
    world.pass_time(1.0)
    world.commit(0, 0, seconds=0.25)
    world.pass_time(1.0)
    world.commit(0, 1, last=True)
    world.timelines.finished("chat-a", world.choices[:1])
    prefilled: Json = {"choice": 0, "queue_ms": 4.0, "prefill_ms": 2.0, "cached_tokens": 3}
    figures: Json = {"steps": 2, "tokens": 2, "mean_entropy": 0.25, "ms": 250.0, "tightened": False}
    assert world.events() == [
        {"at": 0.0, "kind": "received"},
        {"at": 1.0, "kind": "placed", "choice": 0, "replica": "r1", "attempt": 1},
        {"at": 1.75, "kind": "prefilled", **prefilled},
        {"at": 2.0, "kind": "block", "choice": 0, "block": 0, **figures},
        {"at": 3.0, "kind": "block", "choice": 0, "block": 1, **figures},
        {"at": 3.0, "kind": "finished", "choice": 0, "reason": "stop"},
    ]
    (summary,) = world.timelines.summaries()
    assert (summary.blocks, summary.tokens, summary.steps, summary.seconds) == (2, 4, 4, 3.0)
    assert (summary.replica, summary.trace_id, summary.began) == ("r1", "trace", 1000.0)


@pytest.mark.parametrize("how", ["replica_lost", "handed_over", "refused"])
def test_a_request_that_goes_on_elsewhere_is_prefilled_there_once_more(how: str) -> None:
    world = World()
    world.begin()
    world.timelines.placed("chat-a-1", "r1", 1)
    world.commit(1, 0)
    world.timelines.left("chat-a-1", "r1", how)
    world.timelines.placed("chat-a-1", "r2", 2)
    world.commit(1, 1)
    kinds = [event["kind"] for event in world.events()]
    assert kinds == ["received", "placed", "prefilled", "block", how, "placed", "prefilled", "block"]
    assert all(event["choice"] == 1 for event in world.events()[1:])


def test_a_running_answer_grows_older_and_an_ended_one_does_not() -> None:
    world = World()
    world.begin()
    world.pass_time(2.0)
    assert world.timelines.summaries()[0].seconds == 2.0
    world.timelines.cancelled("chat-a", "its client has gone")
    world.pass_time(2.0)
    assert world.timelines.summaries()[0].seconds == 2.0


def test_only_the_first_end_counts() -> None:
    world = World()
    world.begin()
    world.timelines.cancelled("chat-a", "its client has gone")
    world.timelines.failed("chat-a", Interrupted("chat-a-0", "why"))
    world.timelines.finished("chat-a", world.choices)
    assert world.state() is AnswerState.CANCELLED
    assert [event["kind"] for event in world.events()] == ["received", "cancelled"]


def test_an_answer_that_is_taken_up_again_counts_the_blocks_that_are_there() -> None:
    world = World()
    world.begin()
    world.commit(0, 0)
    world.timelines.cancelled("chat-a", "its client has gone")
    world.pass_time(5.0)
    world.timelines.drive("chat-a", "tenant", 1000.0, world.choices)
    world.commit(0, 1)
    assert world.state() is AnswerState.RUNNING
    assert world.timelines.summaries()[0].blocks == 2
    assert world.events()[-2] == {"at": 5.0, "kind": "resumed", "blocks": 1}


def test_an_answer_of_another_gateway_has_the_time_of_its_own_beginning() -> None:
    world = World()
    world.commit(0, 0)  # not known here: passed over
    world.timelines.drive("chat-a", "tenant", 990.0, world.choices)
    assert world.events() == [{"at": 10.0, "kind": "resumed", "blocks": 1}]
    assert world.timelines.seconds("chat-a") == 10.0
    assert world.timelines.seconds("another") == 0.0


def test_an_answer_that_another_gateway_works_at_is_that_gateway_s_to_tell_of() -> None:
    world = World()
    world.begin()
    world.timelines.leave("chat-a")
    world.timelines.finished("chat-a", world.choices)
    assert world.timelines.timeline("chat-a") is None


def test_a_long_answer_s_blocks_are_all_counted_and_its_end_is_told() -> None:
    world = World()
    world.begin()
    for index in range(MOST_EVENTS + 50):
        world.commit(0, index)
    world.timelines.finished("chat-a", world.choices[:1])
    assert world.timelines.summaries()[0].blocks == MOST_EVENTS + 50
    assert len(world.events()) == MOST_EVENTS + 1
    assert world.events()[-1]["kind"] == "finished"


def test_as_many_answers_are_kept_as_there_is_room_for() -> None:
    world = World()
    for index in range(2 * KEPT):
        world.timelines.begin(str(index), "", world.wall)
    assert len(world.timelines.summaries()) == KEPT
    assert world.timelines.timeline("0") is None


def test_a_wall_clock_that_was_put_back_makes_no_answer_begin_in_the_future() -> None:
    world = World()
    world.timelines.drive("chat-a", "", world.wall + 3600.0, world.choices)
    assert world.events()[0]["at"] == 0.0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Interrupted("r", "it ended"), "Request r: it ended; try again."),
        (QueueFull(9, 9, 1.0), str(QueueFull(9, 9, 1.0))),
        (RuntimeError("secrets of the inside"), "internal error"),
    ],
)
def test_a_failure_is_told_in_the_client_s_words(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason
