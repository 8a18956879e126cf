"""How many pages a request comes to need, which depends on who attends to whom."""

from easel.scheduler.phase import SequenceLayout


def pages_needed(
    layout: SequenceLayout,
    prompt_tokens: int,
    max_tokens: int,
    block_length: int,
    page_size: int,
    *,
    keeps: bool,
) -> int:
    """Pages for everything that is ever written for a request. `keeps`: it takes partial steps."""
    aligned = layout is SequenceLayout.BLOCK_CAUSAL
    origin = prompt_tokens // block_length * block_length if aligned else prompt_tokens
    output = prompt_tokens + max_tokens - origin
    if layout.shares_prefix:
        # The last block is never committed, so it needs no page.
        written = origin + (output - 1) // block_length * block_length
    else:
        written = span_of(prompt_tokens, max_tokens, block_length) if keeps else 0
    return -(-written // page_size)


def span_of(prompt_tokens: int, max_tokens: int, block_length: int) -> int:
    """Tokens of a bidirectional sequence: the prompt, and whole blocks for the output."""
    return prompt_tokens - (-max_tokens // block_length) * block_length
