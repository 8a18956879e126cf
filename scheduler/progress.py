"""What a finished block means for its request: which tokens are new, and whether it ends."""

from easel.scheduler.errors import BrokenBooks
from easel.scheduler.life import RequestState
from easel.scheduler.messages import BlockEvent, CanvasResult
from easel.scheduler.request import FinishReason


def new_tokens(
    state: RequestState, block: tuple[int, ...], eos: frozenset[int]
) -> tuple[tuple[int, ...], FinishReason | None]:
    """The block's output tokens, up to end-of-sequence and max_tokens, and why the request ends.

    An end-of-sequence beyond max_tokens is not seen: the reason is LENGTH then.
    """
    tokens = block[state.known : state.limit]
    if not eos.isdisjoint(tokens):
        index = next(index for index, token in enumerate(tokens) if token in eos)
        return tokens[:index], FinishReason.STOP
    ended = state.canvas_start + state.limit == state.total_tokens
    return tokens, FinishReason.LENGTH if ended else None


def event_of(state: RequestState, result: CanvasResult, eos: frozenset[int], now: float) -> BlockEvent:
    """The event for a canvas that is done at time `now`; the state is left as it is."""
    if len(result.tokens) < state.limit:
        raise BrokenBooks(f"{len(result.tokens)} tokens for a block of which {state.limit} matter")
    tokens, finish = new_tokens(state, result.tokens, eos)
    return BlockEvent(
        request_id=state.request_id,
        block_index=state.block_index,
        tokens=tokens,
        steps=result.step,
        mean_entropy=result.entropy_sum / max(1, result.step),
        seconds=now - state.opened_at,
        finish=finish,
        cached_tokens=state.cached_tokens,
        queue_seconds=state.admitted_at - state.submitted_at,
        prefill_seconds=state.prefilled_at - state.admitted_at,
        tightened=state.tightened,
        preemptions=state.preemptions,
    )


def hand_over_event(state: RequestState) -> BlockEvent:
    """The last event of a request that this replica gives back: no block, and no tokens."""
    return BlockEvent(
        request_id=state.request_id,
        block_index=-1,
        tokens=(),
        steps=0,
        mean_entropy=0.0,
        seconds=0.0,
        finish=FinishReason.HANDED_OVER,
        cached_tokens=state.cached_tokens,
        preemptions=state.preemptions,
    )
