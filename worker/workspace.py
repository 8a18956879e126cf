"""The most memory that one forward and its denoising step take beyond what is allocated for good.

A bound, not a prediction: each stage below is charged for the tensors that live at the same time in
it, at the largest batch there can be, and the dearest stage counts. docs/models.md has the formula.
"""

from dataclasses import dataclass

import torch

from easel.kernels.attention import GROUP_KEYS
from easel.kernels.attention_layout import JOINED_TOKENS
from easel.kernels.head import CHUNK_ELEMENTS
from easel.scheduler.messages import ReplicaShape
from easel.scheduler.phase import SequenceLayout
from easel.scheduler.window import longest_write
from easel.worker.anatomy import Anatomy, LayerAnatomy
from easel.worker.kv_cache import KVGroup

FLOAT32 = 4
INDEX = 8  # bytes of an int64
NORM_COPIES = 3  # float32 copies that normalising a narrower dtype makes
ROUTER_COPIES = 6  # float32 [tokens, experts] alive while experts are chosen
LOGIT_BYTES = 64  # of each logit of a chunk, drawing from a cut distribution included
SOFT_ROWS, SOFT_BYTES = 256, 10  # soft embeddings that are summed at a time, and bytes of each number
KEY_BYTES = 32  # of each visible key while a layout is made: its index, and what that is computed from


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

    @classmethod
    def of(cls, shape: ReplicaShape) -> "LargestBatch":
        """All slots' canvases, all their commits, and the refresh quota; or whole sequences."""
        block, pool = shape.block_length, shape.pages * shape.page_size
        canvases, longest = shape.slots * block, min(shape.max_model_tokens, pool)
        if shape.layout is SequenceLayout.BIDIRECTIONAL:
            whole = min(shape.slots * (shape.max_model_tokens + block), pool + canvases)
            return cls(whole, shape.slots, block, shape.page_size, shape.slots, longest, whole, 0, 0)
        quota, rows, causal = max(shape.refresh_limit, block), 2 * shape.slots, 0
        if shape.layout is SequenceLayout.CAUSAL:
            write = longest_write(shape.page_size, block) if shape.window else quota
            causal = max(block, min(quota, write))
        else:
            rows += -(-quota // block)  # each block of a chunk is a row of its own
        return cls(
            tokens=2 * canvases + quota,
            canvases=shape.slots,
            block=block,
            page_size=shape.page_size,
            rows=rows,
            longest_prefix=longest,
            prefixes=min(shape.slots * longest, pool),
            longest_causal=causal,
            causal_tokens=canvases + quota if causal else 0,
        )

    def keys(self, window: int | None) -> int:
        """That one row sees at most, its own included; rounded up generously, to a power of two of pages."""
        seen = self.longest_prefix if window is None else min(self.longest_prefix, window)
        pages = -(-seen // self.page_size)
        padded = self.page_size * (1 << (pages - 1).bit_length()) if pages else 0
        return padded + max(self.block, self.longest_causal)


def workspace_bytes(
    anatomy: Anatomy,
    groups: tuple[KVGroup, ...],
    shape: ReplicaShape,
    dtype: torch.dtype,
) -> int:
    """An upper bound in bytes, for forwards whose refresh work stays within the shape's limit."""
    batch = LargestBatch.of(shape)
    hidden = batch.tokens * anatomy.hidden_size * dtype.itemsize
    layouts = sum(_layout_bytes(batch, group) for group in groups)
    attention = max(_attention_bytes(batch, layer, dtype) for layer in anatomy.layers)
    mlp = max(_mlp_bytes(batch, layer, anatomy.hidden_size, dtype) for layer in anatomy.layers)
    return layouts + max(4 * hidden + max(attention, mlp), hidden + _head_bytes(batch, anatomy, dtype))


def _layout_bytes(batch: LargestBatch, group: KVGroup) -> int:
    """Indices and masks of one KV group, kept for the whole forward."""
    single = batch.keys(group.window)
    # Canvases, and as many rows that commit; a row is padded by no more than others may be longer.
    padding = 2 * JOINED_TOKENS + batch.block
    apart = min(batch.canvases * single, 2 * batch.prefixes + batch.canvases * padding)
    keys = 2 * apart + max(0, batch.rows - 2 * batch.canvases) * single
    return keys * KEY_BYTES + batch.causal_tokens * single


def _attention_bytes(batch: LargestBatch, layer: LayerAnatomy, dtype: torch.dtype) -> int:
    """Projections and their normalised and turned copies, then gathered keys, values and masks."""
    q, kv = layer.heads * layer.head_dim, layer.kv_heads * layer.head_dim
    norm = 0 if dtype.itemsize == FLOAT32 else NORM_COPIES * FLOAT32 * (q + kv)
    each = max((3 * (q + kv) + kv) * dtype.itemsize + norm, (2 * (q + kv) + kv + 3 * q) * dtype.itemsize)
    single = batch.keys(layer.window)
    most = max(GROUP_KEYS, single)
    keys = min(most, batch.rows * single)
    gathered = 2 * keys * kv * dtype.itemsize
    # A causal row's mask is repeated for the heads that share keys, then turned into numbers.
    repeated = min(batch.causal_tokens * single, batch.longest_causal * most) * (
        layer.heads // layer.kv_heads
    )
    masks = (keys + repeated) * (1 + dtype.itemsize)
    return batch.tokens * each + gathered + masks


def _mlp_bytes(batch: LargestBatch, layer: LayerAnatomy, hidden: int, dtype: torch.dtype) -> int:
    """The dense MLP's gate, up and product; with experts the choice, the sums, and the fullest expert."""
    each = 3 * layer.inner * dtype.itemsize
    if layer.experts:
        router = FLOAT32 * (ROUTER_COPIES * layer.experts + hidden)
        chosen = layer.chosen * (4 * INDEX + 2 * FLOAT32) + FLOAT32 * hidden
        inner = layer.expert // hidden  # gate, up and product of the expert that all tokens chose
        each += max(router, chosen + (2 * hidden + inner) * dtype.itemsize + FLOAT32 * hidden)
    norm = 0 if dtype.itemsize == FLOAT32 else NORM_COPIES * FLOAT32 * hidden
    return batch.tokens * max(each, norm)


def _head_bytes(batch: LargestBatch, anatomy: Anatomy, dtype: torch.dtype) -> int:
    """Canvases' hidden states, twice, what they are conditioned on, and a chunk of logits."""
    copies = 3 if anatomy.conditioning else 2
    tokens = batch.canvases * batch.block
    hidden = copies * tokens * anatomy.hidden_size * dtype.itemsize
    rows = min(tokens, max(1, CHUNK_ELEMENTS // anatomy.vocab_size))
    soft = min(tokens, SOFT_ROWS) * anatomy.hidden_size * SOFT_BYTES if anatomy.conditioning else 0
    return hidden + soft + rows * anatomy.vocab_size * LOGIT_BYTES
