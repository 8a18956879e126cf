"""The kinds of work one forward can hold, and the phase each belongs to."""

from enum import Enum


class Phase(Enum):
    """Refresh rewrites cached state and is dense; reuse reads it and is light."""

    REFRESH = "refresh"
    REUSE = "reuse"


class RowKind(Enum):
    """What one row of a batch plan does."""

    PREFILL = "prefill"  # prompt chunk -> pages
    COMMIT = "commit"  # finished canvas -> pages
    OPEN = "open"  # first step of a canvas
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
