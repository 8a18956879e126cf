"""Ragged attention over pages against its definition, one row and one head at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from easel.kernels.attention import (
    GROUP_KEYS,
    AttentionRow,
    attention_layout,
    canvas_attention,
    reference_canvas_attention,
)

CPU = torch.device("cpu")
PAGES = 24
CANVAS = 12  # store tokens behind the pages
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Problem:
    rows: Sequence[AttentionRow]
    page_size: int
    q: Tensor  # [tokens, heads, d]
    k: Tensor  # [tokens, kv_heads, d]
    v: Tensor  # [tokens, kv_heads, d]
    k_store: Tensor  # [store tokens, kv_heads, d]
    v_store: Tensor  # [store tokens, kv_heads, d]
    scale: float

    def solve(self) -> Tensor:
        layout = attention_layout(self.rows, self.page_size, CPU)
        return canvas_attention(self.q, self.k, self.v, self.k_store, self.v_store, layout, self.scale)

    def reference(self) -> Tensor:
        return reference_canvas_attention(
            self.q, self.k, self.v, self.k_store, self.v_store, self.rows, self.page_size, self.scale
        )


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (4, 2), (4, 1), (3, 1), (6, 2)])
@pytest.mark.parametrize("causal", [False, True], ids=["block", "causal"])
def test_float32_equals_the_reference_for_every_head_ratio(heads: int, kv_heads: int, causal: bool) -> None:
    rows = _rows(prefixes=(0, 0, 1, 5, 7, 8, 8, 13, 14, 21, 28), length=7, page_size=7, causal=causal)
    problem = _problem(rows, page_size=7, heads=heads, kv_heads=kv_heads, dim=5)
    torch.testing.assert_close(problem.solve(), problem.reference(), atol=1e-5, rtol=1e-5)


def test_bfloat16_stays_within_its_rounding_of_the_reference() -> None:
    rows = _rows(prefixes=(0, 3, 8, 16, 17, 40), length=8, page_size=8)
    problem = _problem(rows, page_size=8, heads=6, kv_heads=2, dim=16)
    narrow = replace(
        problem,
        q=problem.q.bfloat16(),
        k=problem.k.bfloat16(),
        v=problem.v.bfloat16(),
        k_store=problem.k_store.bfloat16(),
        v_store=problem.v_store.bfloat16(),
    )
    # Values are at most about 4; weights and the result are rounded to 8 bits each.
    torch.testing.assert_close(narrow.solve(), narrow.reference(), atol=4e-2, rtol=2e-2)


@settings(max_examples=60, deadline=None)
@given(
    prefixes=st.lists(st.integers(0, 40), min_size=1, max_size=9),
    lengths=st.lists(st.integers(1, 9), min_size=9, max_size=9),
    causal=st.lists(st.booleans(), min_size=9, max_size=9),
    page_size=st.integers(1, 9),
    in_order=st.booleans(),
)
def test_any_mix_of_lengths_prefixes_and_masks_equals_the_reference(
    prefixes: list[int], lengths: list[int], causal: list[bool], page_size: int, in_order: bool
) -> None:
    rows = [
        replace(row, length=length, causal=own)
        for row, length, own in zip(_rows(prefixes, 1, page_size), lengths, causal, strict=False)
    ]
    if in_order:
        rows.sort(key=lambda row: row.prefix)
    problem = _problem(rows, page_size=page_size, heads=4, kv_heads=2, dim=4)
    torch.testing.assert_close(problem.solve(), problem.reference(), atol=1e-5, rtol=1e-5)


@settings(max_examples=100, deadline=None)
@given(
    prefixes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    lengths=st.lists(st.integers(1, 9), min_size=6, max_size=6),
    windows=st.lists(st.sampled_from([None, 1, 2, 5, 16, 100]), min_size=6, max_size=6),
    skips=st.lists(st.integers(0, 20), min_size=6, max_size=6),
    page_size=st.integers(1, 9),
)
def test_windows_and_prefixes_that_begin_within_a_page_equal_the_reference(
    prefixes: list[int], lengths: list[int], windows: list[int | None], skips: list[int], page_size: int
) -> None:
    rows = [
        replace(row, length=length, causal=window is not None, window=window, prefix=row.prefix, skip=skip)
        for row, length, window, skip in zip(
            _rows([p + 20 for p in prefixes], 1, page_size), lengths, windows, skips, strict=False
        )
    ]
    rows = [replace(row, prefix=row.prefix - row.skip) for row in rows]
    problem = _problem(rows, page_size=page_size, heads=4, kv_heads=2, dim=4)
    torch.testing.assert_close(problem.solve(), problem.reference(), atol=1e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    prefixes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    lengths=st.lists(st.integers(1, 9), min_size=6, max_size=6),
    canvases=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 8)), min_size=6, max_size=6),
    page_size=st.integers(1, 9),
)
def test_keys_that_are_all_in_the_store_equal_the_reference(
    prefixes: list[int], lengths: list[int], canvases: list[tuple[int, int]], page_size: int
) -> None:
    first = PAGES * page_size
    rows = [
        replace(row, length=length, canvas=(first + start, count), fresh=False)
        for row, length, (start, count) in zip(_rows(prefixes, 1, page_size), lengths, canvases, strict=False)
    ]
    problem = _problem(rows, page_size=page_size, heads=4, kv_heads=2, dim=4)
    torch.testing.assert_close(problem.solve(), problem.reference(), atol=1e-5, rtol=1e-5)


def test_a_group_gathers_no_more_keys_than_it_may() -> None:
    rows = [AttentionRow(pages=tuple(range(16)), prefix=64, length=4)] * 2000
    groups = attention_layout(rows, 4, CPU).groups
    assert sum(group.rows for group in groups) == 2000
    assert max(group.keys.numel() for group in groups if group.keys is not None) <= GROUP_KEYS


def test_a_row_alone_gets_what_it_gets_in_a_batch() -> None:
    rows = _rows(prefixes=(0, 2, 8, 9, 24), length=4, page_size=4)
    problem = _problem(rows, page_size=4, heads=4, kv_heads=1, dim=8)
    together = problem.solve()
    for index, row in enumerate(rows):
        span = slice(index * 4, index * 4 + 4)
        alone = replace(problem, rows=[row], q=problem.q[span], k=problem.k[span], v=problem.v[span])
        torch.testing.assert_close(alone.solve(), together[span], atol=1e-6, rtol=1e-5)


def test_tokens_beyond_the_prefix_are_not_seen_even_in_the_rows_own_pages() -> None:
    """A page table may cover more than the prefix; what lies there is another time's content."""
    rows = [AttentionRow(pages=(3, 9, 4, 11), prefix=5, length=3)]
    problem = _problem(rows, page_size=4, heads=2, kv_heads=1, dim=4)
    before = problem.solve()
    seen = torch.zeros(PAGES * 4 + CANVAS, dtype=torch.bool)
    seen[[12, 13, 14, 15, 36]] = True  # page 3, and the first token of page 9
    for store in (problem.k_store, problem.v_store):
        store[~seen] = NAN
    assert torch.equal(problem.solve(), before)


def test_causal_rows_see_nothing_that_comes_after() -> None:
    rows = [AttentionRow(pages=(1, 2), prefix=6, length=5, causal=True)]
    problem = _problem(rows, page_size=4, heads=2, kv_heads=2, dim=4)
    before = problem.solve()
    problem.k[3:], problem.v[3:] = 50.0, 50.0
    after = problem.solve()
    torch.testing.assert_close(after[:3], before[:3])
    assert not torch.isclose(after[3:], before[3:]).any()


def test_neighbouring_rows_of_similar_prefix_are_one_group() -> None:
    rows = _rows(prefixes=(0, 0, 1, 4, 5, 8, 12, 16), length=4, page_size=4)
    groups = attention_layout(rows, 4, CPU).groups
    assert [(group.start, group.rows) for group in groups] == [(0, 2), (8, 2), (16, 2), (24, 2)]


def test_padding_is_below_a_factor_of_two_and_of_the_rows_own_pages() -> None:
    rows = _rows(prefixes=range(1, 41), length=2, page_size=4)
    for row in rows:
        (group,) = attention_layout([row], 4, CPU).groups
        assert group.keys is not None
        assert group.keys.numel() - row.length < 2 * (row.prefix + 4)
        assert {int(index) // 4 for index in group.keys} <= set(row.pages)


def test_no_mask_is_built_where_everything_is_visible() -> None:
    whole = _rows(prefixes=(8, 8), length=4, page_size=4)
    partial = _rows(prefixes=(8, 7), length=4, page_size=4)
    assert [group.mask for group in attention_layout(whole, 4, CPU).groups] == [None]
    assert all(group.mask is not None for group in attention_layout(partial, 4, CPU).groups)


def test_an_empty_batch_has_an_empty_result() -> None:
    problem = _problem([], page_size=4, heads=2, kv_heads=1, dim=4)
    assert problem.solve().shape == (0, 2, 4)


@pytest.mark.parametrize("kv_heads", [3, 4])
def test_heads_that_do_not_share_evenly_are_refused(kv_heads: int) -> None:
    problem = _problem(_rows((0,), 2, 4), page_size=4, heads=kv_heads, kv_heads=kv_heads, dim=4)
    with pytest.raises(ValueError, match="canvas_attention: q"):
        replace(problem, q=torch.zeros(2, kv_heads + 1, 4)).solve()
    with pytest.raises(ValueError, match="canvas_attention: q"):
        replace(problem, v=problem.v[:, :1]).solve()


def _rows(
    prefixes: Sequence[int], length: int, page_size: int, *, causal: bool = False
) -> list[AttentionRow]:
    """Rows with pages of a random order; like requests with a common beginning, they share some."""
    draw = Random(7)
    rows: list[AttentionRow] = []
    for prefix in prefixes:
        pages = [draw.randrange(PAGES) for _ in range(-(-prefix // page_size) + draw.randrange(2))]
        rows.append(AttentionRow(tuple(pages), prefix, length, causal))
    return rows


def _problem(rows: Sequence[AttentionRow], *, page_size: int, heads: int, kv_heads: int, dim: int) -> Problem:
    generator = torch.Generator().manual_seed(len(rows) + heads)
    tokens = sum(row.length for row in rows)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return Problem(
        rows=rows,
        page_size=page_size,
        q=normal(tokens, heads, dim),
        k=normal(tokens, kv_heads, dim),
        v=normal(tokens, kv_heads, dim),
        k_store=normal(PAGES * page_size + CANVAS, kv_heads, dim),
        v_store=normal(PAGES * page_size + CANVAS, kv_heads, dim),
        scale=dim**-0.5,
    )
