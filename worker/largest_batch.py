"""The largest forward that a replica's limits allow, which its workspace is sized for."""

from dataclasses import dataclass

from easel.kernels.attention import CAUSAL_TILE
from easel.scheduler.messages import ReplicaShape
from easel.scheduler.phase import SequenceLayout
from easel.scheduler.window import longest_write


@dataclass(frozen=True, slots=True)
class LargestBatch:
    """The most that one forward can hold."""

    tokens: int
    canvases: int
    block: int
    page_size: int
    rows: int
    longest_prefix: int  # tokens that one row can see
    prefixes: int  # tokens that all canvases can see; of a page that several share, each counts its own
    longest_causal: int  # queries of the longest causal row; 0: there are none
    causal_tokens: int  # queries of all causal rows
    tiles: int = 0  # rows that causal ones are cut into in batch-invariant mode

    @classmethod
    def of(cls, shape: ReplicaShape) -> "LargestBatch":
        """All slots' canvases, as many commits as may be, and the refresh quota; or whole sequences."""
        block, pool = shape.block_length, shape.pages * shape.page_size
        canvases, longest = shape.slots * block, min(shape.max_model_tokens, pool)
        if shape.layout is SequenceLayout.BIDIRECTIONAL:
            whole = min(shape.slots * (shape.max_model_tokens + block), pool + canvases)
            return cls(whole, shape.slots, block, shape.page_size, shape.slots, longest, whole, 0, 0)
        quota, rows, causal = max(shape.refresh_limit, block), 2 * shape.slots, 0
        written = min(shape.slots, shape.commit_limit) * block + quota
        if shape.layout is SequenceLayout.CAUSAL:
            write = longest_write(shape.page_size, block) if shape.window else quota
            causal = max(block, min(quota, write))
        else:
            rows += -(-quota // block)  # each block of a chunk is a row of its own
        return cls(
            tokens=canvases + written,
            canvases=shape.slots,
            block=block,
            page_size=shape.page_size,
            rows=rows,
            longest_prefix=longest,
            prefixes=min(shape.slots * longest, pool),
            longest_causal=causal,
            causal_tokens=written if causal else 0,
            tiles=written // CAUSAL_TILE + rows if causal else 0,
        )

    def keys(self, window: int | None) -> int:
        """That one row sees at most, its own included; rounded up generously, to a power of two of pages."""
        seen = self.longest_prefix if window is None else min(self.longest_prefix, window)
        pages = -(-seen // self.page_size)
        padded = self.page_size * (1 << (pages - 1).bit_length()) if pages else 0
        # A causal row's first and last tile may reach beyond what its queries see.
        return padded + max(self.block, self.longest_causal) + (2 * CAUSAL_TILE if self.tiles else 0)
