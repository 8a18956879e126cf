"""Random requests that between them use every setting of a request."""

from dataclasses import replace
from random import Random

from easel.scheduler.request import CommitRule, DiffusionParams, Request, SamplingParams, Schedule

FIRST_TOKEN = 5  # smaller ids are special


def random_request(name: str, draw: Random, *, block_length: int, vocab_size: int) -> Request:
    prompt_tokens = draw.choice([draw.randint(1, 4 * block_length), draw.randint(1, 3) * block_length])
    return Request(
        request_id=name,
        prompt=random_tokens(draw, prompt_tokens, vocab_size),
        sampling=random_sampling(draw, draw.randint(1, 3 * block_length)),
        diffusion=random_diffusion(draw),
    )


def random_tokens(draw: Random, count: int, vocab_size: int) -> tuple[int, ...]:
    return tuple(draw.randrange(FIRST_TOKEN, vocab_size) for _ in range(count))


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


def random_diffusion(draw: Random) -> DiffusionParams:
    return DiffusionParams(
        steps=draw.choice([1, 2, 3, 5, 8, 32]),
        commit_rule=draw.choice(list(CommitRule)),
        threshold=draw.choice([0.3, 0.5, 0.9]),
        entropy_bound=draw.choice([0.35, 2.0, 6.0]),
        schedule=draw.choice(list(Schedule)),
        stop_entropy=draw.choice([None, None, 1.0, 2.5]),
    )
