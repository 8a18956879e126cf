"""The ragged kernel, on a GPU or in Triton's interpreter, against the definition of attention."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from easel.kernels.attention import AttentionRow, attention_layout
from easel.kernels.attention_layout import NO_WINDOW, ragged_rows
from easel.kernels.attention_triton import ragged_attention
from tests.kernels.attention_inputs import (
    CPU,
    KERNEL_DEVICE,
    NAN,
    PAGES,
    problem_of,
    rows_of,
    rows_of_every_kind,
    unseen,
)

NAMES: tuple[str, ...] = ("q", "k", "v", "k_store", "v_store")


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim"),
    [(1, 1, 8), (4, 2, 16), (3, 1, 24), (2, 2, 64), (5, 1, 80), (2, 1, 256)],
)
def test_rows_of_every_kind_in_one_launch_equal_the_reference(heads: int, kv_heads: int, dim: int) -> None:
    problem = problem_of(rows_of_every_kind(7), page_size=7, heads=heads, kv_heads=kv_heads, dim=dim)
    torch.testing.assert_close(problem.solve_by_kernel(), problem.reference(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("page_size", "dim"), [(16, 64), (32, 512)])
def test_narrow_dtypes_stay_within_their_rounding(dtype: torch.dtype, page_size: int, dim: int) -> None:
    problem = problem_of(rows_of_every_kind(page_size), page_size=page_size, heads=4, kv_heads=2, dim=dim)
    narrow = problem.to(dtype)
    # Values are at most about 4; weights and the result are rounded once each, sums are float32.
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(narrow.solve_by_kernel(), narrow.reference(), atol=4 * step, rtol=step)


@settings(max_examples=6, deadline=None)
@given(
    rows=st.lists(
        st.builds(
            AttentionRow,
            pages=st.just((3, 17, 4, 5, 6, 0, 23, 3, 9, 9, 1, 2)),
            prefix=st.integers(0, 40),
            length=st.integers(1, 40),
            causal=st.booleans(),
            window=st.sampled_from([None, 1, 2, 16, 100]),
            skip=st.integers(0, 8),
            canvas=st.tuples(st.integers(PAGES * 9, PAGES * 9 + 4), st.integers(1, 8)) | st.just((0, 0)),
        ),
        min_size=1,
        max_size=4,
    ),
    page_size=st.integers(4, 9),
)
def test_any_mix_of_rows_equals_the_reference(rows: list[AttentionRow], page_size: int) -> None:
    problem = problem_of(rows, page_size=9, heads=4, kv_heads=2, dim=8)
    problem = replace(problem, page_size=page_size)
    torch.testing.assert_close(problem.solve_by_kernel(), problem.reference(), atol=1e-5, rtol=1e-5)


def test_store_tokens_that_no_row_sees_do_not_matter_whatever_they_hold() -> None:
    problem = problem_of(rows_of_every_kind(7), page_size=7, heads=2, kv_heads=1, dim=16)
    before = problem.solve_by_kernel()
    hidden = unseen(problem)
    assert hidden.any()
    problem.k_store[hidden], problem.v_store[hidden] = NAN, NAN
    assert torch.equal(problem.solve_by_kernel(), before)


def test_a_row_gets_the_same_bits_alone_as_among_others() -> None:
    rows = rows_of_every_kind(7)[1:-2]
    problem = problem_of(rows, page_size=7, heads=2, kv_heads=1, dim=16)
    together = problem.solve_by_kernel().split([row.length for row in rows])
    for index, found in enumerate(together):
        assert torch.equal(problem.only(index).solve_by_kernel(), found)


def test_every_element_is_written_and_none_besides() -> None:
    problem = problem_of(rows_of_every_kind(7), page_size=7, heads=4, kv_heads=2, dim=24).to(torch.float16)
    tokens = len(problem.q)
    room = torch.full((tokens + 2, *problem.q.shape[1:]), NAN, dtype=torch.float16, device=KERNEL_DEVICE)
    layout = ragged_rows(problem.rows, 7, KERNEL_DEVICE)
    q, k, v, k_store, v_store = (tensor.to(KERNEL_DEVICE) for tensor in problem.tensors())
    ragged_attention(q, k, v, k_store, v_store, layout, problem.scale, room[1:-1])
    assert room[1:-1].isfinite().all()
    assert room[0].isnan().all()
    assert room[-1].isnan().all()


def test_queries_keys_and_values_may_lie_together_in_memory() -> None:
    apart = problem_of(rows_of((9, 12), 6, 4), page_size=4, heads=4, kv_heads=2, dim=16)
    together = torch.cat((apart.q, apart.k, apart.v), dim=1)
    views = replace(apart, q=together[:, :4], k=together[:, 4:6], v=together[:, 6:])
    assert torch.equal(views.solve_by_kernel(), apart.solve_by_kernel())


def test_more_rows_than_are_searched_at_once_are_told_apart() -> None:
    rows = rows_of([5] * 70, 1, 4)
    problem = problem_of(rows, page_size=4, heads=1, kv_heads=1, dim=16)
    torch.testing.assert_close(problem.solve_by_kernel(), problem.reference(), atol=1e-5, rtol=1e-5)


def test_a_query_that_sees_no_key_gets_zeros() -> None:
    problem = problem_of([AttentionRow((), 0, 3, fresh=False)], page_size=4, heads=2, kv_heads=1, dim=16)
    assert torch.equal(problem.solve_by_kernel(), torch.zeros(3, 2, 16))


def test_an_empty_batch_has_an_empty_result() -> None:
    assert problem_of([], page_size=4, heads=2, kv_heads=1, dim=16).solve_by_kernel().shape == (0, 2, 16)


def test_a_rows_fields_and_only_the_pages_it_reads_reach_the_device() -> None:
    window = AttentionRow((1, 2, 4), prefix=3, length=6, causal=True, window=7, skip=3)
    rows = [AttentionRow((8, 3, 5), prefix=5, length=2), replace(window, canvas=(90, 2), fresh=False)]
    ragged = ragged_rows(rows, 4, CPU)
    assert ragged.table.tolist() == [[0, 2, 0, 0, 5, 0, 0, 1, 0, NO_WINDOW], [2, 6, 2, 3, 3, 90, 2, 0, 1, 7]]
    assert ragged.pages.tolist() == [8, 3, 1, 2]
    assert ragged.tokens == 8


def test_a_cpu_is_not_given_what_only_the_kernel_reads() -> None:
    assert attention_layout(rows_of((4,), 2, 4), 4, CPU).ragged is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", ["shape", "dtype", "strides"])
def test_tensors_that_do_not_go_together_are_refused(name: str, wrong: str) -> None:
    problem = problem_of(rows_of((3,), 2, 4), page_size=4, heads=4, kv_heads=2, dim=16)
    named: dict[str, torch.Tensor] = dict(zip(NAMES, problem.tensors(), strict=True))
    tensor = named[name]
    others = {"shape": tensor[..., :8], "dtype": tensor.double(), "strides": tensor.mT.contiguous().mT}
    layout = ragged_rows(problem.rows, 4, CPU)
    with pytest.raises(ValueError, match="ragged_attention"):
        ragged_attention(**(named | {name: others[wrong]}), rows=layout, scale=1.0, out=torch.empty(2, 4, 16))


def test_attention_needs_no_triton_on_a_cpu() -> None:
    script = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from easel.kernels.attention import AttentionRow, attention_layout, canvas_attention\n"
        "layout = attention_layout([AttentionRow((0,), 2, 1)], 4, torch.device('cpu'))\n"
        "q, store = torch.ones(1, 1, 8), torch.ones(4, 1, 8)\n"
        "assert canvas_attention(q, q, q, store, store, layout, 1.0).allclose(q)\n"
    )
    subprocess.run([sys.executable, "-P", "-c", script], check=True)


def test_the_kernel_compiles_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    script = (
        "from triton.backends.compiler import GPUTarget\n"
        "from triton.compiler import ASTSource, compile\n"
        "from easel.kernels.attention_triton import _attend_tile, tile_shape\n"
        "tile = tile_shape(128, 2, 2)\n"
        "options = {name: tile.pop(name) for name in ('num_warps', 'num_stages')}\n"
        "fixed = dict(page_size=32, share=2, dim=128, widen=False, **tile)\n"
        "kinds = ['*bf16'] * 6 + ['*i32'] * 2 + ['i32', 'fp32'] + ['i32'] * 3 + ['constexpr'] * len(fixed)\n"
        "signature = dict(zip(_attend_tile.arg_names, kinds, strict=True))\n"
        "options['enable_fp_fusion'] = True\n"
        "source, target = ASTSource(_attend_tile, signature, fixed), GPUTarget('cuda', 90, 32)\n"
        "built = compile(source, target=target, options=options)\n"
        "assert 'wgmma' in built.asm['ptx']\n"
        "assert built.metadata.shared <= 227 * 1024\n"
    )
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-P", "-c", script], check=True, env=environment)
