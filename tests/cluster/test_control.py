"""A rolling restart: one replica at a time, each successor awaited."""

from dataclasses import dataclass, field

from easel.cluster.control import RollingRestart


@dataclass(slots=True)
class FakeCluster:
    """Replicas that come back under a new name two looks after their end, and requests that take three."""

    names: list[str] = field(default_factory=lambda: ["a", "b", "c"])
    log: list[str] = field(default_factory=list[str])
    running: int = 3
    coming: int = 0

    def replicas(self) -> list[str]:
        if len(self.names) < 3:
            self.coming += 1
            if self.coming == 2:
                self.names.append(f"new {len(self.log)}")
                self.coming = 0
        return list(self.names)

    def unfinished(self, replica_id: str | None = None) -> int:
        assert replica_id is not None
        self.running -= 1
        return self.running

    def drain(self, replica_id: str) -> None:
        self.running = 3
        self.log.append(f"drain {replica_id}")

    def end_replica(self, replica_id: str) -> None:
        assert self.running == 0
        assert len(self.names) == 3
        self.names.remove(replica_id)
        self.log.append(f"end {replica_id}")


def test_a_restart_takes_one_replica_after_the_other() -> None:
    cluster = FakeCluster()
    said: list[str] = []
    RollingRestart(cluster, 5.0, said.append, clock=lambda: 0.0, sleep=lambda _: None).run()
    assert cluster.log == ["drain a", "end a", "drain b", "end b", "drain c", "end c"]
    assert all(name.startswith("new") for name in cluster.names)
    assert said[-1] == "3 replicas were restarted"
