"""Canvas positions a second and core, of a model of 7 M parameters: `python -m easel.bench.positions`.

Sixteen canvases of 32 that decide one position a step, on a random model (hidden 256, 6 layers), in
every dtype and order of weights that this CPU can multiply. Beside the engine stand the matrix
products of its forwards alone: no engine can be faster than they are.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from transformers import Qwen3Config, Qwen3ForCausalLM

from easel.bench.engine import as_medians
from easel.bench.report import alternate, describe_setup, print_figures, print_setup, write_json
from easel.kernels.linear import Weight, linear, packs
from easel.scheduler.messages import BlockEvent
from easel.scheduler.request import DiffusionParams, Request, SamplingParams
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.loading import load_engine
from easel.worker.models.decoder import Decoder
from easel.worker.models.mlp import DenseMLP

CANVASES, BLOCK, PROMPT, BLOCKS = 16, 32, 64, 2
VOCABULARY = 4096
MASK, EOS = 0, VOCABULARY  # outside the vocabulary: no request stops early
ONE_A_STEP = DiffusionParams(steps=BLOCK, threshold=1.0)


@dataclass(frozen=True, slots=True)
class Variant:
    """How the weights are kept."""

    dtype: torch.dtype
    packed: bool

    @property
    def name(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        return f"{kind}, packed" if self.packed else kind

    @property
    def config(self) -> EngineConfig:
        return EngineConfig(
            slots=CANVASES,
            pages=CANVASES * 8,
            dtype=str(self.dtype).removeprefix("torch."),
            pack_weights="always" if self.packed else "never",
        )


def variants() -> Iterator[Variant]:
    """What oneDNN can pack on this machine is tried packed as well."""
    for dtype in (torch.float32, torch.bfloat16):
        yield Variant(dtype, packed=False)
        if packs(dtype):
            yield Variant(dtype, packed=True)


def write_model(folder: Path) -> int:
    """A random SDAR; returns how many parameters it has."""
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    written |= {"architectures": ["SDARForCausalLM"], "block_size": BLOCK}
    written |= {"mask_token_id": MASK, "eos_token_id": EOS}
    (folder / "config.json").write_text(json.dumps(written), encoding="utf-8")
    return sum(parameter.numel() for parameter in model.parameters())


def engine_run(engine: Engine) -> Callable[[], float]:
    """Positions a second of processor time; every run has prompts of its own, so that none is cached."""
    runs = 0

    def once() -> float:
        nonlocal runs
        runs += 1
        for index in range(CANVASES):
            prompt = tuple((7 * runs + 3 * index + place) % (VOCABULARY - 1) + 1 for place in range(PROMPT))
            sampling = SamplingParams(max_tokens=BLOCKS * BLOCK)
            engine.submit(Request(f"{runs}/{index}", prompt, sampling, ONE_A_STEP))
        positions, started = 0, time.process_time()
        while engine.has_work:
            events = engine.step()
            positions += sum(event.steps * BLOCK for event in events if isinstance(event, BlockEvent))
        return positions / (time.process_time() - started)

    return once


def products_run(engine: Engine) -> Callable[[], float]:
    """The same of nothing but the matrix products that a step of all canvases needs."""
    model = engine.runner.machine.model
    if not isinstance(model, Decoder):
        raise TypeError(f"{type(model).__name__} is no decoder")
    weights: list[Weight] = []
    for layer in model.layers:
        if not isinstance(layer.mlp, DenseMLP):
            raise TypeError("a layer of the model has experts")
        weights += [layer.qkv, layer.out, layer.mlp.gate_up, layer.mlp.down]
    tokens = CANVASES * BLOCK
    inputs = {width: torch.randn(tokens, width, dtype=model.head.dtype) for width in (256, 1024)}
    wide = {id(layer.mlp.down) for layer in model.layers if isinstance(layer.mlp, DenseMLP)}
    # On average half of a canvas's positions are still open, and only those need the head.
    half = inputs[256][: tokens // 2]

    @torch.inference_mode()
    def once() -> float:
        started, steps = time.process_time(), 20 if model.head.dtype == torch.float32 else 2
        for _ in range(steps):
            for weight in weights:
                linear(inputs[1024 if id(weight) in wide else 256], weight)
            linear(half, model.head)
        return steps * tokens / (time.process_time() - started)

    return once


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        parameters = write_model(Path(folder))
        setup = describe_setup(f"random, {parameters / 1e6:.1f} M", "every", 1)
        print_setup(console, setup)
        runs: dict[tuple[str, str], Callable[[], float]] = {}
        for variant in variants():
            engine = load_engine(Path(folder), variant.config)
            runs[variant.name, "engine"] = engine_run(engine)
            runs[variant.name, "products alone"] = products_run(engine)
        for run in runs.values():
            run()
        found = alternate(runs, options.rounds)
    figures = {name: {part: found[name, part] for other, part in found if other == name} for name, _ in found}
    print_figures(console, "Canvas positions a second of a core", "1/s", figures)
    write_json(options.out, setup, {"unit": "positions/s", "figures": as_medians(figures)})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.positions", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench/results/positions.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
