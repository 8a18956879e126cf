"""Random requests that between them use every setting a family publishes."""

from dataclasses import replace
from random import Random

from easel.bench.oracles.masked import Oracle
from easel.scheduler.request import DiffusionParams, Request, SamplingParams

FIRST_TOKEN = 5  # smaller ids are special


def random_tokens(draw: Random, count: int, vocabulary: int = 105) -> tuple[int, ...]:
    return tuple(draw.randrange(FIRST_TOKEN, vocabulary) for _ in range(count))


def random_requests(
    oracle: Oracle, count: int, seed: int, *, editing: bool = False, blocks: int = 3
) -> list[Request]:
    """Prompts and answers of up to `blocks` blocks, half of the prompts ending with a block."""
    draw = Random(seed)
    length = oracle.block_length
    return [
        Request(
            request_id=f"{seed}/{index}",
            prompt=random_tokens(
                draw, draw.choice([draw.randint(1, blocks * length), draw.randint(1, blocks) * length])
            ),
            sampling=random_sampling(draw, draw.randint(1, blocks * length)),
            diffusion=_editing(draw, length) if editing else _diffusion(draw, oracle),
        )
        for index in range(count)
    ]


def random_sampling(draw: Random, max_tokens: int) -> SamplingParams:
    sampling = SamplingParams(max_tokens=max_tokens, seed=draw.getrandbits(63))
    if draw.random() < 0.4:
        return sampling
    return replace(
        sampling,
        temperature=draw.choice([0.3, 0.8, 1.5]),
        top_k=draw.choice([0, 0, 1, 3, 40]),
        top_p=draw.choice([1.0, 1.0, 0.3, 0.9]),
    )


def _diffusion(draw: Random, oracle: Oracle) -> DiffusionParams:
    return DiffusionParams(
        steps=draw.choice([1, 2, 3, 5, 8, 32]),
        commit_rule=draw.choice(sorted(oracle.rules)),
        threshold=draw.choice([0.3, 0.5, 0.9]),
        entropy_bound=draw.choice([0.35, 2.0, 6.0]),
    )


def _editing(draw: Random, block_length: int) -> DiffusionParams:
    """LLaDA2.1 decides one position a step at least."""
    return DiffusionParams(
        steps=block_length,
        threshold=draw.choice([0.5, 0.7, 0.95]),
        edit_threshold=draw.choice([0.0, 0.3, 0.5, 0.9]),
    )
