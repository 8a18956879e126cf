"""What became of each request: everything that figures, reports and comparisons are made from."""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from easel.bench.harness.answers import BlockSeen, CanvasReport, Tokens

DIGITS = 6  # microseconds


@dataclass(frozen=True, slots=True)
class Record:
    """One request as its client saw it. Times are seconds since the load began."""

    number: int  # of the conversation, in the order of arrival
    turn: int
    label: str
    client: int  # of a closed loop; -1 in an open one
    due: float  # when it should have been sent
    began: float  # when it was first sent
    sent: float  # when it was last sent: later where it was refused before
    chunks: tuple[float, ...]  # when blocks arrived, or chunks of text where there are no blocks
    end: float
    max_tokens: int | None = None
    tokens: Tokens | None = None
    canvases: CanvasReport | None = None
    correct: bool | None = None  # None where nobody knows
    refusals: int = 0  # 429s on the way, the last one included
    error: str = ""  # the kind; "" of an answered one
    detail: str = ""

    @property
    def answered(self) -> bool:
        return not self.error

    @property
    def first_block_seconds(self) -> float:
        """From when it was due; of an answer without text, to its end."""
        return (self.chunks[0] if self.chunks else self.end) - self.due

    @property
    def gaps(self) -> tuple[float, ...]:
        """Seconds between one block and the next."""
        return tuple(later - sooner for sooner, later in pairwise(self.chunks))

    @property
    def seconds(self) -> float:
        """From when it was due to its end."""
        return self.end - self.due

    @property
    def late_seconds(self) -> float:
        """What the generator itself was late by."""
        return self.began - self.due

    def as_json(self) -> dict[str, Any]:
        """For a results file; times rounded to microseconds."""
        fields = asdict(self)
        for name in ("due", "began", "sent", "end"):
            fields[name] = round(fields[name], DIGITS)
        fields["chunks"] = [round(at, DIGITS) for at in self.chunks]
        return fields


def record_from(fields: dict[str, Any]) -> Record:
    """The inverse of `as_json`. Raises KeyError, TypeError or ValueError."""
    tokens, canvases = fields["tokens"], fields["canvases"]
    if canvases is not None:
        reported: dict[str, Any] = {
            **canvases,
            "blocks": tuple(BlockSeen(**block) for block in canvases["blocks"]),
        }
        canvases = CanvasReport(**reported)
    restored: dict[str, Any] = {
        "chunks": tuple(map(float, fields["chunks"])),
        "tokens": None if tokens is None else Tokens(**tokens),
        "canvases": canvases,
    }
    return Record(**{**fields, **restored})
