"""What a finished block means for its request: which tokens are new, and whether it ends."""

from collections.abc import Set

from easel.scheduler.errors import BrokenBooks
from easel.scheduler.life import RequestState
from easel.scheduler.messages import BlockEvent, CanvasResult
from easel.scheduler.request import FinishReason


def new_tokens(
    state: RequestState, block: tuple[int, ...], eos: Set[int]
) -> tuple[tuple[int, ...], FinishReason | None]:
    """The block's output tokens, up to end-of-sequence and max_tokens, and why the request ends.

    An end-of-sequence beyond max_tokens is not seen: the reason is LENGTH then.
    """
    tokens = block[state.known : state.limit]
    for index, token in enumerate(tokens):
        if token in eos:
            return tokens[:index], FinishReason.STOP
    ended = state.canvas_start + state.limit == state.request.total_tokens
    return tokens, FinishReason.LENGTH if ended else None


def event_of(state: RequestState, result: CanvasResult, eos: Set[int], now: float) -> BlockEvent:
    """The event for a canvas that is done at time `now`; the state is left as it is."""
    if len(result.tokens) < state.limit:
        raise BrokenBooks(f"{len(result.tokens)} tokens for a block of which {state.limit} matter")
    tokens, finish = new_tokens(state, result.tokens, eos)
    return BlockEvent(
        request_id=state.request_id,
        block_index=state.block_index,
        tokens=tokens,
        steps=result.step,
        mean_entropy=state.entropy_sum / max(1, result.step),
        seconds=now - state.opened_at,
        finish=finish,
        cached_tokens=state.cached_tokens,
        queue_seconds=state.admitted_at - state.submitted_at,
        prefill_seconds=state.prefilled_at - state.admitted_at,
    )
