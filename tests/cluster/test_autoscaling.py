"""The scheduler's load as a Serve autoscaling policy: it never waits, and keeps the number without news."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from easel.cluster.autoscaling import CentralPolicy, serve_autoscaling
from easel.cluster.config import load_config
from easel.cluster.errors import ConfigError, SchedulerLost
from easel.cluster.journal import JournalSettings
from easel.cluster.scheduler_actor import SchedulerActor
from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.central import ClusterLimits, ClusterScheduler
from easel.scheduler.fleet_load import FleetLoad, ReplicaLoad, fleet_load
from easel.scheduler.messages import ReplicaDigest
from tests.fakes import digest

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

BUSY = FleetLoad((ReplicaLoad("a", 20, 16, 0, 0.0),), waiting=100, wait_seconds=30.0)


@dataclass(slots=True)
class Questions:
    """What the policy asked, to be answered when a test says so."""

    asked: list[Future[FleetLoad]] = field(default_factory=list[Future[FleetLoad]])

    def ask(self) -> Future[FleetLoad]:
        self.asked.append(Future())
        return self.asked[-1]


class Controller:
    """Serve's controller: ten calls a second, and the number that came of them."""

    def __init__(self, **bounds: Any) -> None:
        self.questions = Questions()
        self.now = 100.0
        settings: dict[str, Any] = {"min_replicas": 1, "max_replicas": 4, "up_delay_seconds": 0.0} | bounds
        self.policy = CentralPolicy(self.questions.ask, lambda: self.now, **settings)
        self.target = 1

    def run(self, seconds: float, answer: FleetLoad | BaseException | None) -> None:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            context = cast("AutoscalingContext", SimpleNamespace(target_num_replicas=self.target))
            self.target, state = self.policy(context)
            assert state == {}
            if self.questions.asked and not self.questions.asked[-1].done() and answer is not None:
                self._answer(answer)

    def _answer(self, answer: FleetLoad | BaseException) -> None:
        if isinstance(answer, FleetLoad):
            self.questions.asked[-1].set_result(answer)
        else:
            self.questions.asked[-1].set_exception(answer)


def test_the_scheduler_is_asked_once_a_second_whatever_the_controllers_pace() -> None:
    controller = Controller()
    controller.run(10, BUSY)
    assert 9 <= len(controller.questions.asked) <= 11


def test_a_busy_cluster_gets_more_replicas() -> None:
    controller = Controller()
    controller.run(5, BUSY)
    assert controller.target == 2


@pytest.mark.parametrize("answer", [None, SchedulerLost(1.0)])
def test_while_the_scheduler_is_away_the_number_stays(answer: BaseException | None) -> None:
    controller = Controller()
    controller.run(5, BUSY)
    controller.run(6, answer)
    controller.target = 3  # as an operator may tell Serve
    controller.run(60, answer)
    assert controller.target == 3


def test_an_unanswered_question_is_asked_again() -> None:
    controller = Controller()
    controller.run(12, None)
    asked = len(controller.questions.asked)
    assert 2 <= asked <= 3
    controller.run(5, BUSY)
    assert controller.target == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's, when its Serve is imported
def test_serve_is_told_the_bounds_and_leaves_the_delays_to_the_policy() -> None:
    settings = {"enabled": True, "min_replicas": 2, "max_replicas": 6, "down_delay_seconds": 40}
    config = load_config(overrides={"model": "/models/one", "autoscaling": settings})
    told = serve_autoscaling(config.autoscaling)
    assert (told.min_replicas, told.max_replicas) == (2, 6)
    assert (told.upscale_delay_s, told.downscale_delay_s) == (0.0, 0.0)
    assert told.policy.policy_kwargs["down_delay_seconds"] == 40
    policy = cast(Any, told.policy.get_policy())(**told.policy.policy_kwargs)
    assert policy(SimpleNamespace(target_num_replicas=2)) == (2, {})


def test_bounds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"max_replicas \(1\) must not be less than min_replicas \(2\)"):
        load_config(overrides={"model": "/m", "autoscaling": {"min_replicas": 2, "max_replicas": 1}})


def test_the_number_of_replicas_is_fixed_unless_asked_otherwise() -> None:
    config = load_config(overrides={"model": "/m", "replicas": 3})
    assert (config.least_replicas, config.most_replicas) == (3, 3)


def scheduler_with(*digests: ReplicaDigest) -> tuple[ClusterScheduler, dict[str, ReplicaDigest]]:
    central = ClusterScheduler(ClusterLimits(target_seconds=0.05))
    for one in digests:
        central.on_digest(one, 0.0)
    return central, {one.replica_id: one for one in digests}


def test_a_replica_that_goes_offers_nothing_but_its_requests_count() -> None:
    central, digests = scheduler_with(digest("a", active=("r1",)), digest("b", active=("r2", "r3")))
    load = fleet_load(central, digests, {"b"}, 0.0)
    assert [one.replica_id for one in load.replicas] == ["a"]
    assert (load.moving, load.requests) == (2, 3)


def test_slots_beyond_the_target_of_a_step_do_not_count() -> None:
    central, digests = scheduler_with(digest("a"))
    assert fleet_load(central, digests, (), 0.0).replicas[0].canvases == 4
    central.limits = ClusterLimits(target_seconds=0.006)  # 5 ms and 0.44 ms a canvas
    assert fleet_load(central, digests, (), 0.0).replicas[0].canvases == 2


def test_who_waits_while_slots_are_free_waits_for_no_replica() -> None:
    central, digests = scheduler_with(digest("a"))
    central.admit(AdmissionTicket("waits", 8, 16), 0.0)
    assert fleet_load(central, digests, (), 0.0).wait_seconds == 0.0
    for number in range(9):
        central.admit(AdmissionTicket(f"r{number}", 8, 16), 0.0)
    assert fleet_load(central, digests, (), 0.0).wait_seconds > 0.0


@pytest.mark.asyncio
async def test_the_actor_says_what_there_is_to_do() -> None:
    actor = SchedulerActor(ClusterLimits(), JournalSettings(url="redis://127.0.0.1:1"))
    await actor.digest(digest("a", active=("r1", "r2")))
    load = await actor.fleet_load()
    await actor.close()
    assert [(one.replica_id, one.requests) for one in load.replicas] == [("a", 2)]
