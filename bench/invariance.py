"""What batch-invariant mode costs on a CPU: `python -m easel.bench.invariance`.

Two engines of one model, with the mode and without, do the same work in turn; the cost of a round is the
ratio of their processor times, on one thread, so that other work on the machine touches little. The embedded
model does demo tasks; random models of each kind of layer do random ones, with prompts of many lengths.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file as _save_file  # pyright: ignore[reportUnknownVariableType]

from easel.bench.report import Figure, describe_setup, figure, print_figures, print_setup, write_json
from easel.bench.workload import demo_jobs
from easel.scheduler.request import DiffusionParams, Request, SamplingParams
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.loading import load_engine
from easel.worker.models.registry import definition_of
from easel.worker.presets import read_preset

CONCURRENCY = (1, 8, 32)
MODES = ("never", "always")
BLOCK, VOCABULARY = 32, 2048
LONGEST_PROMPT, LONGEST_ANSWER = 200, 32
LEAST_REQUESTS = 4  # of a round
ENDLESS = VOCABULARY + 1  # end of sequence, outside the vocabulary: no request stops early

_COMMON: Mapping[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "vocab_size": VOCABULARY,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 1024,
    "eos_token_id": ENDLESS,
    "mask_token_id": 0,
    "block_size": BLOCK,
}
_EXPERTS = {"num_experts": 32, "moe_intermediate_size": 128}
# A published model's layout with sizes that a core can do.
RANDOM: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "SDAR, 7 M": ("SDAR-8B-Chat", {"num_hidden_layers": 6}),
    "LLaDA2, 32 experts": ("LLaDA2.0-mini", _EXPERTS | {"num_hidden_layers": 4}),
    "DiffusionGemma, 32 experts": (
        "DiffusionGemma-26B-A4B",
        _EXPERTS
        | {
            "num_hidden_layers": 6,
            "layer_types": [*["sliding_attention"] * 5, "full_attention"],
            "num_global_key_value_heads": 2,
            "global_head_dim": 64,
            "sliding_window": 128,
            "canvas_length": BLOCK,
            "top_k_experts": 4,
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Work:
    """A model, and what it is asked for."""

    path: Path
    requests: Callable[[Engine, int, int], Sequence[Request]]  # of an engine, a count and a seed


def write_random(path: Path, preset: str, changed: Mapping[str, Any]) -> None:
    """A checkpoint of a published model's layout, with other sizes and random weights."""
    fields, changed = dict(read_preset(preset).config), {**_COMMON, **changed}
    text = fields.get("text_config", {})
    if text:
        fields["text_config"] = text | {name: value for name, value in changed.items() if name in text}
    fields |= {name: value for name, value in changed.items() if name not in text}
    definition = definition_of(fields["architectures"][0])
    plan = definition.parameter_plan(definition.read_config(fields))
    torch.manual_seed(0)
    _save_file(
        {name: torch.randn(source.shape) * 0.05 for name, source in plan.sources.items()},
        path / "model.safetensors",
    )
    (path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": ENDLESS}), encoding="utf-8")


def random_requests(engine: Engine, count: int, seed: int) -> list[Request]:
    """Prompts and answers of many lengths; no two seeds share a prefix."""
    draw, renoises = Random(seed), engine.model.family.renoises
    steps = {"steps": 4} if renoises else {"steps": 4, "threshold": 1.0}
    return [
        Request(
            request_id=f"{seed}/{index}",
            prompt=tuple(draw.randrange(5, VOCABULARY) for _ in range(draw.randint(8, LONGEST_PROMPT))),
            sampling=SamplingParams(max_tokens=draw.randint(1, LONGEST_ANSWER), seed=index),
            diffusion=replace(DiffusionParams() if not renoises else engine.model.diffusion, **steps),
        )
        for index in range(count)
    ]


def demo_requests(engine: Engine, count: int, seed: int) -> list[Request]:
    return [job.request for job in demo_jobs(engine.model, count, seed)]


def processor_seconds(engine: Engine, requests: Iterable[Request]) -> float:
    """Of this process, until all requests are answered."""
    for request in requests:
        engine.submit(request)
    started = time.process_time()
    while engine.has_work:
        engine.step()
    return time.process_time() - started


def cost(work: Work, dtype: str, concurrency: int, rounds: int) -> Figure:
    """Processor time with the mode in percent of that without, less 100: over rounds of the same requests."""
    config = EngineConfig(slots=concurrency, pages=1024, dtype=dtype)
    engines = {mode: load_engine(work.path, replace(config, batch_invariant=mode)) for mode in MODES}
    found: list[float] = []
    for number in range(rounds + 1):
        requests = work.requests(
            engines["never"], max(concurrency, LEAST_REQUESTS), 1000 * concurrency + number
        )
        order = MODES if number % 2 else MODES[::-1]
        seconds = {mode: processor_seconds(engines[mode], requests) for mode in order}
        found.append(100.0 * (seconds["always"] / seconds["never"] - 1.0))
    return figure(found[1:])  # the first round warms up


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    console = Console()
    setup = describe_setup("embedded and random", ", ".join(options.dtypes), 1)
    print_setup(console, setup)
    figures: dict[str, dict[str, Figure]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = {"embedded": Work(options.model, demo_requests)}
        for name, (preset, changed) in RANDOM.items():
            path = Path(folder, preset)
            path.mkdir()
            write_random(path, preset, changed)
            work[name] = Work(path, random_requests)
        cases = [(name, dtype) for dtype in options.dtypes for name in work]
        for name, dtype in track(cases, console=console, description="Measuring"):
            figures[f"{name}, {dtype}"] = {
                f"{count} concurrent": cost(work[name], dtype, count, options.rounds) for count in CONCURRENCY
            }
    print_figures(console, "Processor time that the mode costs", "%", figures)
    rounds = {case: {name: each.rounds for name, each in row.items()} for case, row in figures.items()}
    medians = {case: {name: each.median for name, each in row.items()} for case, row in figures.items()}
    write_json(options.out, setup, {"unit": "% of processor time", "medians": medians, "rounds": rounds})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.invariance", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("demo/checkpoint"))
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("bench/results/invariance.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
