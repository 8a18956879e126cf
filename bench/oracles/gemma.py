"""DiffusionGemma's published loop in the form that the masked families' loops have."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from torch import Tensor

from easel.bench.oracles.cases import random_tokens
from easel.bench.oracles.checkpoints import Checkpoint
from easel.bench.oracles.diffusion_gemma import (
    Reference,
    Settings,
    TinyGemma,
    canvas_logits,
    generate,
    write_tiny,
)
from easel.bench.oracles.masked import Answer, Generation
from easel.scheduler.request import CommitRule, DiffusionParams, Request, SamplingParams

SETTINGS = tuple(
    DiffusionParams(
        steps=steps,
        entropy_bound=bound,
        stop_entropy=stop,
        stability=stability,
        temperature_start=start,
        temperature_end=end,
    )
    for steps, bound, stop, stability, start, end in (
        (12, 0.1, 0.005, 1, 0.8, 0.4),
        (12, 4.0, 1.0, 1, 0.8, 0.4),
        (9, 12.0, 0.5, 2, 0.8, 0.4),
        (9, 0.5, 0.2, 1, 0.4, 0.1),
    )
)


@dataclass(frozen=True, slots=True)
class GemmaOracle:
    """transformers' `generate`; only requests of temperature 1 that set every option of their own."""

    checkpoint: Checkpoint
    reference: Reference
    family: str = "DiffusionGemma"
    rules: frozenset[CommitRule] = frozenset()

    @property
    def path(self) -> Path:
        return self.checkpoint.path

    @property
    def block_length(self) -> int:
        return self.checkpoint.block_length

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """[block, vocabulary] of the last block as a canvas in its first step, after the others."""
        start = len(tokens) - self.block_length
        return canvas_logits(self.reference, [tokens[:start]] if start else [], tokens[start:])

    def generate(self, request: Request) -> Generation:
        params, sampling = request.diffusion, request.sampling
        if sampling.temperature != 1.0 or params.stop_entropy is None or request.committed:
            raise ValueError("transformers' loop has temperature 1 and a stop entropy, and resumes nothing")
        settings = Settings(
            steps=params.steps,
            entropy_bound=params.entropy_bound,
            stop_entropy=params.stop_entropy,
            stability=params.stability,
            temperature_start=params.temperature_start,
            temperature_end=params.temperature_end,
        )
        eos = sorted(self.checkpoint.eos_ids)
        found = generate(self.reference, request.prompt, sampling.max_tokens, sampling.seed, settings, eos)
        answer = Answer(request, self.checkpoint.eos_ids)
        for index, steps in enumerate(found.steps):
            start = index * self.block_length
            answer.add(found.tokens[start : start + self.block_length], steps)
        return answer.generation()


def write_gemma(path: Path, tiny: TinyGemma) -> GemmaOracle:
    reference = write_tiny(path, tiny, Settings())
    eos = frozenset(tiny.eos_token_ids)
    checkpoint = Checkpoint(path, reference.model, tiny.canvas_length, eos, tiny.pad_token_id)
    return GemmaOracle(checkpoint, reference)


def random_gemma_requests(oracle: GemmaOracle, count: int, seed: int) -> list[Request]:
    """Prompts from shorter to longer than the window, one to three canvases."""
    draw, length = Random(seed), oracle.block_length
    return [
        Request(
            request_id=f"{seed}/{index}",
            prompt=random_tokens(draw, draw.choice([1, 3, 10, 15, 16, 17, 25, 40])),
            sampling=SamplingParams(draw.randint(1, 3 * length), temperature=1.0, seed=draw.getrandbits(62)),
            diffusion=SETTINGS[index % len(SETTINGS)],
        )
        for index in range(count)
    ]
