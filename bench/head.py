"""The head in tiles beside a head that holds all logits: `python -m easel.bench.head`.

A canvas of positions, from hidden states to tokens, confidences and entropies; the soft cases, which
are capped, also softly embed them. Random weights, whose logits have a deviation of about 3. Times
alternate; the bytes are the most that torch's allocator had given out at once beyond what was there.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from easel.bench.engine import as_medians
from easel.bench.report import Figure, alternate, describe_setup, print_figures, print_setup, write_json
from easel.kernels.gumbel import row_keys
from easel.kernels.head import Sampling, head_stats
from easel.kernels.noise import uniform
from easel.kernels.soft_head import SoftDraw, soft_head

FORBIDDEN, SOFTCAP = 3, 30.0


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table."""

    kind: str  # greedy, drawn, gumbel or soft
    vocabulary: int
    positions: int
    temperature: float = 0.0
    dtype: torch.dtype = torch.float32

    @property
    def name(self) -> str:
        heat = f" at {self.temperature}" if self.temperature else ""
        narrow = "" if self.dtype == torch.float32 else f", {str(self.dtype).removeprefix('torch.')}"
        return f"{self.kind}{heat}, {self.positions} of {self.vocabulary:,}{narrow}"


CASES = (
    *(Case(kind, 32_768, 256, heat) for kind, heat in (("greedy", 0.0), ("drawn", 1.0), ("drawn", 0.7))),
    Case("gumbel", 32_768, 256, 0.7),
    Case("soft", 32_768, 256, 0.7),
    *(Case(kind, 262_144, 256, heat) for kind, heat in (("greedy", 0.0), ("drawn", 0.7), ("soft", 0.7))),
    *(Case(kind, 32_768, 32, heat) for kind, heat in (("greedy", 0.0), ("drawn", 0.7), ("soft", 0.7))),
    Case("drawn", 4096, 32, 0.7, torch.bfloat16),
)


@dataclass(frozen=True, slots=True)
class Inputs:
    hidden: Tensor  # [n, h]
    weight: Tensor  # [vocabulary, h]
    temperature: Tensor  # [n]  float32
    noise: Tensor  # [n]  float64
    keys: Tensor  # [n]  int64


def inputs(case: Case, width: int) -> Inputs:
    generator, zero = torch.Generator().manual_seed(case.positions), torch.tensor(0)
    place = torch.arange(case.positions)
    weight = torch.randn(case.vocabulary, width, generator=generator) * (3.0 / width**0.5)
    return Inputs(
        torch.randn(case.positions, width, generator=generator).to(case.dtype),
        weight.to(case.dtype),
        torch.full((case.positions,), case.temperature),
        uniform(torch.tensor(1), zero, zero, place, 0),
        row_keys(torch.tensor(1), zero, zero, place, 5),
    )


def tiled(case: Case, given: Inputs) -> Callable[[], object]:
    """Easel's head."""
    if case.kind == "soft":
        draw = SoftDraw(given.noise, torch.ones_like(given.noise, dtype=torch.bool))
        return lambda: soft_head(given.hidden, given.weight, SOFTCAP, given.temperature, draw)
    sampling = None
    if case.kind != "greedy":
        off = torch.zeros_like(given.keys), torch.ones_like(given.temperature)
        keys = given.keys if case.kind == "gumbel" else None
        sampling = Sampling(given.temperature, *off, given.noise, keys)
    return lambda: head_stats(given.hidden, given.weight, FORBIDDEN, sampling)


def naive(case: Case, given: Inputs) -> Callable[[], object]:
    """Softmax, logarithm and draw over all logits at once, in float32."""

    def run() -> object:
        logits = F.linear(given.hidden, given.weight).float()
        if case.kind == "soft":
            logits = SOFTCAP * (logits / SOFTCAP).tanh() / given.temperature[:, None]
        else:
            logits[:, FORBIDDEN] = -1e9
        p, log_p = logits.softmax(-1), logits.log_softmax(-1)
        entropy = -(p * log_p).sum(-1)
        drawn = p
        if case.kind in ("drawn", "gumbel"):
            drawn = (logits / given.temperature[:, None]).softmax(-1)
        if case.kind == "greedy":
            token = drawn.argmax(-1, keepdim=True)
        else:
            mass = drawn.cumsum(-1)
            token = torch.searchsorted(mass, given.noise[:, None].float() * mass[:, -1:], right=True)
            token.clamp_(max=case.vocabulary - 1)
        confidence = drawn.gather(-1, token)
        return token, confidence, entropy, p.to(case.dtype) @ given.weight if case.kind == "soft" else None

    return run


def peak_bytes(run: Callable[[], object]) -> int:
    """The most that run takes at once, what operations take and free inside included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    recorder = cast(Any, recorded.profiler)
    events = [event for event in recorder.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def measure(case: Case, width: int, rounds: int) -> tuple[dict[str, Figure], dict[str, int]]:
    """Milliseconds of each variant, and bytes at its peak."""
    given = inputs(case, width)
    runs = {"all logits": naive(case, given), "tiles": tiled(case, given)}
    repeats = max(1, 100_000 // (case.vocabulary * case.positions // 32))

    def timed(run: Callable[[], object]) -> Callable[[], float]:
        def once() -> float:
            started = time.perf_counter()
            for _ in range(repeats):
                run()
            return (time.perf_counter() - started) / repeats * 1e3

        return once

    bytes_taken = {name: peak_bytes(run) for name, run in runs.items()}  # a warm-up as well
    return alternate({name: timed(run) for name, run in runs.items()}, rounds), bytes_taken


@torch.inference_mode()
def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    console = Console()
    setup = describe_setup(f"a head of width {options.width}", "float32", options.threads)
    print_setup(console, setup)
    figures, taken = dict[str, dict[str, Figure]](), dict[str, dict[str, int]]()
    for case in CASES:
        figures[case.name], taken[case.name] = measure(case, options.width, options.rounds)
    print_figures(console, "A canvas's head", "ms", figures)
    for name, row in figures.items():
        ratio, (before, now) = row["all logits"].median / row["tiles"].median, taken[name].values()
        console.print(
            f"{name}: {ratio:.1f} × as fast; {before / 1e6:,.1f} MB before, {now / 1e6:,.1f} MB now"
        )
    write_json(options.out, setup, {"unit": "ms", "figures": as_medians(figures), "peak_bytes": taken})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.head", description=__doc__)
    parser.add_argument("--width", type=int, default=256, help="of the hidden states")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench/results/head.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
