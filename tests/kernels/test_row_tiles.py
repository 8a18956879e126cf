"""What a row comes to does not depend, to the last bit, on the rows beside it: operator by operator."""

from collections.abc import Callable, Sequence
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.attention import (
    AttentionRow,
    attention_layout,
    canvas_attention,
    reference_canvas_attention,
)
from easel.kernels.attention_layout import laid_out_rows, ragged_rows
from easel.kernels.linear import PackedWeight, TiledWeight, linear, pack, packs
from easel.kernels.moe import Activation, expert_mlp, gated, reference_expert_mlp
from easel.kernels.row_tiles import ROW_TILE, products_agree, row_product, whole_tiles
from tests.kernels.gpu_build import Kernel, built_for_sm90

CPU = torch.device("cpu")
ROWS = 130
COUNTS = (1, 2, 3, 5, 8, 33, 127)
DTYPES = [torch.float32, torch.bfloat16]
PAGE = 8


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_rows_agree(compute: Callable[[slice], Tensor]) -> None:
    """Any run of the rows gives their part of what all rows give."""
    whole = compute(slice(0, ROWS))
    for count in COUNTS:
        for first in {0, 7 % (ROWS - count), ROWS - count}:
            rows = slice(first, first + count)
            assert torch.equal(compute(rows), whole[rows]), (count, first)


def test_missing_rows_are_zeros_and_whole_tiles_are_left_alone() -> None:
    x = draw(ROW_TILE + 1, 3)
    filled = whole_tiles(x)
    assert torch.equal(filled[: len(x)], x)
    assert filled.shape == (2 * ROW_TILE, 3)
    assert not filled[len(x) :].any()
    assert whole_tiles(filled) is filled


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("out", "inner"), [(105, 33), (384, 128), (96, 512)])
def test_a_rows_product(out: int, inner: int, dtype: torch.dtype) -> None:
    x, weight, bias = (
        draw(ROWS, inner, dtype=dtype),
        draw(out, inner, dtype=dtype, seed=1),
        draw(out, dtype=dtype),
    )
    assert_rows_agree(lambda rows: linear(x[rows], weight, bias))
    assert_rows_agree(lambda rows: linear(x[rows], TiledWeight(weight)))
    assert_rows_agree(lambda rows: row_product(x[rows], weight.t()))
    assert torch.equal(linear(x, TiledWeight(weight), bias), linear(x, weight, bias))


@pytest.mark.skipif(not packs(torch.float32), reason="torch was built without oneDNN")
def test_a_rows_product_with_a_packed_weight() -> None:
    x, weight = draw(ROWS, 128), PackedWeight(pack(draw(384, 128, seed=1)))
    assert_rows_agree(lambda rows: linear(x[rows], weight))


def test_torchs_own_product_of_a_row_does_depend_on_others_in_float32() -> None:
    """Otherwise tiles would not be needed: MKL takes another routine for what is left of four rows."""
    if torch.backends.mkl.is_available():
        x, weight = draw(ROWS, 128), draw(384, 128, seed=1)
        assert not torch.equal(F.linear(x[:1], weight), F.linear(x, weight)[:1])
    assert products_agree(torch.float32)


def test_one_thread_and_two_give_a_row_the_same_product_and_gate() -> None:
    x, weight = draw(300, 128), draw(768, 128, seed=1)
    threads = torch.get_num_threads()
    found: list[tuple[Tensor, Tensor]] = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            both = linear(x, weight)
            found.append((both, gated(both[:299], Activation.SILU, fixed=True)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", Activation)
def test_a_rows_gate_is_the_activation_but_for_rounding(activation: Activation, dtype: torch.dtype) -> None:
    both = 3.0 * draw(ROWS, 2 * 37, dtype=dtype)
    assert_rows_agree(lambda rows: gated(both[rows], activation, fixed=True))
    torch.testing.assert_close(
        gated(both, activation, fixed=True),
        gated(both, activation),
        atol=2e-6,
        rtol=1.6e-2 if dtype != torch.float32 else 2e-6,
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("hidden", "inner"), [(64, 32), (33, 10)])
def test_a_tokens_experts(
    hidden: int, inner: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all experts are multiplied in one call for some numbers of tokens and not for others."""
    monkeypatch.setattr("easel.kernels.moe.GROUPED_ON_CPU", 3 * 40)
    x, share = draw(ROWS, hidden, dtype=dtype), draw(ROWS, 3, seed=1).abs()
    index = draw(ROWS, 12, seed=2).topk(3).indices
    gate_up = 0.2 * draw(12, 2 * inner, hidden, dtype=dtype, seed=3)
    matrices = gate_up, 0.2 * draw(12, hidden, inner, dtype=dtype, seed=4)

    def compute(rows: slice) -> Tensor:
        return expert_mlp(x[rows], index[rows], share[rows], *matrices, Activation.SILU, fixed=True)

    assert_rows_agree(compute)
    expected = reference_expert_mlp(x[:9], index[:9], share[:9], *matrices, Activation.SILU)
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(compute(slice(0, 9)), expected, atol=tolerance, rtol=tolerance)


def attended(
    rows: Sequence[AttentionRow], tokens: slice, dtype: torch.dtype, *, fixed: bool = True
) -> Tensor:
    """What rows come to whose queries and keys are some of the same random ones."""
    q, k, v = (draw(400, heads, 16, dtype=dtype, seed=heads) for heads in (4, 2, 2))
    stores = draw(80 * PAGE, 2, 16, dtype=dtype, seed=7), draw(80 * PAGE, 2, 16, dtype=dtype, seed=8)
    layout = attention_layout(rows, PAGE, CPU, fixed=fixed)
    return canvas_attention(q[tokens], k[tokens], v[tokens], *stores, layout, 0.25)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("prefix", [0, 5, 16, 100, 184, 256])
def test_a_canvas_beside_others_with_longer_and_shorter_prefixes(prefix: int, dtype: torch.dtype) -> None:
    table = tuple(range(79, -1, -1))
    one = AttentionRow(table, prefix, 6)
    alone = attended([one], slice(30, 36), dtype)
    for others in ((), (prefix // 2,), (prefix + 3, prefix + 90), (prefix, 0)):
        rows = sorted((one, *(AttentionRow(table, other, 6) for other in others)), key=lambda row: row.prefix)
        place = 6 * rows.index(one)
        found = attended(rows, slice(30 - place, 30 - place + 6 * len(rows)), dtype)
        assert torch.equal(found[place : place + 6], alone)


def test_padding_to_the_longest_prefix_would_change_a_canvas() -> None:
    table = tuple(range(80))
    rows = [AttentionRow(table, prefix, 6) for prefix in (200, 300)]
    for fixed in (True, False):
        alone = attended(rows[:1], slice(0, 6), torch.float32, fixed=fixed)
        beside = attended(rows, slice(0, 12), torch.float32, fixed=fixed)[:6]
        assert torch.equal(alone, beside) == fixed


@pytest.mark.parametrize("window", [None, 20, 150])
@pytest.mark.parametrize("cut", [1, 17, 30, 59])
def test_a_causal_tile_in_one_row_and_in_two(cut: int, window: int | None) -> None:
    """60 queries behind 192 stored tokens; those of a row are stored as well, and no key is fresh."""
    table = tuple(range(79, -1, -1))

    def row(first: int, end: int) -> AttentionRow:
        return AttentionRow(table, 192 + first, end - first, causal=True, window=window, fresh=False)

    whole = attended([row(0, 60)], slice(0, 60), torch.float32)
    for rows in ([row(0, cut), row(cut, 60)], [row(cut, 60)]):
        first = 60 - sum(each.length for each in rows)
        assert torch.equal(attended(rows, slice(first, 60), torch.float32), whole[first:])


@pytest.mark.parametrize("window", [None, 20])
def test_stored_keys_of_a_causal_row_are_seen_as_they_are_defined(window: int | None) -> None:
    from easel.kernels.attention_triton import ragged_attention  # noqa: PLC0415

    rows = [
        AttentionRow((4, 2, 7, 5), prefix, length, causal=True, window=window, skip=3, fresh=False)
        for prefix, length in ((0, 5), (9, 6), (20, 1))
    ]
    q, k, v = (draw(12, heads, 16, seed=heads) for heads in (4, 2, 2))
    stores = draw(8 * PAGE, 2, 16, seed=7), draw(8 * PAGE, 2, 16, seed=8)
    expected = reference_canvas_attention(q, k, v, *stores, rows, PAGE, 0.25)
    for fixed in (True, False):
        found = canvas_attention(q, k, v, *stores, attention_layout(rows, PAGE, CPU, fixed=fixed), 0.25)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    ragged = ragged_rows(rows, PAGE, CPU)
    assert laid_out_rows(ragged)[1].pages == (4, 2, 7)
    out = torch.full_like(q, float("nan"))
    ragged_attention(q, k, v, *stores, ragged, 0.25, out)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("columns", [768, 100])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_gpus_product_gives_a_row_the_same_bits_in_any_batch(dtype: torch.dtype, columns: int) -> None:
    from easel.kernels.linear_triton import tiled_linear  # noqa: PLC0415  triton must find the interpreter chosen

    x, weight, bias = (
        draw(ROWS, 72, dtype=dtype),
        draw(columns, 72, dtype=dtype, seed=1),
        draw(columns, dtype=dtype),
    )
    assert_rows_agree(lambda rows: tiled_linear(x[rows], weight, bias))
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(
        tiled_linear(x, weight, bias), F.linear(x, weight, bias), atol=tolerance, rtol=tolerance
    )
    with pytest.raises(ValueError, match="tiled_linear"):
        tiled_linear(x[:, :40], weight)


def test_the_gpus_product_compiled_for_a_gpu_uses_tensor_cores_and_spills_nothing(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from easel.kernels.linear_triton import tile_shape  # noqa: PLC0415

    x = Mock(spec=Tensor)
    x.is_cuda, x.dtype = True, torch.bfloat16
    tile = tile_shape(x)
    kinds = {"x": "*bf16", "weight": "*bf16", "out": "*bf16", "count": "i32"}
    fixed: dict[str, int | bool | None] = {
        "bias": None,
        "width": 6144,
        "inner": 2048,
        "widen": False,
        "rows": tile.rows,
        "columns": tile.columns,
        "depth": tile.depth,
    }
    launch = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
    kernel = Kernel("easel.kernels.linear_triton", "_multiply", kinds, fixed, launch)
    (built,) = built_for_sm90([kernel], tmp_path_factory.mktemp("triton"))
    assert built.tensor_cores
    assert built.spilled == 0
    assert 2 * built.shared <= 227 * 1024
