"""A request body and the model's defaults -> one scheduler Request per choice."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from easel.cluster.gateway.bodies import DiffusionOptions, GenerationBody
from easel.cluster.gateway.errors import ContextLengthExceeded, InvalidField, shown
from easel.scheduler.errors import InvalidParameter
from easel.scheduler.request import MAX_SEED, DiffusionParams, Priority, Request, SamplingParams
from easel.worker.model_info import ModelInfo

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asks, under which id and terms, and the seed that counts if the body names none."""

    completion_id: str
    tenant: str
    fresh_seed: int
    priority: int = Priority.STANDARD
    deadline_seconds: float | None = None


def requests_of(
    body: GenerationBody, prompts: Sequence[Tokens], prompt_field: str, model: ModelInfo, origin: Origin
) -> list[Request]:
    """One Request per choice, in the order of their index: all choices of a prompt, then the next prompt.

    Raises ContextLengthExceeded, InvalidField, or InvalidParameter.
    """
    diffusion = _diffusion(body.diffusion, model)
    requests: list[Request] = []
    for prompt in prompts:
        _check_tokens(prompt, prompt_field, model)
        max_tokens = _max_tokens(len(prompt), prompt_field, body.output_tokens, model)
        for choice in range(body.n or 1):
            requests.append(
                Request(
                    request_id=f"{origin.completion_id}-{len(requests)}",
                    prompt=prompt,
                    sampling=_sampling(body, model, max_tokens, choice_seed(seed_of(body, origin), choice)),
                    diffusion=diffusion,
                    tenant=origin.tenant,
                    priority=origin.priority,
                    snapshots=body.canvas_wanted,
                    deadline_seconds=origin.deadline_seconds,
                )
            )
    return requests


def seed_of(body: GenerationBody, origin: Origin) -> int:
    """The seed of the whole HTTP request; the response names it, so that it can be repeated."""
    return origin.fresh_seed if body.seed is None else body.seed


def choice_seed(seed: int, choice: int) -> int:
    """The first choice draws what the same request with n = 1 would; the others differ from it."""
    if choice == 0:
        return seed
    digest = hashlib.blake2b(f"{seed}/{choice}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") & MAX_SEED


def _sampling(body: GenerationBody, model: ModelInfo, max_tokens: int, seed: int) -> SamplingParams:
    top_k = model.top_k if body.top_k is None else body.top_k
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=model.temperature if body.temperature is None else body.temperature,
        top_k=min(top_k, model.vocab_size),  # as many as there are; a larger number fits no register
        top_p=model.top_p if body.top_p is None else body.top_p,
        seed=seed,
    )


def _diffusion(options: DiffusionOptions, model: ModelInfo) -> DiffusionParams:
    chosen = options.model_dump(exclude_none=True)
    for name in chosen:
        if name not in model.family.options:
            known = ", ".join(sorted(model.family.options))
            problem = f"means nothing to this {model.family.name} model; it takes {known}."
            raise InvalidField(f"diffusion.{name}", problem)
    try:
        return replace(model.diffusion, **chosen)
    except InvalidParameter as error:
        raise InvalidField(
            f"diffusion.{error.name}", f"is {shown(error.value)}; it must be {error.expected}."
        ) from error


def _max_tokens(prompt_tokens: int, prompt_field: str, asked: int | None, model: ModelInfo) -> int:
    """What was asked for, or as much of the model's default as fits."""
    room = model.max_model_tokens - prompt_tokens
    if room < 1:
        raise ContextLengthExceeded(prompt_field, prompt_tokens, 1, model.max_model_tokens)
    if asked is not None and asked > room:
        raise ContextLengthExceeded("max_tokens", prompt_tokens, asked, model.max_model_tokens)
    return min(model.max_output_tokens, room) if asked is None else asked


def _check_tokens(prompt: Tokens, prompt_field: str, model: ModelInfo) -> None:
    if not prompt:
        raise InvalidField(prompt_field, "is empty; give at least one token.")
    for token in prompt:
        if not 0 <= token < model.vocab_size:
            problem = f"has token id {token}; ids run from 0 to {model.vocab_size - 1}."
            raise InvalidField(prompt_field, problem)
