"""The most memory that one forward and its denoising step take beyond what is allocated for good.

A bound, not a prediction: each stage below is charged for the tensors that live at the same time in
it, at the largest batch there can be, and the dearest stage counts. docs/models.md has the formulas.
Here are those of plain torch, which copies keys and makes masks; a GPU's are in worker/workspace_gpu.py.
"""

import torch

from easel.kernels.attention import GROUP_KEYS
from easel.kernels.attention_layout import JOINED_TOKENS
from easel.kernels.head import CHUNK_ELEMENTS
from easel.scheduler.messages import ReplicaShape
from easel.worker.anatomy import Anatomy, LayerAnatomy
from easel.worker.kv_cache import KVGroup
from easel.worker.largest_batch import LargestBatch
from easel.worker.models.mlp import FED_AT_ONCE
from easel.worker.workspace_gpu import gpu_workspace_bytes

FLOAT32 = 4
INDEX = 8  # bytes of an int64
NORM_COPIES = 3  # float32 copies that normalising a narrower dtype makes
ROUTER_COPIES = 6  # float32 [tokens, experts] alive while experts are chosen
LOGIT_BYTES = 64  # of each logit of a chunk, drawing from a cut distribution included
SOFT_ROWS, SOFT_BYTES = 256, 10  # soft embeddings that are summed at a time, and bytes of each number
KEY_BYTES = 32  # of each visible key while a layout is made: its index, and what that is computed from


def workspace_bytes(
    anatomy: Anatomy,
    groups: tuple[KVGroup, ...],
    shape: ReplicaShape,
    dtype: torch.dtype,
    device: torch.device,
    *,
    float8: bool = False,
) -> int:
    """An upper bound in bytes, for forwards that stay within the shape's limits.

    `float8`: whether matrices are kept in it.
    """
    batch = LargestBatch.of(shape)
    if device.type == "cuda":
        return gpu_workspace_bytes(anatomy, groups, batch, dtype.itemsize, float8=float8)
    hidden = batch.tokens * anatomy.hidden_size * dtype.itemsize
    layouts = sum(_layout_bytes(batch, group) for group in groups)
    attention = max(_attention_bytes(batch, layer, dtype) for layer in anatomy.layers)
    mlp = max(_mlp_bytes(layer, anatomy, dtype) for layer in anatomy.layers)
    fed = min(batch.tokens, FED_AT_ONCE) * mlp
    # What the last step left, what a layer reads, normalised and not, and what attention makes of it.
    return layouts + max(4 * hidden + max(attention, fed), hidden + _head_bytes(batch, anatomy, dtype))


def _layout_bytes(batch: LargestBatch, group: KVGroup) -> int:
    """Indices and masks of one KV group, kept for the whole forward."""
    single = batch.keys(group.window)
    # Canvases, and as many rows that commit; a row is padded by no more than others may be longer.
    padding = 2 * JOINED_TOKENS + batch.block
    apart = min(batch.canvases * single, 2 * batch.prefixes + batch.canvases * padding)
    keys = 2 * apart + (max(0, batch.rows - 2 * batch.canvases) + batch.tiles) * single
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


def _mlp_bytes(layer: LayerAnatomy, anatomy: Anatomy, dtype: torch.dtype) -> int:
    """Of a token that is fed to a layer's MLP: the residual sum and its norms, and what comes of them.

    That is the dense MLP's gate, up and product; with experts the choice, the sums, and the fullest expert.
    """
    hidden, each = anatomy.hidden_size, 3 * layer.inner * dtype.itemsize
    if layer.experts:
        router = FLOAT32 * (ROUTER_COPIES * layer.experts + hidden)
        chosen = layer.chosen * (4 * INDEX + 2 * FLOAT32) + FLOAT32 * hidden
        inner = layer.expert // hidden  # gate, up and product of the expert that all tokens chose
        each += max(router, chosen + (2 * hidden + inner) * dtype.itemsize + FLOAT32 * hidden)
    norm = 0 if dtype.itemsize == FLOAT32 else NORM_COPIES * FLOAT32 * hidden
    # Where experts work beside the MLP the sum has three norms, and the MLP's result waits for theirs.
    held, summed = (5, 7) if anatomy.conditioning else (2, 5)
    return max(held * hidden * dtype.itemsize + max(each, norm), summed * hidden * dtype.itemsize)


def _head_bytes(batch: LargestBatch, anatomy: Anatomy, dtype: torch.dtype) -> int:
    """Canvases' hidden states, twice, what they are conditioned on, and a chunk of logits."""
    copies = 3 if anatomy.conditioning else 2
    tokens = batch.canvases * batch.block
    hidden = copies * tokens * anatomy.hidden_size * dtype.itemsize
    rows = min(tokens, max(1, CHUNK_ELEMENTS // anatomy.vocab_size))
    soft = min(tokens, SOFT_ROWS) * anatomy.hidden_size * SOFT_BYTES if anatomy.conditioning else 0
    return hidden + soft + rows * anatomy.vocab_size * LOGIT_BYTES
