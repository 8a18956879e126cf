import pytest

from easel.bench.harness.events import Event, EventParser

STREAM = (
    "event: error\r\ndata: one\r\n\r\n: a comment\nid: 7\ndata: two\ndata: lines\n\ndata:näh\n\n\n".encode()
)
EVENTS = [Event("error", "one"), Event("message", "two\nlines"), Event("message", "näh")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_in_whatever_pieces_they_come(size: int) -> None:
    parser = EventParser()
    pieces = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS


def test_an_event_without_its_empty_line_is_not_there_yet() -> None:
    parser = EventParser()
    assert parser.feed(b"data: half\n") == []
    assert parser.feed(b"\n") == [Event("message", "half")]
