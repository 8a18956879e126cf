"""Names by which a client comes back to an answer: event ids, idempotency keys, fingerprints of bodies."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request as HttpRequest

from easel.cluster.gateway.errors import InvalidField, shown
from easel.cluster.gateway.json_object import JsonObject
from easel.scheduler.request import MAX_SEED

EVENT_HEADER: Final = "Last-Event-ID"
KEY_HEADER: Final = "Idempotency-Key"
IDS_HEADER: Final = "X-Easel-Event-Ids"
MAX_KEY_CHARACTERS: Final = 255
NOT_OF_THE_ANSWER: Final = {"stream", "stream_options"}  # how it is delivered, not what it says
_EVENT: Final = re.compile(
    r"(?P<answer>[A-Za-z0-9_-]{1,80})/(?P<seen>[0-9]{1,6}(\.[0-9]{1,6}){0,1023})/(?P<seed>[0-9]{1,19})"
)
_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_KEY: Final = re.compile(rf"[\x20-\x7e]{{1,{MAX_KEY_CHARACTERS}}}")


@dataclass(frozen=True, slots=True)
class EventId:
    """The last event that a client has seen of a stream of choices.

    With the seed and the body the same answer can be made again, should the journal have forgotten it.
    """

    answer_id: str
    seen: tuple[int, ...]  # blocks of each choice, in the order of their index
    seed: int

    def __str__(self) -> str:
        return f"{self.answer_id}/{'.'.join(map(str, self.seen))}/{self.seed}"


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """One tenant's key for one route. Two gateways make the same id and the same seed of it."""

    tenant: str
    route: str
    key: str

    @property
    def answer_id(self) -> str:
        """Without the route's prefix; nobody can guess it who does not know tenant and key."""
        return self._digest.hex()[:32]

    @property
    def seed(self) -> int:
        """Of a body that names none, so that a repetition says the same even if the journal was away."""
        return int.from_bytes(self._digest[16:24], "big") & MAX_SEED

    @property
    def _digest(self) -> bytes:
        parts = json.dumps([self.tenant, self.route, self.key])
        return hashlib.sha256(parts.encode()).digest()


def last_event_of(http: HttpRequest) -> EventId | None:
    """What a stream of choices is to go on after. Raises InvalidField, which names the header."""
    text = http.headers.get(EVENT_HEADER)
    if text is None:
        return None
    match = _EVENT.fullmatch(text.strip())
    if match is None:
        raise InvalidField(EVENT_HEADER, f"is {shown(text)}; send an `id:` as it came with the stream.")
    seen = tuple(map(int, match["seen"].split(".")))
    return EventId(match["answer"], seen, min(int(match["seed"]), MAX_SEED))


def last_number_of(http: HttpRequest) -> int | None:
    """The sequence number that a response's events are to go on after. Raises InvalidField."""
    text = http.headers.get(EVENT_HEADER)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text.strip()):
        raise InvalidField(EVENT_HEADER, f"is {shown(text)}; send the last event's sequence_number.")
    return int(text)


def ids_wanted(http: HttpRequest) -> bool:
    """Whether chunks may carry an `id:`, which some load generators take for data. Raises InvalidField."""
    text = http.headers.get(IDS_HEADER, "on").strip().lower()
    if text not in ("on", "off"):
        raise InvalidField(IDS_HEADER, f"is {shown(text)}; it must be on or off.")
    return text == "on"


def key_of(http: HttpRequest, tenant: str, route: str) -> IdempotencyKey | None:
    """Raises InvalidField, which names the header."""
    text = http.headers.get(KEY_HEADER)
    if text is None:
        return None
    if not _KEY.fullmatch(text):
        problem = f"is {shown(text)}; it must be 1 to {MAX_KEY_CHARACTERS} printable ASCII characters."
        raise InvalidField(KEY_HEADER, problem)
    return IdempotencyKey(tenant, route, text)


def fingerprint_of(route: str, body: JsonObject) -> str:
    """Equal for bodies that ask for the same answer, whichever way it is to be delivered."""
    fields = body.model_dump(mode="json", exclude=NOT_OF_THE_ANSWER, exclude_none=True)
    text = json.dumps([route, fields], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
