"""The size table of docs/models.md, made from the code; `python -m easel.bench.sizes` rewrites it."""

from pathlib import Path

import torch
import typer

from easel.cluster.model_report import billions, fitting, readable
from easel.worker.allocation import RESERVE
from easel.worker.config import EngineConfig
from easel.worker.devices import Device, known_device
from easel.worker.footprint import Footprint
from easel.worker.presets import preset_names
from easel.worker.sketch import sketch_preset

BEGIN, END = "<!-- sizes: python -m easel.bench.sizes -->", "<!-- end of sizes -->"
DEVICES = ("H100", "H200")
DOCUMENT = Path("docs/models.md")


def size_table() -> str:
    """Markdown: a row for each preset, in bfloat16."""
    head = ["model", "parameters", "per token", "weights", "slot", "1,000 prefix tokens"]
    head += [f"{name}: slots, prefix tokens" for name in DEVICES]
    rows = [head, ["---", *["--:"] * (len(head) - 1)], *(_row(name) for name in preset_names())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def rewritten(text: str) -> str:
    """A document with the table between its two marks made anew."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{size_table()}\n{END}{after}"


def _row(name: str) -> list[str]:
    sketch = sketch_preset(name)
    footprint = Footprint.of(sketch, EngineConfig(), torch.bfloat16, device=torch.device("cuda"))
    return [
        name,
        billions(sketch.anatomy.parameters),
        billions(sketch.anatomy.active),
        readable(footprint.weights),
        readable(sum(footprint.slot().values())),
        readable(footprint.page * 1000 / footprint.page_size),
        *(_fit(footprint, known_device(device)) for device in DEVICES),
    ]


def _fit(footprint: Footprint, device: Device) -> str:
    slots, pages = fitting(footprint, int(device.memory * (1.0 - RESERVE)))
    return f"{slots:,}; {pages * footprint.page_size:,}" if slots else "does not fit"


def main(document: Path = DOCUMENT) -> None:
    """Rewrites the size table of a document."""
    document.write_text(rewritten(document.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
