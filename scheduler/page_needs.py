"""How many pages a request comes to need, which depends on who attends to whom."""

from easel.scheduler.phase import SequenceLayout


def pages_needed(
    layout: SequenceLayout, prompt_tokens: int, max_tokens: int, block_length: int, page_size: int
) -> int:
    """Pages for everything that is ever written for a request.

    A bidirectional sequence is promised pages for all of it even if every step is exact and none
    is written: so the sequences that run at once, and with them a forward's memory, are bounded.
    """
    aligned = layout is SequenceLayout.BLOCK_CAUSAL
    origin = prompt_tokens // block_length * block_length if aligned else prompt_tokens
    output = prompt_tokens + max_tokens - origin
    if layout.shares_prefix:
        # The last block is never committed, so it needs no page.
        written = origin + (output - 1) // block_length * block_length
    else:
        written = span_of(prompt_tokens, max_tokens, block_length)
    return -(-written // page_size)


def span_of(prompt_tokens: int, max_tokens: int, block_length: int) -> int:
    """Tokens of a bidirectional sequence: the prompt, and whole blocks for the output."""
    return prompt_tokens - (-max_tokens // block_length) * block_length
