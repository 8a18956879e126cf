"""Random requests that between them use every setting of a request."""

from random import Random

from easel.bench.oracles.cases import random_sampling, random_tokens
from easel.scheduler.request import CommitRule, DiffusionParams, Request, Schedule


def random_request(name: str, draw: Random, *, block_length: int, vocab_size: int) -> Request:
    prompt_tokens = draw.choice([draw.randint(1, 4 * block_length), draw.randint(1, 3) * block_length])
    return Request(
        request_id=name,
        prompt=random_tokens(draw, prompt_tokens, vocab_size),
        sampling=random_sampling(draw, draw.randint(1, 3 * block_length)),
        diffusion=random_diffusion(draw),
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
