"""The kinds of work one forward can hold, and the phase each belongs to."""

from enum import Enum, StrEnum


class Phase(Enum):
    """Refresh rewrites cached state and is dense; reuse reads it and is light."""

    REFRESH = "refresh"
    REUSE = "reuse"


class RowKind(Enum):
    """What one row of a batch plan does."""

    PREFILL = "prefill"  # prompt chunk -> pages
    COMMIT = "commit"  # finished canvas -> pages
    OPEN = "open"  # first step of a canvas
    REBUILD = "rebuild"  # a later step that computes everything anew
    REUSE = "reuse"  # a later denoising step

    @property
    def phase(self) -> Phase:
        return Phase.REUSE if self is RowKind.REUSE else Phase.REFRESH

    @property
    def writes_pages(self) -> bool:
        """Whether the row's keys and values go to the prefix cache."""
        return self in (RowKind.PREFILL, RowKind.COMMIT)

    @property
    def needs_head(self) -> bool:
        """Whether the row's hidden states go through the output head."""
        return not self.writes_pages


class SequenceLayout(StrEnum):
    """Who attends to whom, and so where canvases begin and what of a sequence can be cached."""

    BLOCK_CAUSAL = "block_causal"  # blocks at multiples of their length; the prefix is exact and shared
    CAUSAL = "causal"  # canvases follow the prompt's last token; the prefix is exact and shared
    BIDIRECTIONAL = "bidirectional"  # all see all, masked positions to come included; nothing is exact

    @property
    def shares_prefix(self) -> bool:
        return self is not SequenceLayout.BIDIRECTIONAL
