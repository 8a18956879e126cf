"""How many worker replicas Ray Serve keeps: the central scheduler's view, as a Serve autoscaling policy.

Serve's own policy counts calls at its handles, which says nothing of canvases and prefill. This
one runs in Serve's controller, ten times a second, and must never wait there: it asks the scheduler
once in a while and looks at the answer when it has come. Without one the number stays as it is.
Serve stores the class with the deployment, by value, so a controller that was restarted has it.
Ray reads its environment when it is first imported, so it is imported where it is used.
"""
# ruff: noqa: PLC0415

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from easel.cluster.config_sections import AutoscalingSection
from easel.cluster.scheduler_actor import ACTOR_NAME, NAMESPACE
from easel.scheduler.fleet_load import FleetLoad
from easel.scheduler.scaling import ReplicaScaler, ScalingBounds

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingConfig, AutoscalingContext

POLL_SECONDS = 1.0
STALE_SECONDS = 5.0  # an answer that has not come by then will not

Ask = Callable[[], Future[FleetLoad]]


@dataclass(slots=True)
class LoadFeed:
    """Asks again and again, one question at a time, and never waits for an answer."""

    ask: Ask
    _asked_at: float = float("-inf")
    _heard_at: float = float("-inf")
    _question: Future[FleetLoad] | None = None

    def news(self, now: float) -> FleetLoad | None:
        """An answer that came since the last call, if any. Asks whenever it is time to."""
        news = self._answer()
        if news is not None:
            self._heard_at = now
        if self._question is not None and now - self._asked_at > STALE_SECONDS:
            self._question = None
        if self._question is None and now - self._asked_at >= POLL_SECONDS:
            self._asked_at = now
            self._question = self.ask()
        return news

    def is_stale(self, now: float) -> bool:
        """Whether nothing has been heard for so long that what was decided no longer counts."""
        return now - self._heard_at > STALE_SECONDS

    def _answer(self) -> FleetLoad | None:
        if self._question is None or not self._question.done():
            return None
        question, self._question = self._question, None
        return None if question.exception() is not None else question.result()


class CentralPolicy:
    """What Serve calls with its view of the worker deployment; its answer is the number to have."""

    def __init__(
        self, ask: Ask | None = None, clock: Callable[[], float] = time.monotonic, **bounds: Any
    ) -> None:
        """`bounds` are the fields of ScalingBounds; Serve passes them as it read them, from JSON."""
        self._scaler = ReplicaScaler(ScalingBounds(**bounds))
        self._feed = LoadFeed(ask if ask is not None else SchedulerLoad())
        self._clock = clock
        self._wanted: int | None = None

    def __call__(self, context: "AutoscalingContext") -> tuple[int, dict[str, Any]]:
        """The number of replicas, and nothing for Serve to remember."""
        now, current = self._clock(), context.target_num_replicas
        news = self._feed.news(now)
        if news is not None:
            self._wanted = self._scaler.decide(news, current, now)
        if self._wanted is None or self._feed.is_stale(now):
            self._wanted = None
            return current, {}
        return self._wanted, {}


class SchedulerLoad:
    """Asks the scheduler actor of this Ray cluster, and finds it again after it was replaced."""

    def __init__(self) -> None:
        self._actor: Any = None

    def __call__(self) -> Future[FleetLoad]:
        """Fails, in the future, while there is no scheduler."""
        import ray

        answer: Future[FleetLoad]
        try:
            if self._actor is None:
                self._actor = cast(Any, ray).get_actor(ACTOR_NAME, NAMESPACE)
            answer = self._actor.fleet_load.remote().future()
        except Exception as error:  # noqa: BLE001 whatever it is, Serve's controller has to go on
            answer = Future()
            answer.set_exception(error)
        answer.add_done_callback(self._forget_if_failed)
        return answer

    def _forget_if_failed(self, answer: Future[FleetLoad]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            self._actor = None


def serve_autoscaling(section: AutoscalingSection) -> "AutoscalingConfig":
    """The settings in Serve's form. Serve's delays are off: the policy has its own, over better figures."""
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    bounds = ScalingBounds(
        min_replicas=section.min_replicas,
        max_replicas=section.max_replicas,
        target_wait_seconds=section.target_wait_seconds,
        target_load=section.target_load,
        up_delay_seconds=section.up_delay_seconds,
        down_delay_seconds=section.down_delay_seconds,
    )
    policy = AutoscalingPolicy(
        policy_function=f"{__name__}:{CentralPolicy.__name__}", policy_kwargs=asdict(bounds)
    )
    return AutoscalingConfig(
        min_replicas=section.min_replicas,
        max_replicas=section.max_replicas,
        upscale_delay_s=0.0,
        downscale_delay_s=0.0,
        policy=policy,
    )
