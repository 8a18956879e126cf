import asyncio
from dataclasses import replace
from random import Random

import pytest

from easel.bench.harness.arrivals import Closed, Gamma, Poisson, Ramp
from easel.bench.harness.lengths import Length
from easel.bench.harness.load import Load, LoadPlan
from easel.bench.harness.records import Record
from easel.bench.harness.wire import BodyPlan, Endpoint
from easel.bench.harness.workloads import Chats, Question, Questions
from tests.bench.harness.fakes import FakeAsker, VirtualClock

QUESTIONS = Questions(questions=(Question("say yes", "yes"), Question("say no", "no")))
PLAN = LoadPlan(Closed(3), BodyPlan("fake"), requests=12)


async def made(plan: LoadPlan, asker: FakeAsker, workload: Questions | Chats = QUESTIONS) -> list[Record]:
    load = Load(asker, workload, plan, asker.clock)
    await load.run()
    assert load.under_way == 0
    return load.records


@pytest.mark.asyncio
async def test_a_closed_loop_keeps_as_many_requests_under_way_as_it_has_clients() -> None:
    asker = FakeAsker(VirtualClock())
    records = await made(PLAN, asker)
    assert sorted(at for at, _ in asker.asked) == [0.0] * 3 + [1.0] * 3 + [2.0] * 3 + [3.0] * 3
    assert {record.client for record in records} == {0, 1, 2}
    assert {record.seconds for record in records} == {1.0}


@pytest.mark.parametrize("arrivals", [Poisson(5.0), Gamma(5.0, 0.3), Ramp(1.0, 9.0, 5.0)])
@pytest.mark.asyncio
async def test_an_open_loop_does_not_wait_for_answers(arrivals: Poisson | Gamma | Ramp) -> None:
    asker = FakeAsker(VirtualClock(), seconds=1000.0)
    records = await made(replace(PLAN, arrivals=arrivals, requests=50), asker)
    assert len(records) == 50
    assert max(at for at, _ in asker.asked) < 100.0
    assert all(record.sent == pytest.approx(record.due) and record.client == -1 for record in records)


@pytest.mark.asyncio
async def test_after_the_time_is_over_nothing_begins_and_all_that_began_ends() -> None:
    asker = FakeAsker(VirtualClock(), seconds=3.0)
    records = await made(replace(PLAN, requests=None, seconds=10.0), asker)
    assert [record.due for record in records] == [0.0] * 3 + [3.0] * 3 + [6.0] * 3 + [9.0] * 3
    assert max(record.end for record in records) == 12.0


@pytest.mark.asyncio
async def test_a_seed_repeats_the_load() -> None:
    plan = replace(PLAN, arrivals=Poisson(3.0), requests=20)
    first, again, other = FakeAsker(VirtualClock()), FakeAsker(VirtualClock()), FakeAsker(VirtualClock())
    await made(plan, first)
    await made(plan, again)
    await made(replace(plan, seed=1), other)
    assert first.asked == again.asked
    assert first.asked != other.asked


@pytest.mark.asyncio
async def test_a_refusal_is_tried_again_when_the_server_says() -> None:
    asker = FakeAsker(VirtualClock(), refusals=2)
    (record,) = await made(replace(PLAN, requests=1, retries=2), asker)
    assert [at for at, _ in asker.asked] == [0.0, 2.0, 4.0]
    assert (record.answered, record.refusals, record.began, record.sent) == (True, 2, 0.0, 4.0)
    assert record.seconds == 5.0


@pytest.mark.asyncio
async def test_a_refusal_that_names_no_time_is_tried_again_ever_later() -> None:
    asker = FakeAsker(VirtualClock(), refusals=3, retry_after=None)
    await made(replace(PLAN, requests=1, retries=3), asker)
    assert [at for at, _ in asker.asked] == [0.0, 0.5, 1.5, 3.5]


@pytest.mark.asyncio
async def test_without_retries_a_refusal_is_a_failure() -> None:
    (record,) = await made(replace(PLAN, requests=1), FakeAsker(VirtualClock(), refusals=1))
    assert (record.error, record.refusals, record.correct) == ("status 429", 1, None)


@pytest.mark.asyncio
async def test_answers_are_judged() -> None:
    records = await made(PLAN, FakeAsker(VirtualClock()))
    assert {(record.label, record.correct) for record in records} == {("say", True), ("say", False)}


@pytest.mark.asyncio
async def test_a_chat_tells_what_was_said_before_and_thinks_between_turns() -> None:
    asker = FakeAsker(VirtualClock())
    chats = Chats(3, 40, Length("fixed", (30,)), Length("fixed", (8,)), think_seconds=10.0, seed=0)
    records = await made(replace(PLAN, requests=1), asker, chats)
    assert [at for at, _ in asker.asked] == [0.0, 11.0, 22.0]
    assert [record.turn for record in records] == [0, 1, 2]
    roles = [message["role"] for message in asker.asked[-1][1]["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]


@pytest.mark.asyncio
async def test_a_chat_ends_with_a_turn_that_fails() -> None:
    chats = Chats(3, 40, Length("fixed", (30,)), Length("fixed", (8,)), think_seconds=0.0, seed=0)
    records = await made(replace(PLAN, requests=1), FakeAsker(VirtualClock(), refusals=1), chats)
    assert [record.answered for record in records] == [False]


@pytest.mark.asyncio
async def test_an_interrupted_load_keeps_what_was_answered() -> None:
    clock = VirtualClock()
    load = Load(FakeAsker(clock), QUESTIONS, replace(PLAN, requests=None), clock)

    def stop(record: Record) -> None:
        if len(load.records) == 9:
            running.cancel()

    load.on_record = stop
    running = asyncio.create_task(load.run())
    await running
    assert load.interrupted
    assert len(load.records) >= 9


def test_bodies_hold_no_field_of_easels_unless_asked() -> None:
    said = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"})
    plain = BodyPlan("m").body(said, 8, Random(0))
    assert set(plain) == {"model", "messages", "max_tokens", "temperature", "stream", "stream_options"}
    spare = BodyPlan("m", Endpoint.COMPLETIONS, temperature=None, usage=False, extra={"top_k": 1})
    assert spare.body(said, None, Random(0)) == {
        "model": "m",
        "prompt": "be brief\nhi",
        "stream": True,
        "top_k": 1,
    }
    easel = BodyPlan("m", thresholds=(0.5, 1.0))
    assert {easel.body(said, 8, Random(seed))["diffusion"]["threshold"] for seed in range(9)} == {0.5, 1.0}
