"""DiffusionGemma in Easel beside transformers' own `generate`: `python -m easel.bench.vs_transformers`.

One random checkpoint, float32, one thread; every canvas takes exactly the same number of steps on both
sides. Transformers runs with a dynamic cache and SDPA: a request at a time, and eight prompts of one
length as one batch, the best it can do. Figures are by the process's own processor time, so that other
programs on the machine weigh little; wall time stands beside them in the JSON file.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import torch
import transformers
from rich.console import Console
from transformers import Gemma4VisionConfig
from transformers.models.diffusion_gemma import (
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    DiffusionGemmaTextConfig,
)

from easel.bench.oracles.cases import random_tokens
from easel.bench.oracles.diffusion_gemma import Reference, Settings, TinyGemma, generation_config, randomise
from easel.bench.report import (
    Figure,
    alternate,
    describe_setup,
    figure,
    print_figures,
    print_setup,
    write_json,
)
from easel.scheduler.messages import BlockEvent
from easel.scheduler.request import DiffusionParams, Request, SamplingParams
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.loading import load_engine

BATCH = 8
EOS, PAD = 1, 2
ENGINE_ONE, ENGINE_MANY = "engine, 1", f"engine, {BATCH}"
LOOP_ONE, LOOP_MANY = "transformers, 1", f"transformers, batch of {BATCH}"
RATIOS = {
    "1 concurrent": (ENGINE_ONE, LOOP_ONE),
    f"{BATCH} concurrent, over one batch": (ENGINE_MANY, LOOP_MANY),
    f"{BATCH} concurrent, over one after the other": (ENGINE_MANY, LOOP_ONE),
}
GOALS = "2 at 1, 5 at 8"


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of the checkpoint; the ratios of its widths are near the published model's."""

    vocabulary: int
    canvas: int
    hidden: int = 256
    layers: int = 6  # the last one full, the others sliding
    heads: int = 8
    head_dim: int = 32
    experts: int = 8
    chosen: int = 2

    @property
    def name(self) -> str:
        return f"canvas {self.canvas}, vocabulary {self.vocabulary:,}"


SHAPES = tuple(Shape(vocabulary, canvas) for vocabulary in (8192, 32_768) for canvas in (32, 64))


@dataclass(frozen=True, slots=True)
class Load:
    """What each request asks for."""

    prompt: int = 48  # tokens
    canvases: int = 3
    steps: int = 8

    def settings(self) -> Settings:
        """As published, but for the stop, which no random model's mean entropy reaches."""
        return Settings(steps=self.steps, stop_entropy=1e-30)


@dataclass(slots=True)
class Contest:
    """Both sides on one checkpoint."""

    shape: Shape
    load: Load
    engine: Engine
    reference: Reference
    rounds: int = 0
    wall: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def variants(self) -> dict[str, Callable[[], float]]:
        return {
            ENGINE_ONE: self._timed(ENGINE_ONE, 2, self._engine_in_turn),
            LOOP_ONE: self._timed(LOOP_ONE, 2, self._loop_in_turn),
            ENGINE_MANY: self._timed(ENGINE_MANY, BATCH, self._engine_together),
            LOOP_MANY: self._timed(LOOP_MANY, BATCH, self._loop_together),
        }

    def _timed(
        self, name: str, requests: int, run: Callable[[Sequence[Sequence[int]]], int]
    ) -> Callable[[], float]:
        """Committed tokens a second of processor time, of new prompts, so that none is cached."""

        def once() -> float:
            self.rounds += 1
            draw = Random(self.rounds)
            prompts = [random_tokens(draw, self.load.prompt, self.shape.vocabulary) for _ in range(requests)]
            started, worked = time.perf_counter(), time.process_time()
            tokens = run(prompts)
            wall, work = time.perf_counter() - started, time.process_time() - worked
            expected = requests * self.load.canvases * self.shape.canvas
            if tokens != expected:
                raise RuntimeError(f"{name}: {tokens} tokens were committed where {expected} were asked for")
            self.wall.setdefault(name, []).append(tokens / wall)
            return tokens / work

        return once

    def _engine_in_turn(self, prompts: Sequence[Sequence[int]]) -> int:
        return sum(self._engine_together([prompt]) for prompt in prompts)

    def _engine_together(self, prompts: Sequence[Sequence[int]]) -> int:
        settings = self.load.settings()
        diffusion = DiffusionParams(
            steps=settings.steps,
            entropy_bound=settings.entropy_bound,
            stop_entropy=settings.stop_entropy,
            stability=settings.stability,
            temperature_start=settings.temperature_start,
            temperature_end=settings.temperature_end,
        )
        for index, prompt in enumerate(prompts):
            sampling = SamplingParams(self.load.canvases * self.shape.canvas, temperature=1.0, seed=index)
            self.engine.submit(Request(str(index), tuple(prompt), sampling, diffusion))
        tokens = 0
        while self.engine.has_work:
            for event in self.engine.step():
                if isinstance(event, BlockEvent):
                    if event.steps != self.load.steps:
                        raise RuntimeError(f"a canvas took {event.steps} steps, not {self.load.steps}")
                    tokens += len(event.tokens)
        return tokens

    def _loop_in_turn(self, prompts: Sequence[Sequence[int]]) -> int:
        return sum(self._loop_together([prompt]) for prompt in prompts)

    def _loop_together(self, prompts: Sequence[Sequence[int]]) -> int:
        config = generation_config(self.load.settings(), self.reference.tiny, [EOS])
        config.max_new_tokens = self.load.canvases * self.shape.canvas
        # It imports the whole compiler to say that nothing is compiled.
        with patch.object(torch.compiler, "cudagraph_mark_step_begin", lambda: None):
            found: Any = self.reference.model.generate(torch.tensor(prompts), generation_config=config)
        per_forward: list[float] = found.tokens_per_forward.tolist()
        if per_forward != [self.shape.canvas / self.load.steps] * len(prompts):
            raise RuntimeError(f"transformers made {per_forward} tokens a step: canvases stopped early")
        return found.sequences[:, self.load.prompt :].numel()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Tokens a second of each variant."""

    by_work: dict[str, Figure]  # of processor time
    by_wall: dict[str, Figure]

    def ratios(self) -> dict[str, Figure]:
        """Of processor time, round by round."""
        rounds = {
            name: zip(self.by_work[ours].rounds, self.by_work[theirs].rounds, strict=True)
            for name, (ours, theirs) in RATIOS.items()
        }
        return {name: figure([a / b for a, b in pairs]) for name, pairs in rounds.items()}


def measure(shape: Shape, load: Load, rounds: int) -> Outcome:
    """Write a checkpoint, load it on both sides, and let them take turns."""
    with tempfile.TemporaryDirectory() as folder:
        reference = write_model(Path(folder), shape, load)
        engine = load_engine(Path(folder), EngineConfig(slots=BATCH, pages=128, dtype="float32"))
    contest = Contest(shape, load, engine, reference)
    variants = contest.variants()
    contest.load = replace(load, canvases=1)
    for warm_up in variants.values():
        warm_up()
    contest.load = load
    contest.wall.clear()
    by_work = alternate(variants, rounds)
    return Outcome(by_work, {name: figure(values) for name, values in contest.wall.items()})


@torch.no_grad()
def write_model(path: Path, shape: Shape, load: Load) -> Reference:
    """Write a random checkpoint to `path` and return the model it holds, in float32."""
    model: Any = DiffusionGemmaForBlockDiffusion(_config(shape))
    model.float().eval()
    randomise(model, torch.Generator().manual_seed(0))
    # No request may end early: a token without an embedding is never the most probable one.
    model.model.decoder.embed_tokens.weight[[EOS, PAD]] = 0.0
    tiny = TinyGemma(
        vocab_size=shape.vocabulary, canvas_length=shape.canvas, eos_token_ids=(EOS,), pad_token_id=PAD
    )
    model.generation_config = generation_config(load.settings(), tiny, tiny.eos_token_ids)
    model.save_pretrained(path)
    return Reference(model, tiny)


def _config(shape: Shape) -> DiffusionGemmaConfig:
    ends: dict[str, Any] = {"pad_token_id": PAD, "eos_token_id": [EOS]}
    full: dict[str, Any] = {"global_head_dim": 2 * shape.head_dim, "num_global_key_value_heads": 2}
    text = DiffusionGemmaTextConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads // 2,
        head_dim=shape.head_dim,
        max_position_embeddings=1024,
        sliding_window=128,
        layer_types=["sliding_attention"] * (shape.layers - 1) + ["full_attention"],
        num_experts=shape.experts,
        top_k_experts=shape.chosen,
        moe_intermediate_size=shape.hidden // 2,
        **full,
    )
    # Without a configuration the vision tower would be built in its full size.
    vision = Gemma4VisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        position_embedding_size=16,
    )
    return DiffusionGemmaConfig(text_config=text, vision_config=vision, canvas_length=shape.canvas, **ends)


def as_lists(figures: dict[str, Figure]) -> dict[str, list[float]]:
    """[median, lowest, highest] of each, for the JSON file."""
    return {name: [round(value, 3) for value in (f.median, f.low, f.high)] for name, f in figures.items()}


def as_rows(outcomes: dict[Shape, Outcome]) -> Iterator[dict[str, object]]:
    for shape, outcome in outcomes.items():
        yield {
            "shape": asdict(shape),
            "by_processor_time": as_lists(outcome.by_work),
            "by_wall_time": as_lists(outcome.by_wall),
            "engine_over_transformers": as_lists(outcome.ratios()),
        }


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    console, load = Console(), Load(canvases=options.canvases, steps=options.steps)
    setup = describe_setup("random DiffusionGemma, hidden 256, 6 layers", "float32", options.threads)
    print_setup(console, setup)
    outcomes = {shape: measure(shape, load, options.rounds) for shape in SHAPES}
    rows = {shape.name: outcome.by_work for shape, outcome in outcomes.items()}
    print_figures(console, "Committed tokens per second of processor time", "tok/s", rows)
    ratios = {shape.name: outcome.ratios() for shape, outcome in outcomes.items()}
    for shape, found in ratios.items():
        for name, ratio in found.items():
            console.print(
                f"{shape}: {name}: {ratio.median:.2f} × transformers ({ratio.low:.2f}–{ratio.high:.2f})"
            )
    console.print(f"goals: {GOALS}")
    results = {"transformers": transformers.__version__, "load": asdict(load), "goals": GOALS}
    write_json(options.out, setup, {**results, "unit": "tok/s", "results": list(as_rows(outcomes))})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m easel.bench.vs_transformers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--canvases", type=int, default=3, help="of each request")
    parser.add_argument("--steps", type=int, default=8, help="of each canvas")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("bench/results/vs_transformers.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
