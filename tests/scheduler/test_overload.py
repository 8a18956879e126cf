"""Ten times more than the cluster can do: what is admitted is in time, the rest is told at once."""

from random import Random

import pytest

from easel.scheduler.admission import AdmissionTicket
from easel.scheduler.central import ClusterLimits, ClusterScheduler
from tests.scheduler.fake_cluster import FakeCluster, Outcome

CAPACITY = 160.0  # requests a second of two replicas, about
LIMITS = ClusterLimits(max_waiting=64, queue_ahead=1)


def _overload(deadlines: tuple[float | None, ...], times: float, seconds: float = 0.5) -> list[Outcome]:
    cluster = FakeCluster.of(ClusterScheduler(LIMITS), "xy")
    draw, waiting = Random(7), list[int]()

    def arrive(now: float) -> None:
        for _ in range(round(times * CAPACITY * 0.004)):
            number = len(cluster.outcomes)
            cluster.send(
                AdmissionTicket(
                    f"r{number}",
                    draw.randint(4, 40),
                    draw.randint(20, 60),
                    deadline_seconds=draw.choice(deadlines),
                )
            )
            waiting.append(cluster.central.waiting)

    cluster.run(seconds, arrive)
    cluster.run(0.8)
    assert max(waiting, default=0) <= LIMITS.max_waiting
    return list(cluster.outcomes.values())


@pytest.mark.parametrize("deadlines", [(0.2, 0.4, 0.8), (0.3, None)])
def test_who_is_admitted_under_tenfold_load_is_in_time(deadlines: tuple[float | None, ...]) -> None:
    outcomes = _overload(deadlines, times=10.0)
    promised = [o for o in outcomes if o.refused is None and o.ticket.deadline_seconds is not None]
    assert len(promised) > 60
    assert sum(o.in_time for o in promised) >= 0.98 * len(promised)
    refused = [o.refused for o in outcomes if o.refused is not None]
    assert len(refused) > 0.6 * len(outcomes)
    assert all(0.5 <= refusal.retry_after_seconds <= 60.0 for refusal in refused)


def test_nobody_is_refused_while_there_is_room() -> None:
    outcomes = _overload((0.3,), times=0.5)
    assert all(o.refused is None and o.in_time for o in outcomes)
