"""Ways to attend on a CPU to keys that lie in pages: `python -m easel.bench.attention`.

The engine's way against the one it had before, which padded every row to a power of two of pages,
and against three that others suggest: no copies at all, where a row's pages follow each other;
plain matrix products in place of the fused call; and online softmax over runs of pages.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from easel.bench.report import Figure, alternate, describe_setup, print_figures, print_setup, write_json
from easel.kernels.attention import (
    GROUP_KEYS,
    AttentionLayout,
    AttentionRow,
    RowGroup,
    attention_layout,
    canvas_attention,
)

CPU = torch.device("cpu")
PAGE = 32
QUERIES = 32
HEADS, KV_HEADS = 4, 2
SHARE = HEADS // KV_HEADS
ROWS = (8, 16)
DIMS = (16, 64)
PREFIXES = ((64, 64), (512, 512), (4096, 4096), (800, 800), (64, 512), (2048, 6000))  # of the rows, from to
CHUNK = 512  # keys of one step of online softmax
SECONDS = 0.05  # that one round of one variant should take


@dataclass(frozen=True, slots=True)
class Case:
    """One layer's attention of some canvases, each behind its own prefix."""

    rows: Sequence[AttentionRow]
    q: Tensor  # [tokens, heads, d]
    k: Tensor  # [tokens, kv_heads, d]
    v: Tensor  # [tokens, kv_heads, d]
    k_store: Tensor  # [store tokens, kv_heads, d]
    v_store: Tensor  # [store tokens, kv_heads, d]

    @property
    def scale(self) -> float:
        return self.q.shape[-1] ** -0.5

    def by_row(self) -> list[tuple[AttentionRow, Tensor, Tensor, Tensor]]:
        parts = (tensor.split(QUERIES) for tensor in (self.q, self.k, self.v))
        return list(zip(self.rows, *parts, strict=True))

    def joined(self, found: Sequence[Tensor]) -> Tensor:
        """[tokens, heads, d] of [kv_heads, share * queries, d] of each row."""
        return torch.cat([_ungrouped(row) for row in found])


def make_case(rows: int, prefixes: tuple[int, int], dim: int, *, scattered: bool) -> Case:
    """Rows whose pages follow each other, as they do when they come off a fresh list, or do not."""
    draw, generator = Random(1), torch.Generator().manual_seed(0)
    lengths = sorted(draw.randint(*prefixes) for _ in range(rows))
    counts = [-(-length // PAGE) + 1 for length in lengths]
    pages = iter(draw.sample(range(sum(counts)), sum(counts)) if scattered else range(sum(counts)))
    tables = [tuple(next(pages) for _ in range(count)) for count in counts]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tokens, stored = rows * QUERIES, sum(counts) * PAGE
    return Case(
        rows=[AttentionRow(table, length, QUERIES) for table, length in zip(tables, lengths, strict=True)],
        q=normal(tokens, HEADS, dim),
        k=normal(tokens, KV_HEADS, dim),
        v=normal(tokens, KV_HEADS, dim),
        k_store=normal(stored, KV_HEADS, dim),
        v_store=normal(stored, KV_HEADS, dim),
    )


def engine(case: Case) -> Callable[[], Tensor]:
    """What the engine does: dense groups of short rows, long rows alone, copied run by run."""
    layout = attention_layout(case.rows, PAGE, CPU)
    tensors = (case.q, case.k, case.v, case.k_store, case.v_store)
    return lambda: canvas_attention(*tensors, layout, case.scale)


def padded(case: Case) -> Callable[[], Tensor]:
    """Rows gathered and padded together to a power of two of pages."""
    layout = AttentionLayout(tuple(_padded_groups(case.rows)))
    tensors = (case.q, case.k, case.v, case.k_store, case.v_store)
    return lambda: canvas_attention(*tensors, layout, case.scale)


def products(case: Case) -> Callable[[], Tensor]:
    """As padded, with matrix products and a softmax in place of the fused call."""
    groups = [(group, group.keys) for group in _padded_groups(case.rows) if group.keys is not None]

    def run() -> Tensor:
        found: list[Tensor] = []
        for group, keys in groups:
            span = slice(group.start, group.start + group.rows * QUERIES)
            queries = torch.stack([_grouped(q) for q in case.q[span].split(QUERIES)])
            k, v = (
                _with_own(store.index_select(0, keys), own[span])
                for store, own in ((case.k_store, case.k), (case.v_store, case.v))
            )
            scores = queries @ k.mT * case.scale
            scores = scores if group.mask is None else scores.masked_fill_(~group.mask, float("-inf"))
            found.extend(scores.softmax(-1) @ v)
        return case.joined(found)

    return run


def views(case: Case) -> Callable[[], Tensor]:
    """No copies: a fused call on each run and one on the row's own keys, merged by their weights."""
    # Not public, but the only fused call that also says how much weight its keys had.
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001
    runs = [_runs(row) for row in case.rows]

    def run() -> Tensor:
        found: list[Tensor] = []
        for (_, q, k, v), own in zip(case.by_row(), runs, strict=True):
            parts = [(k, v), *((case.k_store[one], case.v_store[one]) for one in own)]
            pairs = ((keys.transpose(0, 1)[None], values.transpose(0, 1)[None]) for keys, values in parts)
            results = [fused(_grouped(q)[None], *pair, scale=case.scale) for pair in pairs]
            weights = torch.stack([weight for _, weight in results]).softmax(0)[..., None]
            total = results[0][0] * weights[0]
            for (part, _), weight in zip(results[1:], weights[1:], strict=True):
                total.addcmul_(part, weight)
            found.append(total[0])
        return case.joined(found)

    return run


def chunks(case: Case) -> Callable[[], Tensor]:
    """No copies: online softmax in plain matrix products, over pieces of the runs and the own keys."""
    runs = [
        [
            slice(at, min(at + CHUNK, run.stop))
            for run in _runs(row)
            for at in range(run.start, run.stop, CHUNK)
        ]
        for row in case.rows
    ]

    def run() -> Tensor:
        found: list[Tensor] = []
        for (_, q, k, v), own in zip(case.by_row(), runs, strict=True):
            queries = _grouped(q) * case.scale
            best, total = (q.new_full((KV_HEADS, SHARE * QUERIES, 1), start) for start in (-1e30, 0.0))
            sums = torch.zeros_like(queries)
            for keys, values in [(k, v), *((case.k_store[one], case.v_store[one]) for one in own)]:
                scores = torch.bmm(queries, keys.permute(1, 2, 0))
                peak = torch.maximum(best, scores.amax(-1, keepdim=True))
                kept, weights = (best - peak).exp_(), scores.sub_(peak).exp_()
                total = total.mul_(kept).add_(weights.sum(-1, keepdim=True))
                sums = sums.mul_(kept).baddbmm_(weights, values.transpose(0, 1))
                best = peak
            found.append(sums / total)
        return case.joined(found)

    return run


VARIANTS: dict[str, Callable[[Case], Callable[[], Tensor]]] = {
    "padded": padded,
    "engine": engine,
    "views": views,
    "products": products,
    "chunks": chunks,
}


def measure(case: Case, rounds: int) -> dict[str, Figure]:
    """Microseconds a call of each variant, which must agree."""
    runs = {name: variant(case) for name, variant in VARIANTS.items()}
    expected = runs["padded"]()
    for run in runs.values():
        torch.testing.assert_close(run(), expected, atol=1e-5, rtol=1e-5)
    started = time.perf_counter()
    runs["engine"]()
    calls = max(1, round(SECONDS / (time.perf_counter() - started)))

    def timed(run: Callable[[], Tensor]) -> float:
        started = time.perf_counter()
        for _ in range(calls):
            run()
        return 1e6 * (time.perf_counter() - started) / calls

    return alternate({name: (lambda run=run: timed(run)) for name, run in runs.items()}, rounds)


def _grouped(q: Tensor) -> Tensor:
    """[kv_heads, share * queries, d]: heads that share keys become extra queries."""
    return q.view(QUERIES, KV_HEADS, SHARE, -1).permute(1, 2, 0, 3).reshape(KV_HEADS, SHARE * QUERIES, -1)


def _ungrouped(found: Tensor) -> Tensor:
    """[queries, heads, d] of [kv_heads, share * queries, d]."""
    return found.view(HEADS, QUERIES, -1).transpose(0, 1)


def _runs(row: AttentionRow) -> list[slice]:
    runs: list[slice] = []
    for at in range(0, row.prefix, PAGE):
        start = row.pages[at // PAGE] * PAGE
        stop = start + min(PAGE, row.prefix - at)
        if runs and runs[-1].stop == start:
            start = runs.pop().start
        runs.append(slice(start, stop))
    return runs


def _padded_groups(rows: Sequence[AttentionRow]) -> Iterator[RowGroup]:
    """Rows whose prefixes pad to the same power of two of pages, as many as GROUP_KEYS lets in."""
    wide = [PAGE * (1 << (-(-row.prefix // PAGE) - 1).bit_length()) for row in rows]
    first = 0
    for index, row in enumerate(rows, start=1):
        full = (index - first + 1) * (2 * row.prefix + QUERIES) > GROUP_KEYS
        if index == len(rows) or full or wide[index] != wide[first]:
            yield _padded_group(rows[first:index], first * QUERIES, wide[first])
            first = index


def _padded_group(rows: Sequence[AttentionRow], start: int, wide: int) -> RowGroup:
    keys = torch.zeros(len(rows), wide + QUERIES, dtype=torch.int64)
    mask = torch.ones(len(rows), wide + QUERIES, dtype=torch.bool)
    for index, row in enumerate(rows):
        tokens = torch.cat([torch.arange(run.start, run.stop) for run in _runs(row)])
        keys[index] = tokens[0]
        keys[index, : row.prefix] = tokens
        mask[index, row.prefix : wide] = False
    seen = None if mask.all() else mask[:, None, None]
    return RowGroup(start, len(rows), QUERIES, keys.flatten(), (), seen, fresh=True)


def _with_own(gathered: Tensor, own: Tensor) -> Tensor:
    """[rows, kv_heads, keys, d]; the gather left room for the own keys [rows * queries, kv_heads, d]."""
    keys = gathered.view(len(own) // QUERIES, -1, *own.shape[1:])
    keys[:, -QUERIES:] = own.view(-1, QUERIES, *own.shape[1:])
    return keys.transpose(1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.attention", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("bench/results/attention.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=150)
    setup = describe_setup(
        f"{QUERIES} queries, {HEADS} heads, {KV_HEADS} key heads, pages of {PAGE}", "float32", 1
    )
    print_setup(console, setup)
    cases = [(d, rows, span, False) for d in DIMS for rows in ROWS for span in PREFIXES]
    cases += [(d, 16, (512, 2048), scattered) for d in DIMS for scattered in (False, True)]
    figures: dict[str, dict[str, Figure]] = {}
    with Progress(console=console, transient=True) as progress, torch.inference_mode():
        for dim, rows, span, scattered in progress.track(cases):
            prefix = f"{span[0]}" if span[0] == span[1] else f"{span[0]}–{span[1]}"
            name = f"d {dim}, {rows} rows, prefix {prefix}{', pages scattered' if scattered else ''}"
            figures[name] = measure(make_case(rows, span, dim, scattered=scattered), options.rounds)
    print_figures(console, "Attention of one layer on a CPU", "µs", figures)
    found = {
        case: {name: (f.median, f.low, f.high) for name, f in by.items()} for case, by in figures.items()
    }
    write_json(options.out, setup, {"unit": "µs a call: median, lowest, highest", "figures": found})


if __name__ == "__main__":
    main()
