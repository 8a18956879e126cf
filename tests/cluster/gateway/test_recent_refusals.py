"""What was refused a moment ago is refused again without asking anybody, and only that."""

from dataclasses import dataclass, field
from itertools import chain, repeat

import pytest

from easel.cluster.gateway.recent_refusals import HOLD_SECONDS, RecentRefusals
from easel.cluster.gateway.tenancy import Terms
from easel.scheduler.errors import DeadlineImpossible, QueueFull, Refused, TenantLimit
from easel.scheduler.request import Priority
from tests.cluster.gateway.fakes import CHAT, MODEL, FakeBackend, gateway_app, post, saying

BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
DEADLINE = {"x-easel-deadline-ms": "2000"}
LATE, FULL = DeadlineImpossible(9.0, 2.0, 7.0), QueueFull(9, 9, 1.0)


def terms(tenant: str = "a", deadline: float | None = 2.0, priority: Priority = Priority.STANDARD) -> Terms:
    return Terms(tenant, priority, deadline)


@dataclass(slots=True)
class World:
    now: float = 50.0
    refusals: RecentRefusals = field(init=False)

    def __post_init__(self) -> None:
        self.refusals = RecentRefusals(lambda: self.now)

    def refuses(self, asked: Terms, max_tokens: int | None = 64) -> bool:
        try:
            self.refusals.check(asked, max_tokens)
        except Refused:
            return True
        return False


@pytest.mark.parametrize(
    ("asked", "max_tokens", "refused"),
    [
        (terms(), 64, True),
        (terms(deadline=1.0), 64, True),
        (terms(), 65, True),
        (terms(), None, True),
        (terms(deadline=2.1), 64, False),
        (terms(deadline=None), 64, False),
        (terms(), 63, False),
        (terms("b"), 64, False),
        (terms(priority=Priority.INTERACTIVE), 64, False),
    ],
)
def test_who_asks_for_as_much_on_the_same_terms_is_told_the_same(
    asked: Terms, max_tokens: int | None, refused: bool
) -> None:
    world = World()
    world.refusals.note(LATE, terms(), 64)
    assert world.refuses(asked, max_tokens) is refused


def test_a_full_queue_is_full_for_everybody() -> None:
    world = World()
    world.refusals.note(FULL, terms(), 64)
    assert world.refuses(terms("b", None, Priority.INTERACTIVE), 1)


def test_a_tenants_own_limit_is_asked_for_every_time() -> None:
    world = World()
    world.refusals.note(TenantLimit("a", "requests", 1, 1.0), terms(), 64)
    assert not world.refuses(terms())


def test_a_refusal_holds_for_a_moment_only() -> None:
    world = World()
    world.refusals.note(LATE, terms(), 64)
    world.now += HOLD_SECONDS
    assert not world.refuses(terms())


@pytest.mark.asyncio
async def test_the_scheduler_is_not_asked_again_at_once_but_soon_after() -> None:
    now = [50.0]
    backend = FakeBackend(
        lambda request: [LATE] if len(backend.requests) < 2 else saying("x").script(request)
    )
    app = gateway_app(backend, clock=lambda: now[0])
    first, second = [await post(app, CHAT, BODY, **DEADLINE) for _ in range(2)]
    assert (first.status_code, second.status_code, len(backend.requests)) == (429, 429, 1)
    assert second.headers["retry-after"] == first.headers["retry-after"]
    assert second.json() == first.json()
    now[0] += HOLD_SECONDS
    assert (await post(app, CHAT, BODY, **DEADLINE)).status_code == 200


@pytest.mark.asyncio
async def test_what_a_request_waited_for_this_process_is_taken_off_its_deadline() -> None:
    times = chain([50.0], repeat(50.5))
    backend = saying("x")
    await post(gateway_app(backend, clock=lambda: next(times)), CHAT, BODY, **DEADLINE)
    assert backend.requests[0].deadline_seconds == pytest.approx(1.5)
