"""Canvas figures of servers that put none into their answers: counters of /metrics, before and after.

The names are Easel's own, and those of vLLM's diffusion models, which Easel has too. vLLM commits a canvas
in a forward of its own and counts it as a step; Easel's own counter has denoising steps alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from easel.bench.harness.client import LoadClient
from easel.bench.harness.errors import NoServer

POSITION_STEPS = ("vllm:diffusion_num_denoising_steps_total",)
STEPS = ("easel_steps_total", *POSITION_STEPS)
TOKENS = ("easel_output_tokens_total", "vllm:diffusion_num_committed_tokens_total")
POSITIONS = ("vllm:diffusion_num_canvas_positions_total",)
BLOCKS = ("easel_blocks_total",)
NAMES = frozenset(STEPS + TOKENS + POSITIONS + BLOCKS)
SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """What the whole server did meanwhile, whoever asked for it."""

    steps: int
    tokens: int
    tokens_per_forward: float
    positions_per_step: float | None
    steps_per_block: float | None


def read_counters(text: str) -> dict[str, float]:
    """The counters of interest, summed over their labels."""
    totals: dict[str, float] = {}
    for name, value in SAMPLE.findall(text):
        if name in NAMES:
            totals[name] = totals.get(name, 0.0) + float(value)
    return totals


async def scrape(client: LoadClient) -> dict[str, float]:
    """{} where the server has no /metrics."""
    try:
        return read_counters(await client.text("/metrics"))
    except NoServer:
        return {}


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> ServerFigures | None:
    """None where the counters are missing, stood still, or began anew."""
    steps, tokens = _grown(before, after, STEPS), _grown(before, after, TOKENS)
    if steps is None or tokens is None:
        return None
    positions, blocks = _grown(before, after, POSITIONS), _grown(before, after, BLOCKS)
    position_steps = _grown(before, after, POSITION_STEPS)
    return ServerFigures(
        steps=round(steps),
        tokens=round(tokens),
        tokens_per_forward=tokens / steps,
        positions_per_step=None
        if positions is None or position_steps is None
        else positions / position_steps,
        steps_per_block=None if blocks is None else steps / blocks,
    )


def _grown(before: Mapping[str, float], after: Mapping[str, float], names: tuple[str, ...]) -> float | None:
    for name in names:
        if name in after and (grown := after[name] - before.get(name, 0.0)) > 0.0:
            return grown
    return None
