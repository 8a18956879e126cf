"""`usage` and the `diffusion` object: what a response cost and how its canvases settled."""

import math
from collections.abc import Sequence
from itertools import pairwise

from easel.cluster.gateway.choice import CanvasDelta, Choice
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.scheduler.messages import BlockEvent

Json = dict[str, object]


def usage_of(choices: Sequence[Choice], choices_per_prompt: int) -> Json:
    """Tokens, as OpenAI counts them: a prompt once, however many choices it has."""
    prompts = choices[::choices_per_prompt]
    prompt_tokens = sum(len(choice.request.prompt) for choice in prompts)
    output_tokens = sum(len(event.tokens) for choice in choices for event in choice.events)
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
        "ms_per_step": _ms(sum(event.seconds for event in events) / max(steps, 1)),
        "prefill_ms": _ms(max((event.prefill_seconds for event in events), default=0.0)),
        "queue_ms": _ms(max((event.queue_seconds for event in events), default=0.0)),
        "cached_tokens": sum(_cached_tokens(choice) for choice in choices),
        "tightened_blocks": sum(event.tightened for event in events),
        "preemptions": sum(_preemptions(choice) for choice in choices),
        "resumed": sum(choice.resumed for choice in choices),
        "seed": seed,
        "finish": [_block(choice.index, event) for choice in choices for event in choice.events],
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
    }


def _cached_tokens(choice: Choice) -> int:
    return max((event.cached_tokens for event in choice.events), default=0)


def _preemptions(choice: Choice) -> int:
    """Events carry a count that begins anew with each replica."""
    counts = [0, *(event.preemptions for event in choice.events)]
    return sum(now - before if now >= before else now for before, now in pairwise(counts))


def _block(choice: int, event: BlockEvent) -> Json:
    return {
        "choice": choice,
        "block": event.block_index,
        "steps": event.steps,
        "tokens": len(event.tokens),
        "mean_entropy": _finite(event.mean_entropy),
        "ms": _ms(event.seconds),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _finite(value: float) -> float | None:
    """JSON has no NaN; a block with nothing left to decide has no mean entropy."""
    return round(value, 4) if math.isfinite(value) else None
