"""Workspace on a GPU: its kernels read pages where they are, make no masks, and fuse what they can.

Numbers of one token are counted in elements of the forward's dtype, `h` being the hidden size, `q` and
`kv` the widths of all query and of all key heads.
"""

from easel.kernels.attention_layout import ROW_FIELDS
from easel.kernels.head import CHUNK_ELEMENTS
from easel.kernels.tiles import ROWS_ON_GPU
from easel.worker.anatomy import Anatomy, LayerAnatomy
from easel.worker.kv_cache import KVGroup
from easel.worker.largest_batch import LargestBatch
from easel.worker.models.mlp import FED_AT_ONCE

FLOAT32, INT32, INT64 = 4, 4, 8
COLUMNS = 12  # int64 columns of a batch: tokens, positions, roles, where keys are stored
ROUTER_COPIES = 6  # float32 [tokens, experts] alive while experts are chosen
PAIR_BYTES = 32  # of a token and one of its experts: their indices, sorted and unsorted, and the weight
DRAW_BYTES = 128  # of a position: random numbers in the making, statistics, the canvas's new content
TILE, TILE_BYTES = 256, 32  # tokens of the head's tiles, and what is kept of each and a position
SPAN_BYTES = 8 << 20  # weights of soft embeddings that are held at a time
SOFT_BYTES = 10  # of each number of a soft embedding in the making
LOGIT_BYTES = 64  # of each logit where whole distributions are needed


def gpu_workspace_bytes(
    anatomy: Anatomy, groups: tuple[KVGroup, ...], batch: LargestBatch, itemsize: int, *, float8: bool = False
) -> int:
    """An upper bound in bytes. With `float8` what a matrix multiplies is rounded to it first."""
    h, tokens = anatomy.hidden_size, batch.tokens
    positions = batch.canvases * batch.block
    angles = 2 * sum(group.head_dim for group in groups)
    whole = tokens * (COLUMNS * INT64 + angles * itemsize) + _tables(batch, len(groups))
    fed = min(tokens, FED_AT_ONCE)
    forward = max(
        max(
            tokens * (_attention(layer, anatomy, itemsize) + float8 * max(h, layer.heads * layer.head_dim)),
            # What the layer read, normalised and not, and what attention made of it.
            tokens * 3 * h * itemsize + fed * (_fed(layer, anatomy, itemsize) + float8 * max(h, layer.inner)),
        )
        for layer in anatomy.layers
    )
    if anatomy.conditioning:
        inner, at_once = anatomy.conditioning // (3 * h), min(positions, FED_AT_ONCE)
        forward = max(forward, (tokens * h + at_once * (4 * h + 3 * inner)) * itemsize)
        forward += positions * h * itemsize  # what the canvases are conditioned on
    # The hidden states of the last step are alive until this one's replace them.
    return whole + tokens * h * itemsize + max(forward, _head(anatomy, positions, itemsize))


def _tables(batch: LargestBatch, groups: int) -> int:
    """The rows of each KV group as the attention kernel reads them."""
    pages = 2 * (batch.prefixes // batch.page_size + batch.rows)
    pages += batch.tiles * (batch.longest_prefix // batch.page_size + 2)
    return groups * INT32 * ((batch.rows + batch.tiles) * len(ROW_FIELDS) + pages)


def _attention(layer: LayerAnatomy, anatomy: Anatomy, itemsize: int) -> int:
    """Bytes of a token: the layer's input and its norm, projections, queries, keys, values, the results."""
    h, q, kv = anatomy.hidden_size, layer.heads * layer.head_dim, layer.kv_heads * layer.head_dim
    if anatomy.conditioning:  # values are normalised too, and nothing of the projections is kept
        return (2 * h + max(2 * q + 4 * kv, 2 * q + 2 * kv + h)) * itemsize
    return (2 * h + 3 * q + 3 * kv + h) * itemsize


def _fed(layer: LayerAnatomy, anatomy: Anatomy, itemsize: int) -> int:
    """Bytes of a token that is fed to a layer's MLP: the residual sum, its norms, and what comes of them.

    That is the dense MLP's gate, up and product; the choice of experts; their products.
    """
    h = anatomy.hidden_size
    # Where experts work beside the MLP the sum has three norms, and the MLP's result waits for theirs.
    held = 5 * h * itemsize if anatomy.conditioning else 2 * h * itemsize
    dense = max(3 * layer.inner, 3 * h) * itemsize
    if not layer.experts:
        return held + dense
    router = 2 * h * itemsize + ROUTER_COPIES * FLOAT32 * layer.experts
    inner = layer.expert // (3 * h)
    # What goes in, what comes out, and in between.
    pair = max(2 * h + inner, h + 3 * inner) * itemsize + PAIR_BYTES
    return held + max(dense, router, layer.chosen * pair + h * itemsize)


def _head(anatomy: Anatomy, positions: int, itemsize: int) -> int:
    """Hidden states of canvases, twice, soft embeddings, and what one launch keeps of its positions."""
    h, vocabulary = anatomy.hidden_size, anatomy.vocab_size
    copies = 3 if anatomy.conditioning else 2
    rows, seen_whole = min(positions, ROWS_ON_GPU), min(positions, max(1, CHUNK_ELEMENTS // vocabulary))
    launch = rows * -(-vocabulary // TILE) * TILE_BYTES
    if anatomy.conditioning:
        launch += rows * h * SOFT_BYTES + min(SPAN_BYTES, rows * vocabulary * itemsize)
    kept = positions * (copies * h * itemsize + DRAW_BYTES)
    return kept + launch + seen_whole * vocabulary * LOGIT_BYTES
