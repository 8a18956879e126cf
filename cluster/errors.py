"""Errors of the cluster. All carry the offending values.

ClusterError
├── NoReplica          nobody can run the request now
├── ReplicaLost        the replica died, or left, with the request unfinished
│   └── ReplicaLeft    it is not one of the running ones any more, and takes no more requests
├── RetriesExhausted   the request's replica died too often
├── SchedulerLost      the central scheduler does not answer
├── Withdrawn          somebody else ended the wait for a replica, or waits in its place
├── StaleLease         another owner has taken the request over
├── JournalUnavailable Redis cannot be reached
├── ConfigError        a setting is wrong
├── MissingPackage     an optional package is not installed
├── PortTaken          something else listens where Easel should
└── StartFailed        a process of the cluster did not come up
"""


class ClusterError(Exception):
    """Root of the cluster's errors."""


class NoReplica(ClusterError):
    """No worker replica is alive, or none became free in time."""

    def __init__(self, waited_seconds: float) -> None:
        super().__init__(
            f"no worker replica could take the request within {waited_seconds:.1f} s; try again."
        )
        self.waited_seconds = waited_seconds

    def __reduce__(self) -> tuple[type["NoReplica"], tuple[float]]:
        return type(self), (self.waited_seconds,)


class ReplicaLost(ClusterError):
    """The replica died, or is no longer part of the cluster; the request goes on elsewhere."""

    def __init__(self, replica_id: str, reason: str) -> None:
        super().__init__(f"replica {replica_id} is lost ({reason}); its requests go on at another one.")
        self.replica_id = replica_id
        self.reason = reason

    def __reduce__(self) -> tuple[type["ReplicaLost"], tuple[str, str]]:
        return type(self), (self.replica_id, self.reason)


class ReplicaLeft(ReplicaLost):
    """The replica is being stopped, or has been; what still runs there may come to its end."""


class RetriesExhausted(ClusterError):
    """Each replica that ran the request died."""

    def __init__(self, request_id: str, attempts: int) -> None:
        super().__init__(f"request {request_id} lost its replica {attempts} times; try again later.")
        self.request_id = request_id
        self.attempts = attempts

    def __reduce__(self) -> tuple[type["RetriesExhausted"], tuple[str, int]]:
        return type(self), (self.request_id, self.attempts)


class SchedulerLost(ClusterError):
    """The central scheduler did not come back in time."""

    def __init__(self, waited_seconds: float) -> None:
        super().__init__(f"the central scheduler did not answer within {waited_seconds:.1f} s; try again.")
        self.waited_seconds = waited_seconds

    def __reduce__(self) -> tuple[type["SchedulerLost"], tuple[float]]:
        return type(self), (self.waited_seconds,)


class Withdrawn(ClusterError):
    """A request that waited for a replica was ended meanwhile, or somebody else waits in its place."""

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request {request_id} was ended, or placed anew, while it waited; try again.")
        self.request_id = request_id

    def __reduce__(self) -> tuple[type["Withdrawn"], tuple[str]]:
        return type(self), (self.request_id,)


class StaleLease(ClusterError):
    """A write was refused because the request has a newer owner."""

    def __init__(self, request_id: str, epoch: int) -> None:
        super().__init__(f"request {request_id} has an owner newer than epoch {epoch}; this one must stop.")
        self.request_id = request_id
        self.epoch = epoch

    def __reduce__(self) -> tuple[type["StaleLease"], tuple[str, int]]:
        return type(self), (self.request_id, self.epoch)


class JournalUnavailable(ClusterError):
    """Redis cannot be reached; work goes on, unprotected, until it is back."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"the journal at {url} cannot be reached ({reason}); check the Redis URL and server."
        )
        self.url = url
        self.reason = reason

    def __reduce__(self) -> tuple[type["JournalUnavailable"], tuple[str, str]]:
        return type(self), (self.url, self.reason)


class ConfigError(ClusterError):
    """A setting, from a file, the environment or the command line, is wrong."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"{source}: {problem}")
        self.source = source
        self.problem = problem

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, str]]:
        return type(self), (self.source, self.problem)


class MissingPackage(ClusterError):
    """Something that was asked for needs a package that Easel does without."""

    def __init__(self, package: str, purpose: str, remedy: str) -> None:
        super().__init__(f"{purpose} needs {package}, which is not installed; {remedy}.")
        self.package = package


class PortTaken(ClusterError):
    """Something else listens where Easel should."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"port {port} on {host} is in use; stop what listens there or choose another with --port."
        )
        self.host = host
        self.port = port


class StartFailed(ClusterError):
    """A process of the cluster did not come up; everything started so far has been stopped."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what} did not start: {reason}")
        self.what = what
        self.reason = reason
