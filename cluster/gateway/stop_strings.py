"""Ends a text at the first stop string, wherever the pieces it arrives in are cut."""

from collections.abc import Sequence


class StopStrings:
    """Feed text, get what may be sent on.

    The stop string that ends first wins, and among those the longest, so the result does not
    depend on where blocks end. A tail that could still become a stop string is held back.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """The text that is certain to precede any stop string. Nothing once one was found."""
        if self.found:
            return ""
        pending = self._held + text
        matches = [(start + len(stop), start) for stop in self._stops if (start := pending.find(stop)) >= 0]
        if matches:
            self.found, self._held = True, ""
            return pending[: min(matches)[1]]
        cut = len(pending) - self._longest_beginning(pending)
        self._held = pending[cut:]
        return pending[:cut]

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _longest_beginning(self, text: str) -> int:
        """Length of the longest tail of `text` that begins a stop string."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
