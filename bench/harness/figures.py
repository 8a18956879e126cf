"""Figures of a load: rates, latencies, canvases, errors."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from easel.bench.harness.records import Record
from easel.scheduler.sim_report import percentile


@dataclass(frozen=True, slots=True)
class Spread:
    """Of a number of seconds."""

    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Canvases:
    """What answers took in canvases, where the server says so."""

    blocks: int
    steps: int
    tokens: int
    steps_per_block: float
    tokens_per_forward: float  # a step of a canvas is one forward


@dataclass(frozen=True, slots=True)
class Figures:
    """Latencies are of answered requests, from when each was due."""

    requests: int
    answered: int
    errors: dict[str, int]  # kind -> requests
    refusals: int  # 429s, those that were tried again among them
    seconds: float
    requests_per_second: float  # answered
    prompt_tokens: int | None  # None: the server tells no usage
    output_tokens: int | None
    cached_tokens: int | None
    output_tokens_per_second: float | None
    first_block: Spread | None
    gap: Spread | None  # between blocks, or chunks of text where there are no blocks
    whole: Spread | None
    canvases: Canvases | None
    right: int  # of those judged
    judged: int


def spread_of(values: Iterable[float]) -> Spread | None:
    """None of no values."""
    ordered = sorted(values)
    if not ordered:
        return None
    mean = sum(ordered) / len(ordered)
    return Spread(mean, *(percentile(ordered, share) for share in (0.50, 0.90, 0.99)))


def seconds_of(records: Sequence[Record]) -> float:
    """From when the first request was due to the end of the last."""
    return max(record.end for record in records) - min(record.due for record in records) if records else 0.0


def figures_of(records: Sequence[Record], seconds: float) -> Figures:
    """Of a load, or a part of it, that took so long."""
    answered = [record for record in records if record.answered]
    tokens = [record.tokens for record in answered if record.tokens is not None]
    output = sum(one.output for one in tokens) if tokens else None
    judged = [record for record in answered if record.correct is not None]
    span = max(seconds, 1e-9)
    return Figures(
        requests=len(records),
        answered=len(answered),
        errors=dict(Counter(record.error for record in records if record.error)),
        refusals=sum(record.refusals for record in records),
        seconds=seconds,
        requests_per_second=len(answered) / span,
        prompt_tokens=sum(one.prompt for one in tokens) if tokens else None,
        output_tokens=output,
        cached_tokens=sum(one.cached for one in tokens) if tokens else None,
        output_tokens_per_second=None if output is None else output / span,
        first_block=spread_of(record.first_block_seconds for record in answered),
        gap=spread_of(gap for record in answered for gap in record.gaps),
        whole=spread_of(record.seconds for record in answered),
        canvases=canvases_of(answered),
        right=sum(bool(record.correct) for record in judged),
        judged=len(judged),
    )


def canvases_of(records: Iterable[Record]) -> Canvases | None:
    """None where no answer tells."""
    blocks = [block for record in records if record.canvases is not None for block in record.canvases.blocks]
    if not blocks:
        return None
    steps = sum(block.steps for block in blocks)
    tokens = sum(block.tokens for block in blocks)
    return Canvases(len(blocks), steps, tokens, steps / len(blocks), tokens / max(1, steps))


def by_label(records: Sequence[Record], seconds: float) -> dict[str, Figures]:
    """Figures per label, in the order of the alphabet; {} where there are not at least two."""
    labels = sorted({record.label for record in records})
    if len(labels) < 2:
        return {}
    return {
        label: figures_of([record for record in records if record.label == label], seconds)
        for label in labels
    }
