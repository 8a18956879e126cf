"""How many canvases fit a GPU beside a model's weights: `python -m easel.bench.memory`.

The shapes are those of a published model. They are counted on the meta device by the code that
allocates; where there is a GPU with room for them, the state is allocated there too, and what
torch then says it holds is printed beside the count. Everything is counted twice, with weights in
bfloat16 and with matrices rounded to float8.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from easel.bench.report import describe_setup, print_setup, write_json
from easel.cluster.model_report import readable
from easel.worker.config import EngineConfig
from easel.worker.footprint import Footprint
from easel.worker.kv_cache import KVCache
from easel.worker.sketch import sketch_preset
from easel.worker.state import store_tokens
from easel.worker.storage import Storage

BUDGETS = (80, 141)  # 10⁹ bytes
COUNTS = (1, 8, 32, 128, 256)  # slots
GPU = torch.device("cuda")  # whether there is one here or not
WEIGHTS = {"bfloat16": Storage(), "float8": Storage(quantise=True, float8=True)}


@dataclass(frozen=True, slots=True)
class Fit:
    """What fits a budget, and what each part takes of it, in bytes."""

    weights: str  # what matrices are in
    budget: int
    slots: int
    pages: int
    parts: dict[str, int]


def fits(weights: str, footprint: Footprint, prefix: int) -> list[Fit]:
    """Of each budget, as many slots as fit, each with pages for `prefix` tokens."""
    each, found = -(-prefix // footprint.page_size), list[Fit]()
    for budget in (gigabytes * 10**9 for gigabytes in BUDGETS):
        slots, _ = footprint.fit(budget, None, None, prefix)
        found.append(Fit(weights, budget, slots, slots * each, footprint.parts(slots, slots * each)))
    return found


def demand(footprint: Footprint, slots: int, prefix: int) -> int:
    """Bytes of everything, for that many slots with pages for `prefix` tokens each."""
    return footprint.total(slots, slots * -(-prefix // footprint.page_size))


def allocated_on_gpu(footprint: Footprint, slots: int, prefix: int) -> int:
    """Bytes that torch reports after the stores of keys and values have been allocated on the GPU."""
    shape = footprint.shape(slots, slots * -(-prefix // footprint.page_size))
    before = torch.cuda.memory_allocated()
    groups = footprint.sketch.dimensions.kv_groups
    tokens = store_tokens(shape, footprint.sketch.dimensions)
    cache = KVCache.allocate(groups, tokens, shape.page_size, footprint.dtype, GPU)
    held = torch.cuda.memory_allocated() - before
    del cache
    return held


def print_slot(console: Console, footprint: Footprint) -> None:
    slot = footprint.slot()
    table = Table("part of a slot", "bytes", "", title="Of each canvas, besides its pages")
    for part, size in slot.items():
        table.add_row(part, f"{size:,}", readable(size))
    table.add_row("all", f"{sum(slot.values()):,}", readable(sum(slot.values())))
    console.print(table)


def print_fits(console: Console, fits: Sequence[Fit], prefix: int) -> None:
    table = Table(
        "matrices in", "budget, GB", "slots", *fits[0].parts, title=f"With {prefix:,} prefix tokens each"
    )
    for found in fits:
        parts = [readable(size) for size in found.parts.values()]
        table.add_row(found.weights, f"{found.budget / 1e9:.0f}", str(found.slots), *parts)
    console.print(table)


def main() -> None:
    options = _options()
    console = Console()
    setup = describe_setup(options.preset, "bfloat16", torch.get_num_threads())
    print_setup(console, setup)
    sketch = sketch_preset(options.preset)
    footprints = {
        name: Footprint.of(sketch, EngineConfig(), torch.bfloat16, storage, device=GPU)
        for name, storage in WEIGHTS.items()
    }
    footprint = footprints["bfloat16"]
    print_slot(console, footprint)
    found = [fit for name, each in footprints.items() for fit in fits(name, each, options.prefix)]
    print_fits(console, found, options.prefix)
    demands = {count: demand(footprint, count, options.prefix) for count in COUNTS}
    console.print("  ".join(f"{count} slots: {size / 1e9:.1f} GB" for count, size in demands.items()))
    measured = None
    if torch.cuda.is_available():
        measured = allocated_on_gpu(footprint, options.gpu_slots, options.prefix)
        console.print(f"{options.gpu_slots} slots' keys and values on the GPU: {readable(measured)}")
    results = {
        "prefix": options.prefix,
        "slot": footprint.slot(),
        "fits": [asdict(fit) for fit in found],
        "demand": {str(count): size for count, size in demands.items()},
        "gpu_bytes": measured,
    }
    write_json(options.out, setup, results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.memory", description=__doc__)
    parser.add_argument("--preset", default="DiffusionGemma-26B-A4B")
    parser.add_argument("--prefix", type=int, default=4096, help="tokens before each canvas")
    parser.add_argument("--gpu-slots", type=int, default=32, help="slots to allocate on a GPU")
    parser.add_argument("--out", type=Path, default=Path("bench/results/memory.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
