"""Ragged attention over pages against its definition, one row and one head at a time."""

from dataclasses import replace
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easel.kernels.attention import GROUP_KEYS, AttentionRow, attention_layout
from easel.kernels.attention_layout import ALONE_TOKENS, JOINED_TOKENS, laid_out_rows, ragged_rows
from tests.kernels.attention_inputs import (
    CANVAS,
    CPU,
    NAN,
    PAGES,
    problem_of,
    rows_of,
    rows_of_every_kind,
    unseen,
)


def test_rows_can_be_read_back_from_what_a_kernel_is_given() -> None:
    rows = rows_of_every_kind(page_size=7)
    found = laid_out_rows(ragged_rows(rows, 7, CPU))
    assert [replace(row, pages=()) for row in found] == [replace(row, pages=()) for row in rows]
    for row, back in zip(rows, found, strict=True):
        assert back.pages == row.pages[: -(-(row.skip + row.prefix) // 7)]


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (4, 4), (4, 2), (4, 1), (3, 1), (6, 2)])
@pytest.mark.parametrize("causal", [False, True], ids=["block", "causal"])
def test_float32_equals_the_reference_for_every_head_ratio(heads: int, kv_heads: int, causal: bool) -> None:
    rows = rows_of(prefixes=(0, 0, 1, 5, 7, 8, 8, 13, 14, 21, 28), length=7, page_size=7, causal=causal)
    problem = problem_of(rows, page_size=7, heads=heads, kv_heads=kv_heads, dim=5)
    torch.testing.assert_close(problem.solve(), problem.reference(), atol=1e-5, rtol=1e-5)


def test_bfloat16_stays_within_its_rounding_of_the_reference() -> None:
    rows = rows_of(prefixes=(0, 3, 8, 16, 17, 40), length=8, page_size=8)
    problem = problem_of(rows, page_size=8, heads=6, kv_heads=2, dim=16)
    narrow = problem.to(torch.bfloat16)
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
        for row, length, own in zip(rows_of(prefixes, 1, page_size), lengths, causal, strict=False)
    ]
    if in_order:
        rows.sort(key=lambda row: row.prefix)
    problem = problem_of(rows, page_size=page_size, heads=4, kv_heads=2, dim=4)
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
            rows_of([p + 20 for p in prefixes], 1, page_size), lengths, windows, skips, strict=False
        )
    ]
    rows = [replace(row, prefix=row.prefix - row.skip) for row in rows]
    problem = problem_of(rows, page_size=page_size, heads=4, kv_heads=2, dim=4)
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
        for row, length, (start, count) in zip(
            rows_of(prefixes, 1, page_size), lengths, canvases, strict=False
        )
    ]
    problem = problem_of(rows, page_size=page_size, heads=4, kv_heads=2, dim=4)
    torch.testing.assert_close(problem.solve(), problem.reference(), atol=1e-5, rtol=1e-5)


def test_a_group_gathers_no_more_keys_than_it_may() -> None:
    rows = [AttentionRow(pages=tuple(range(16)), prefix=64, length=4)] * 2000
    groups = attention_layout(rows, 4, CPU).groups
    assert sum(group.rows for group in groups) == 2000
    assert max(group.keys.numel() for group in groups if group.keys is not None) <= GROUP_KEYS


def test_a_row_alone_gets_what_it_gets_in_a_batch() -> None:
    rows = rows_of(prefixes=(0, 2, 8, 9, 24), length=4, page_size=4)
    problem = problem_of(rows, page_size=4, heads=4, kv_heads=1, dim=8)
    together = problem.solve().split([row.length for row in rows])
    for index, found in enumerate(together):
        torch.testing.assert_close(problem.only(index).solve(), found, atol=1e-6, rtol=1e-5)


def test_tokens_beyond_the_prefix_are_not_seen_even_in_the_rows_own_pages() -> None:
    """A page table may cover more than the prefix; what lies there is another time's content."""
    rows = [AttentionRow(pages=(3, 9, 4, 11), prefix=5, length=3)]
    problem = problem_of(rows, page_size=4, heads=2, kv_heads=1, dim=4)
    before = problem.solve()
    seen = torch.zeros(PAGES * 4 + CANVAS, dtype=torch.bool)
    seen[[12, 13, 14, 15, 36]] = True  # page 3, and the first token of page 9
    for store in (problem.k_store, problem.v_store):
        store[~seen] = NAN
    assert torch.equal(problem.solve(), before)


def test_causal_rows_see_nothing_that_comes_after() -> None:
    rows = [AttentionRow(pages=(1, 2), prefix=6, length=5, causal=True)]
    problem = problem_of(rows, page_size=4, heads=2, kv_heads=2, dim=4)
    before = problem.solve()
    problem.k[3:], problem.v[3:] = 50.0, 50.0
    after = problem.solve()
    torch.testing.assert_close(after[:3], before[:3])
    assert not torch.isclose(after[3:], before[3:]).any()


def test_rows_of_every_kind_in_one_batch_equal_the_reference() -> None:
    problem = problem_of(rows_of_every_kind(7), page_size=7, heads=4, kv_heads=2, dim=8)
    torch.testing.assert_close(problem.solve(), problem.reference(), atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.builds(
            AttentionRow,
            pages=st.just((1, 2, 3, 4, 9, 10, 6, 7, 8, 0, 20, 21, 22, 15, 14, 13, 12, 11)),
            prefix=st.integers(ALONE_TOKENS - 40, ALONE_TOKENS + 90),
            length=st.integers(1, 9),
            causal=st.booleans(),
            window=st.sampled_from([None, 5, ALONE_TOKENS]),
            skip=st.integers(0, 30),
            canvas=st.tuples(st.integers(PAGES * 70, PAGES * 70 + 4), st.integers(0, 8)),
            fresh=st.booleans(),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_rows_of_long_prefixes_equal_the_reference(rows: list[AttentionRow]) -> None:
    rows = [replace(row, fresh=True) if row.causal else row for row in rows]
    problem = problem_of(rows, page_size=70, heads=2, kv_heads=1, dim=4)
    torch.testing.assert_close(problem.solve(), problem.reference(), atol=1e-5, rtol=1e-5)


def test_store_tokens_that_no_row_sees_do_not_matter_however_long_the_row() -> None:
    rows = [replace(row, skip=3) for row in rows_of((ALONE_TOKENS + 9, ALONE_TOKENS - 200), 4, 100)]
    problem = problem_of(rows, page_size=100, heads=2, kv_heads=1, dim=4)
    before = problem.solve()
    hidden = unseen(problem)
    assert hidden.any()
    problem.k_store[hidden], problem.v_store[hidden] = NAN, NAN
    assert torch.equal(problem.solve(), before)


def test_a_long_rows_keys_are_as_few_runs_as_its_pages_are() -> None:
    row = AttentionRow((3, 4, 5, 9, 10, 2), prefix=1030, length=4, skip=150, canvas=(4000, 32))
    (group,) = attention_layout([row], 200, CPU).groups
    assert group.runs == (slice(750, 1200), slice(1800, 2200), slice(400, 580), slice(4000, 4032))
    assert group.keys is None


def test_short_neighbours_of_similar_prefix_are_one_group_and_others_are_alone() -> None:
    near, long = JOINED_TOKENS, ALONE_TOKENS
    rows = rows_of(
        (0, 0, 1, 4, near + 1, near + 2, 2 * near + 2, long - 1, long, long), length=4, page_size=64
    )
    groups = attention_layout(rows, 64, CPU).groups
    assert [group.rows for group in groups] == [2, 3, 2, 1, 1, 1]
    assert [group.start for group in groups] == [0, 8, 20, 28, 32, 36]


def test_padding_is_bounded_and_of_the_rows_own_pages() -> None:
    prefixes = sorted(Random(3).randrange(1, 900) for _ in range(40))
    rows = rows_of(prefixes, length=2, page_size=64)
    at = 0
    for group in attention_layout(rows, 64, CPU).groups:
        assert group.keys is not None
        keys = group.keys.view(group.rows, -1)[:, : -group.length]
        for row, own in zip(rows[at : at + group.rows], keys, strict=True):
            assert len(own) - row.prefix <= JOINED_TOKENS
            assert {int(key) // 64 for key in own} <= set(row.pages)
        at += group.rows
    assert at == len(rows)


def test_no_mask_is_built_where_everything_is_visible() -> None:
    whole = rows_of(prefixes=(8, 8), length=4, page_size=4)
    partial = rows_of(prefixes=(8, 7), length=4, page_size=4)
    assert [group.mask for group in attention_layout(whole, 4, CPU).groups] == [None]
    assert all(group.mask is not None for group in attention_layout(partial, 4, CPU).groups)


def test_an_empty_batch_has_an_empty_result() -> None:
    problem = problem_of([], page_size=4, heads=2, kv_heads=1, dim=4)
    assert problem.solve().shape == (0, 2, 4)


@pytest.mark.parametrize("kv_heads", [3, 4])
def test_heads_that_do_not_share_evenly_are_refused(kv_heads: int) -> None:
    problem = problem_of(rows_of((0,), 2, 4), page_size=4, heads=kv_heads, kv_heads=kv_heads, dim=4)
    with pytest.raises(ValueError, match="canvas_attention: q"):
        replace(problem, q=torch.zeros(2, kv_heads + 1, 4)).solve()
    with pytest.raises(ValueError, match="canvas_attention: q"):
        replace(problem, v=problem.v[:, :1]).solve()
