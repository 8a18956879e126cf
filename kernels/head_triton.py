# pyright: basic, reportArgumentType=false, reportOperatorIssue=false
# ruff: noqa: PLR0913, PLR0917 (a kernel has as many arguments as it has tensors and sizes)
"""Statistics and draws of a softmax over the vocabulary in three Triton launches, logits in registers only.

The definition is `reference_row_stats`; the sums that are kept of each row and tile, and the draw in two
levels, are those of `tile_walk`. One launch covers (row block, tile), one merges a row's tiles and picks
one of them, one computes that tile of that row again and picks the token.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from easel.kernels.logits_triton import block_shape, gumbel, live, products, require_dense, shaped
from easel.kernels.tiles import Draw, Head, RowStats

TILE = 256  # tokens; narrow, since a drawn row reads its tile again
Partials = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
NOT_DRAWN, INVERSE_CDF, GUMBEL_MAX = (tl.constexpr(mode) for mode in range(3))


def tiled_row_stats(
    hidden: Tensor,
    head: Head,
    temperature: Tensor | None,
    draw: Draw | None,
    active: Tensor | None,
    out: RowStats,
    tile: int = TILE,
) -> None:
    """Write the statistics of the active rows to `out`; shapes as `row_stats` has them, all dense.

    Nothing waits for the device. Takes 32 bytes for each row and tile (20 without Gumbel noise).
    """
    rows, width = hidden.shape
    if not rows:
        return
    given = (hidden, head.weight, temperature, active, *out.columns())
    require_dense(*given, *(() if draw is None else (draw.temperature, draw.uniform, draw.keys)))
    tiles = triton.cdiv(head.vocabulary, tile)
    blocks = block_shape(hidden)
    mode = NOT_DRAWN if draw is None else INVERSE_CDF if draw.keys is None else GUMBEL_MAX
    heat, uniform, keys = (None, None, None) if draw is None else (draw.temperature, draw.uniform, draw.keys)
    partials = _partials(hidden, tiles, tiles if mode is GUMBEL_MAX else 0)
    # Fused multiplication and addition is the usual choice; triton 3.9 warns where it is not said.
    how, fused = {"forbidden": head.forbidden, "softcap": head.softcap}, {"enable_fp_fusion": True}
    _tile_stats[(triton.cdiv(rows, blocks["block_rows"]), tiles)](
        *(hidden, head.weight, temperature, heat, keys, active, *partials),
        *(rows, head.vocabulary, width, tiles),
        **(how | blocks | fused),
        mode=mode.value,
        tile=tile,
    )
    picked = torch.empty(rows, dtype=torch.int32, device=hidden.device)
    left, drawn_total = hidden.new_empty(2, rows, dtype=torch.float64)
    columns = (out.highest, out.best, out.total, out.entropy, out.token, out.probability, out.plain)
    _merge[(rows,)](
        *(*partials, heat, uniform, active, *columns, picked, left, drawn_total, tiles),
        padded=triton.next_power_of_2(tiles),
        mode=mode.value,
        **fused,
    )
    if mode is INVERSE_CDF:
        _place[(rows,)](
            *(hidden, head.weight, temperature, heat, active, picked, left, drawn_total),
            *(out.highest, out.total, out.token, out.probability, out.plain, head.vocabulary, width),
            **(how | fused),
            tile=tile,
            block_width=16,
        )


def _partials(hidden: Tensor, tiles: int, raced: int) -> Partials:
    """What the first launch leaves of each row and tile, in the order of its arguments."""
    rows = len(hidden)
    highest, total, weighted, mass = hidden.new_empty(4, rows, tiles, dtype=torch.float32)
    best = hidden.new_empty(rows, tiles, dtype=torch.int32)
    score, logit = hidden.new_empty(2, rows, raced, dtype=torch.float32)
    drawn = hidden.new_empty(rows, raced, dtype=torch.int32)
    return highest, total, weighted, mass, best, score, drawn, logit


@triton.jit
def _tile_stats(
    hidden, weight, temperature, heat, keys, active,
    highest, total, weighted, mass, best, score, drawn, drawn_logit,
    rows, vocabulary, width, tiles, forbidden, softcap: tl.constexpr, mode: tl.constexpr, tile: tl.constexpr,
    block_rows: tl.constexpr, block_tokens: tl.constexpr, block_width: tl.constexpr, widen: tl.constexpr,
):  # fmt: skip
    """One block of rows and one tile of tokens, whose blocks are merged as they come."""
    row = tl.program_id(0) * block_rows + tl.arange(0, block_rows)
    there = live(active, row, rows)
    if tl.max(there.to(tl.int32), 0) > 0:
        m = tl.full((block_rows,), float("-inf"), tl.float32)
        lead = tl.full((block_rows,), float("-inf"), tl.float32)
        z, w, tempered, lead_logit = tl.zeros_like(m), tl.zeros_like(m), tl.zeros_like(m), tl.zeros_like(m)
        top, leader = tl.zeros((block_rows,), tl.int32), tl.zeros((block_rows,), tl.int32)
        heated = _heat(heat, row, there, mode, block_rows)
        for start in range(0, tile, block_tokens):
            first = tl.program_id(1) * tile + start
            token = first + tl.arange(0, block_tokens)
            s = products(
                hidden, weight, row, there, token, vocabulary, width,
                block_rows, block_tokens, block_width, widen,
            )  # fmt: skip
            s = shaped(s, temperature, row, there, token, vocabulary, forbidden, softcap)
            top = tl.where(tl.max(s, 1) > m, first + tl.argmax(s, 1), top)
            if mode == GUMBEL_MAX:
                noisy = s / heated[:, None] + gumbel(keys, row, there, first, block_rows, block_tokens)
                at, best_noisy = tl.argmax(noisy, 1), tl.max(noisy, 1)
                logit = tl.where(token[None, :] == first + at[:, None], s, float("-inf"))
                lead_logit = tl.where(best_noisy > lead, tl.max(logit, 1), lead_logit)
                leader = tl.where(best_noisy > lead, first + at, leader)
                lead = tl.maximum(lead, best_noisy)
            m, z, w, tempered = _added(m, z, w, tempered, s, heated, mode)
        to = row * tiles + tl.program_id(1)
        tl.store(highest + to, m, mask=there)
        tl.store(total + to, z, mask=there)
        tl.store(weighted + to, w, mask=there)
        tl.store(best + to, top, mask=there)
        if mode:
            tl.store(mass + to, tempered, mask=there)
        if mode == GUMBEL_MAX:
            tl.store(score + to, lead, mask=there)
            tl.store(drawn + to, leader, mask=there)
            tl.store(drawn_logit + to, lead_logit, mask=there)


@triton.jit
def _added(m, z, w, tempered, s, heated, mode: tl.constexpr):
    """The sums of each row, relative to its highest logit m, with those of logits s [rows, tokens]."""
    leading = tl.maximum(m, tl.max(s, 1))
    # Where a row has met no token yet, nothing is to be rescaled: −∞ must not meet −∞.
    base = tl.where(leading == float("-inf"), 0.0, leading)
    step = tl.where(m == float("-inf"), 0.0, m - base)
    shifted = tl.where(s == float("-inf"), 0.0, s - base[:, None])
    e = tl.where(s == float("-inf"), 0.0, tl.exp(shifted))
    w = tl.exp(step) * (w + step * z) + tl.sum(e * shifted, 1)
    z = tl.exp(step) * z + tl.sum(e, 1)
    if mode:
        e = tl.where(s == float("-inf"), 0.0, tl.exp(shifted / heated[:, None]))
        tempered = tl.exp(step / heated) * tempered + tl.sum(e, 1)
    return leading, z, w, tempered


@triton.jit
def _heat(heat, row, there, mode: tl.constexpr, block_rows: tl.constexpr):
    """The draw's temperatures; 1 where none is drawn."""
    found = tl.full((block_rows,), 1.0, tl.float32)
    if mode:
        found = tl.load(heat + row, mask=there, other=1.0)
        found = tl.where(found > 0.0, found, 1.0)
    return found


@triton.jit
def _merge(
    highest, total, weighted, mass, best, score, drawn, drawn_logit, heat, uniform, active,
    out_highest, out_best, out_total, out_entropy, out_token, out_probability, out_plain,
    picked, left, drawn_total, tiles, padded: tl.constexpr, mode: tl.constexpr,
):  # fmt: skip
    """All tiles of one row, in float64; by inverse CDF the tile that its number falls into."""
    row = tl.program_id(0)
    if live(active, row, row + 1):
        tile = tl.arange(0, padded)
        at, there = row * tiles + tile, tile < tiles
        m = tl.load(highest + at, mask=there, other=float("-inf"))
        top = tl.max(m, 0)
        behind = tl.where(m == float("-inf"), 0.0, m - top).to(tl.float64)
        share = tl.where(m == float("-inf"), 0.0, tl.exp(behind))
        z = tl.load(total + at, mask=there, other=0.0)
        w = tl.load(weighted + at, mask=there, other=0.0)
        sum_z = tl.sum(share * z, 0)
        sum_w = tl.sum(share * (w + behind * z), 0)
        token = tl.load(best + row * tiles + tl.argmax(m, 0)).to(tl.int64)
        tl.store(out_highest + row, top)
        tl.store(out_best + row, token)
        tl.store(out_total + row, sum_z.to(tl.float32))
        tl.store(out_entropy + row, (tl.log(sum_z) - sum_w / sum_z).to(tl.float32))
        probability, plain = 1.0 / sum_z, 1.0 / sum_z
        if mode:
            heated = tl.load(heat + row)
            sampled = heated > 0.0
            heated = tl.where(sampled, heated, 1.0).to(tl.float64)
            each = tl.load(mass + at, mask=there, other=0.0)
            each = tl.where(m == float("-inf"), 0.0, tl.exp(behind / heated) * each)
            if mode == GUMBEL_MAX:
                lead = row * tiles + tl.argmax(tl.load(score + at, mask=there, other=float("-inf")), 0)
                ahead = (tl.load(drawn_logit + lead) - top).to(tl.float64)
                token = tl.where(sampled, tl.load(drawn + lead).to(tl.int64), token)
                probability = tl.where(sampled, tl.exp(ahead / heated) / tl.sum(each, 0), probability)
                plain = tl.where(sampled, tl.exp(ahead) / sum_z, plain)
            else:
                _pick(each, tile, there, tl.load(uniform + row), row, tiles, picked, left, drawn_total)
        tl.store(out_token + row, token)
        tl.store(out_probability + row, probability.to(tl.float32))
        tl.store(out_plain + row, plain.to(tl.float32))


@triton.jit
def _pick(each, tile, there, uniform, row, tiles, picked, left, drawn_total):
    """The tile whose masses `each` a number falls into, and where in it."""
    below = tl.cumsum(each, 0)
    whole = tl.max(below, 0)
    target = uniform * whole
    chosen = tl.minimum(tl.sum((there & (below <= target)).to(tl.int32), 0), tiles - 1)
    lower = tl.max(tl.where(tile < chosen, below, 0.0), 0)
    upper = tl.max(tl.where(tile == chosen, below, 0.0), 0)
    tl.store(picked + row, chosen)
    tl.store(left + row, (target - lower) / (upper - lower))
    tl.store(drawn_total + row, whole)


@triton.jit
def _place(
    hidden, weight, temperature, heat, active, picked, left, drawn_total,
    out_highest, out_total, out_token, out_probability, out_plain, vocabulary, width, forbidden,
    softcap: tl.constexpr, tile: tl.constexpr, block_width: tl.constexpr,
):  # fmt: skip
    """One row's picked tile again: the first token whose cumulated mass exceeds the share that is left."""
    row = tl.program_id(0)
    heated = tl.load(heat + row)
    if live(active, row, row + 1) & (heated > 0.0):
        place = tl.arange(0, tile)
        token = tl.load(picked + row) * tile + place
        s = tl.zeros((tile,), tl.float32)
        for start in range(0, width, block_width):
            column = start + tl.arange(0, block_width)
            in_width = column < width
            x = tl.load(hidden + row.to(tl.int64) * width + column, mask=in_width, other=0.0)
            w = tl.load(
                weight + token.to(tl.int64)[:, None] * width + column[None, :],
                mask=(token < vocabulary)[:, None] & in_width[None, :],
                other=0.0,
            )
            s += tl.sum(x.to(tl.float32)[None, :] * w.to(tl.float32), 1)
        rows = row + tl.zeros((1,), tl.int32)
        s = tl.reshape(
            shaped(s[None, :], temperature, rows, rows >= 0, token, vocabulary, forbidden, softcap), (tile,)
        )
        shifted = tl.where(s == float("-inf"), 0.0, s - tl.max(s, 0))
        e = tl.where(s == float("-inf"), 0.0, tl.exp(shifted / heated)).to(tl.float64)
        below = tl.cumsum(e, 0)
        target = tl.minimum(tl.load(left + row), 1.0 - 1.0 / 9007199254740992.0) * tl.max(below, 0)
        chosen = tl.minimum(tl.sum((below <= target).to(tl.int32), 0), tile - 1)
        ahead = tl.max(tl.where(place == chosen, s, float("-inf")), 0) - tl.load(out_highest + row)
        ahead = ahead.to(tl.float64)
        tl.store(out_token + row, (tl.load(picked + row) * tile + chosen).to(tl.int64))
        tl.store(out_probability + row, (tl.exp(ahead / heated) / tl.load(drawn_total + row)).to(tl.float32))
        tl.store(out_plain + row, (tl.exp(ahead) / tl.load(out_total + row)).to(tl.float32))
