"""For those who want to know where a request has been."""

from typing import Protocol


class PlacementWatch(Protocol):
    """Hears where a request is sent, and how it leaves. Must return at once, and never raise."""

    def placed(self, request_id: str, replica_id: str, attempt: int) -> None:
        """A replica was found; the first attempt is 1."""
        ...

    def left(self, request_id: str, replica_id: str, how: str) -> None:
        """It goes on elsewhere: `how` is replica_lost, handed_over or refused."""
        ...


class Unwatched:
    """Nobody wants to know."""

    def placed(self, request_id: str, replica_id: str, attempt: int) -> None:
        pass

    def left(self, request_id: str, replica_id: str, how: str) -> None:
        pass
