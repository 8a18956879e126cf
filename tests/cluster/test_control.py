"""A rolling restart: one replica at a time, each successor awaited."""

from dataclasses import dataclass, field
from functools import partial
from itertools import count

import pytest

from easel.cluster.control import RollingRestart


@dataclass(slots=True)
class FakeCluster:
    """Replicas that come back under a new name two looks after their end, and requests that take three."""

    names: list[str] = field(default_factory=lambda: ["a", "b", "c"])
    log: list[str] = field(default_factory=list[str])
    running: int = 3
    coming: int = 0
    mute: int = 0  # calls that are not answered
    mute_after_end: int = 0
    barren: bool = False  # nobody comes back

    def _answers(self) -> bool:
        self.mute -= 1
        return self.mute < 0

    def replicas(self) -> list[str] | None:
        if not self._answers():
            return None
        if len(self.names) < 3 and not self.barren:
            self.coming += 1
            if self.coming == 2:
                self.names.append(f"new {len(self.log)}")
                self.coming = 0
        return list(self.names)

    def unfinished(self, replica_id: str | None = None) -> int | None:
        assert replica_id is not None
        if not self._answers():
            return None
        self.running -= 1
        return self.running

    def drain(self, replica_id: str) -> bool:
        if not self._answers():
            return False
        self.running = 3
        self.log.append(f"drain {replica_id}")
        return True

    def end_replica(self, replica_id: str) -> None:
        assert self.running == 0
        assert len(self.names) == 3
        self.names.remove(replica_id)
        self.mute = self.mute_after_end
        self.log.append(f"end {replica_id}")


def restarted(cluster: FakeCluster) -> list[str]:
    """What was said; each look takes a second."""
    said: list[str] = []
    clock = partial(next, count(0.0))
    RollingRestart(cluster, 5.0, 8.0, said.append, clock, sleep=lambda _: None).run()
    return said


ALL_OF_THEM = ["drain a", "end a", "drain b", "end b", "drain c", "end c"]


@pytest.mark.parametrize("unanswered", [0, 1, 3])
def test_a_restart_takes_one_replica_after_the_other(unanswered: int) -> None:
    """Also while the scheduler starts anew and does not answer, which says nothing of its replicas."""
    cluster = FakeCluster(mute=unanswered, mute_after_end=unanswered)
    said = restarted(cluster)
    assert cluster.log == ALL_OF_THEM
    assert all(name.startswith("new") for name in cluster.names)
    assert said[-1] == "3 replicas were restarted"


def test_nothing_is_restarted_by_a_scheduler_that_never_answers() -> None:
    cluster = FakeCluster(mute=1000)
    assert "no replica was restarted" in restarted(cluster)[-1]
    assert cluster.log == []


def test_the_others_go_on_where_a_successor_does_not_come() -> None:
    cluster = FakeCluster(barren=True)
    said = restarted(cluster)
    assert cluster.log == ["drain a", "end a"]
    assert said[-1].startswith("0 of 3 replicas were restarted: the successor of a has not come within 8 s")
