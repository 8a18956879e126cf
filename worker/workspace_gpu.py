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

FLOAT32, INT32, INT64 = 4, 4, 8
COLUMNS = 8  # int64 columns of a batch: tokens, positions, roles, where keys are stored
NORM_COPIES = 3  # float32 copies that a decoder's norm of a narrower dtype makes
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
    # A layer's input, the residual sum, what is normalised and what comes of it; where experts work
    # beside the MLP, also what attention and the MLP came to.
    held = 5 if anatomy.conditioning else 4
    layers = max(
        max(
            3 * h * itemsize + _attention(layer, itemsize, fused_norms=anatomy.conditioning > 0),
            held * h * itemsize + _mlp(layer, h, itemsize),
        )
        + float8 * max(h, layer.inner, layer.heads * layer.head_dim)
        for layer in anatomy.layers
    )
    forward = tokens * layers
    if anatomy.conditioning:
        inner = anatomy.conditioning // (3 * h)
        forward = max(forward, (tokens * h + positions * (4 * h + 3 * inner)) * itemsize)
        forward += positions * h * itemsize  # what the canvases are conditioned on
    return whole + max(forward, tokens * h * itemsize + _head(anatomy, positions, itemsize))


def _tables(batch: LargestBatch, groups: int) -> int:
    """The rows of each KV group as the attention kernel reads them."""
    pages = 2 * (batch.prefixes // batch.page_size + batch.rows)
    return groups * INT32 * (batch.rows * len(ROW_FIELDS) + pages)


def _attention(layer: LayerAnatomy, itemsize: int, *, fused_norms: bool) -> int:
    """Bytes of a token: projections, normalised and turned copies, the result."""
    q, kv = layer.heads * layer.head_dim, layer.kv_heads * layer.head_dim
    # Projections, queries, keys, values and the result; before that, copies of what is stored.
    attended = max(3 * q + 4 * kv, 2 * q + 6 * kv) * itemsize
    if fused_norms:
        return attended
    turned = (7 * (q + kv) // 2 + kv) * itemsize  # where a part of each head is turned, it is joined again
    norm = 0 if itemsize == FLOAT32 else NORM_COPIES * FLOAT32 * (q + kv)
    return max(attended, turned, (3 * (q + kv) + kv) * itemsize + norm)


def _mlp(layer: LayerAnatomy, h: int, itemsize: int) -> int:
    """Bytes of a token: the dense MLP's gate, up and product; the choice of experts; their products."""
    dense = 3 * layer.inner * itemsize
    norm = 0 if itemsize == FLOAT32 else NORM_COPIES * FLOAT32 * h
    if not layer.experts:
        return max(dense, norm)
    router = 2 * h * itemsize + ROUTER_COPIES * FLOAT32 * layer.experts
    inner = layer.expert // (3 * h)
    pair = (2 * h + inner) * itemsize + PAIR_BYTES  # what goes in, what comes out, and in between
    return max(dense, norm, router, layer.chosen * pair + h * itemsize)


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
