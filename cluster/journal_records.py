"""What is written to the journal and read back, and its form as JSON."""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from easel.scheduler.messages import BlockEvent
from easel.scheduler.request import (
    CommitRule,
    DiffusionParams,
    FinishReason,
    Request,
    SamplingParams,
    Schedule,
)


@dataclass(frozen=True, slots=True)
class Admission:
    """A request was accepted."""

    request: Request

    @property
    def request_id(self) -> str:
        return self.request.request_id


@dataclass(frozen=True, slots=True)
class CommittedBlock:
    """An owner finished a block."""

    event: BlockEvent
    lease_epoch: int

    @property
    def request_id(self) -> str:
        return self.event.request_id


@dataclass(frozen=True, slots=True)
class Finished:
    """An owner ended a request."""

    request_id: str
    reason: FinishReason
    lease_epoch: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """An owner is still at work."""

    request_id: str
    lease_epoch: int


Record = Admission | CommittedBlock | Finished | Renewal


@dataclass(frozen=True, slots=True)
class Written:
    """What did not go as it should when records were written."""

    stale: tuple[Record, ...] = ()  # refused: the request has a newer owner
    forgotten: tuple[Record, ...] = ()  # written, but the journal does not know what came before them


@dataclass(frozen=True, slots=True)
class JournaledRequest:
    """All the journal knows of one request. `blocks` are in order and without gaps."""

    request: Request | None  # as first admitted, nothing committed; None: that is still on its way
    blocks: tuple[BlockEvent, ...]
    finish: FinishReason | None  # STOP and LENGTH only with the last block
    owner: str  # "": nobody, its lease has run out, or it was granted while the journal was away
    lease_epoch: int  # of the last lease, run out or not; 0: none


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """What any gateway needs to go on with an HTTP answer that another one began."""

    answer_id: str  # of the API: chatcmpl-…, cmpl-… or resp_…
    tenant: str
    fingerprint: str  # of the body it answers; an idempotency key may not be reused for another
    request_ids: tuple[str, ...]  # one for each choice, in the order of their index
    content: str  # JSON; the gateway's own
    background: bool = False  # somebody must drive it even if no client waits


class AnswerStatus(StrEnum):
    """How far an answer is."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer as the journal knows it. `driver` is the gateway that runs its requests, if one does."""

    record: AnswerRecord
    status: AnswerStatus
    driver: str  # "": nobody, or its lease has run out
    requests: tuple[JournaledRequest | None, ...]  # as `record.request_ids`; None: not there yet
    detail: str = ""  # why it failed


def encode(value: Request | BlockEvent | AnswerRecord) -> str:
    return json.dumps(asdict(value), separators=(",", ":"))


def decode_request(text: str) -> Request:
    fields: dict[str, Any] = json.loads(text)
    sampling = SamplingParams(**fields.pop("sampling"))
    diffusion: dict[str, Any] = fields.pop("diffusion")
    diffusion["commit_rule"] = CommitRule(diffusion["commit_rule"])
    diffusion["schedule"] = Schedule(diffusion["schedule"])
    fields["prompt"] = tuple(fields["prompt"])
    fields["committed"] = tuple(fields["committed"])
    return Request(**fields, sampling=sampling, diffusion=DiffusionParams(**diffusion))


def decode_block(text: str) -> BlockEvent:
    fields: dict[str, Any] = json.loads(text)
    fields["tokens"] = tuple(fields["tokens"])
    fields["finish"] = None if fields["finish"] is None else FinishReason(fields["finish"])
    return BlockEvent(**fields)


def decode_answer(text: str) -> AnswerRecord:
    fields: dict[str, Any] = json.loads(text)
    fields["request_ids"] = tuple(fields["request_ids"])
    return AnswerRecord(**fields)


def without_gaps(blocks: dict[int, BlockEvent]) -> tuple[BlockEvent, ...]:
    """The blocks from the first on, up to the first that is missing."""
    found: list[BlockEvent] = []
    while len(found) in blocks:
        found.append(blocks[len(found)])
    return tuple(found)
