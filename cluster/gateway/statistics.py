"""`usage` and the `diffusion` object: what a response cost and how its canvases settled."""

import math
from collections.abc import Sequence
from itertools import pairwise

from easel.cluster.gateway.choice import CanvasDelta, Choice
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.scheduler.messages import BlockEvent

Json = dict[str, object]


def usage_of(choices: Sequence[Choice], choices_per_prompt: int, seen: Sequence[int] | None = None) -> Json:
    """Tokens, as OpenAI counts them: a prompt once, however many choices it has.

    `seen` are the blocks of each choice that count; all of them by default.
    """
    prompts = choices[::choices_per_prompt]
    prompt_tokens = sum(len(choice.request.prompt) for choice in prompts)
    counts = [len(choice.events) for choice in choices] if seen is None else seen
    output_tokens = sum(
        len(event.tokens)
        for choice, count in zip(choices, counts, strict=True)
        for event in choice.events[:count]
    )
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(_cached_tokens(choice) for choice in prompts)},
    }


def diffusion_of(choices: Sequence[Choice], seed: int) -> Json:
    """Sums over all choices; `prefill_ms` and `queue_ms` are the slowest choice's.

    A step of a canvas is one forward, and its commit rides along with another, so forwards are
    steps; those that only prefilled a long prompt are in `prefill_ms`. The same forward may
    serve other requests too. `resumed` blocks came from the journal, computed for an earlier
    connection or through another gateway.
    """
    events = [event for choice in choices for event in choice.events]
    steps = sum(event.steps for event in events)
    tokens = sum(len(event.tokens) for event in events)
    return {
        "blocks": len(events),
        "steps": steps,
        "forwards": steps,
        "tokens_per_forward": round(tokens / max(steps, 1), 3),
        "ms_per_step": ms_of(sum(event.seconds for event in events) / max(steps, 1)),
        "prefill_ms": ms_of(max((event.prefill_seconds for event in events), default=0.0)),
        "queue_ms": ms_of(max((event.queue_seconds for event in events), default=0.0)),
        "cached_tokens": sum(_cached_tokens(choice) for choice in choices),
        "tightened_blocks": sum(event.tightened for event in events),
        "preemptions": sum(_preemptions(choice) for choice in choices),
        "resumed": sum(choice.resumed for choice in choices),
        "seed": seed,
        "finish": [block_of(choice.index, event) for choice in choices for event in choice.events],
    }


def canvas_of(delta: CanvasDelta, tokenizer: ChatTokenizer) -> Json:
    """The canvas after one step, as a client draws it."""
    snapshot = delta.snapshot
    return {
        "choice": delta.choice,
        "block": snapshot.block_index,
        "step": snapshot.step,
        "first": snapshot.first,
        "tokens": [tokenizer.piece(token) for token in snapshot.tokens],
        "decided": list(snapshot.decided),
        "confidence": [_finite(value) for value in snapshot.confidence],
        "seconds": round(delta.seconds, 6),
    }


def _cached_tokens(choice: Choice) -> int:
    return max((event.cached_tokens for event in choice.events), default=0)


def _preemptions(choice: Choice) -> int:
    """Events carry a count that begins anew with each replica."""
    counts = [0, *(event.preemptions for event in choice.events)]
    return sum(now - before if now >= before else now for before, now in pairwise(counts))


def block_of(choice: int, event: BlockEvent) -> Json:
    """One committed block in figures."""
    return {
        "choice": choice,
        "block": event.block_index,
        "steps": event.steps,
        "tokens": len(event.tokens),
        "mean_entropy": _finite(event.mean_entropy),
        "ms": ms_of(event.seconds),
    }


def ms_of(seconds: float) -> float:
    """Milliseconds, to the microsecond."""
    return round(seconds * 1000, 3)


def _finite(value: float) -> float | None:
    """JSON has no NaN; a block with nothing left to decide has no mean entropy."""
    return round(value, 4) if math.isfinite(value) else None
