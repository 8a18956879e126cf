"""Server-sent events from bytes, in whatever pieces they come."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name (`message` where it has none) and its data."""

    name: str
    data: str


@dataclass(slots=True)
class EventParser:
    """Follows https://html.spec.whatwg.org/multipage/server-sent-events.html; ids are passed over."""

    _rest: bytes = b""
    _name: str = ""
    _data: list[str] = field(default_factory=list[str])

    def feed(self, piece: bytes) -> list[Event]:
        """The events that this piece completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [event for line in lines if (event := self._line(line)) is not None]

    def _line(self, line: bytes) -> Event | None:
        text = line.removesuffix(b"\r").decode(errors="replace")
        if not text:
            return self._flush()
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        return None

    def _flush(self) -> Event | None:
        event = Event(self._name or "message", "\n".join(self._data)) if self._data else None
        self._name, self._data = "", []
        return event
