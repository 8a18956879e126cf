"""The published implementation of DiffusionGemma, transformers', on a tiny random checkpoint.

`generate` reads the same keyed noise as Easel, so that both can be compared token for token.
It is run one request at a time, with a dynamic cache and SDPA: its static cache is wrong once
the prefix reaches the window.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import DynamicCache, Gemma4VisionConfig
from transformers.models.diffusion_gemma import (
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    DiffusionGemmaTextConfig,
)
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    DiffusionGemmaGenerationConfig,
    EntropyBoundSampler,
    EntropyBoundSamplerConfig,
)

from easel.kernels.noise import uniform

TOKEN_DRAW, RENOISE_DRAW, CANVAS_DRAW = 0, 1, 2


@dataclass(frozen=True, slots=True)
class TinyGemma:
    """Dimensions of a checkpoint in which everything the real one has occurs."""

    vocab_size: int = 105
    hidden_size: int = 32
    layer_types: str = "SSFSF"  # sliding or full
    window: int = 16
    canvas_length: int = 8
    eos_token_ids: tuple[int, ...] = (1, 30, 60)
    pad_token_id: int = 2
    max_positions: int = 512
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """How canvases are denoised, in the names of Easel's requests."""

    steps: int = 12
    entropy_bound: float = 0.1
    stop_entropy: float = 0.005
    stability: int = 1
    temperature_start: float = 0.8
    temperature_end: float = 0.4


@dataclass(frozen=True, slots=True)
class Reference:
    """transformers' model of a checkpoint."""

    model: Any  # DiffusionGemmaForBlockDiffusion, most of whose methods have no types
    tiny: TinyGemma


def write_tiny(path: Path, tiny: TinyGemma, settings: Settings) -> Reference:
    """Write a random checkpoint to `path` and return the model it holds, in float32."""
    model: Any = DiffusionGemmaForBlockDiffusion(_config(tiny))
    model.float().eval()
    randomise(model, torch.Generator().manual_seed(tiny.seed))
    model.generation_config = generation_config(settings, tiny, tiny.eos_token_ids)
    model.save_pretrained(path)
    return Reference(model, tiny)


def read_tiny(path: Path, tiny: TinyGemma, dtype: torch.dtype) -> Reference:
    """The model of a checkpoint in another dtype; its rotary frequencies stay float32."""
    model: Any = DiffusionGemmaForBlockDiffusion.from_pretrained(path, dtype=dtype)
    return Reference(model.eval(), tiny)


def generation_config(
    settings: Settings, tiny: TinyGemma, eos_token_ids: Sequence[int]
) -> DiffusionGemmaGenerationConfig:
    """With the fields that the published `generation_config.json` has."""
    return DiffusionGemmaGenerationConfig(
        max_new_tokens=256,
        max_denoising_steps=settings.steps,
        sampler_config=EntropyBoundSamplerConfig(entropy_bound=settings.entropy_bound),
        t_max=settings.temperature_start,
        t_min=settings.temperature_end,
        stability_threshold=settings.stability,
        confidence_threshold=settings.stop_entropy,
        bos_token_id=2,
        eos_token_id=list(eos_token_ids),
        pad_token_id=tiny.pad_token_id,
    )


@torch.no_grad()
def randomise(model: Any, generator: torch.Generator) -> None:
    """Weights wide enough for logits to spread, and tame enough for rounding errors not to grow.

    A random model of this kind is chaotic: an error of one bit changes tokens some steps later.
    A smaller gain of the layers and of the self-conditioning, larger logits, and scalars around 1,
    so that what enters a layer stays, keep two right implementations together and let canvases
    settle in 2 to 12 steps.
    """
    for name, parameter in model.named_parameters():
        if "norm" in name or "scale" in name:
            parameter.uniform_(0.5, 1.5, generator=generator)
        else:
            parameter.normal_(std=0.2, generator=generator)
        if name.endswith(("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")):
            parameter.mul_(0.3)
    model.model.decoder.embed_tokens.weight.mul_(3.0)
    model.model.decoder.self_conditioning.down_proj.weight.mul_(0.1)
    # The scalars are all that encoder and decoder do not share.
    for layer in [*model.model.encoder.language_model.layers, *model.model.decoder.layers]:
        layer.layer_scalar.uniform_(0.8, 1.2, generator=generator)


@torch.no_grad()
def canvas_logits(
    reference: Reference,
    chunks: Sequence[Sequence[int]],
    canvas: Sequence[int],
    conditioning_logits: Tensor | None = None,
) -> Tensor:
    """Logits [canvas, vocabulary] float32 of one denoising pass, after the chunks were encoded in turn.

    `conditioning_logits` [canvas, vocabulary] are the last step's, divided by its temperature.
    """
    model = reference.model
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    start = 0
    for chunk in chunks:
        positions = torch.arange(start, start + len(chunk))[None]
        model.model.encoder(input_ids=torch.tensor([chunk]), past_key_values=cache, position_ids=positions)
        start += len(chunk)
    found = model(
        past_key_values=cache,
        decoder_input_ids=torch.tensor([canvas]),
        decoder_position_ids=torch.arange(start, start + len(canvas))[None],
        self_conditioning_logits=None if conditioning_logits is None else conditioning_logits[None],
    )
    return found.logits[0]


@dataclass(frozen=True, slots=True)
class Generation:
    """What `generate` makes of one prompt."""

    tokens: tuple[int, ...]  # whole canvases; padding after the first end-of-sequence
    steps: tuple[int, ...]  # denoising steps of each canvas


def generate(
    reference: Reference,
    prompt: Sequence[int],
    max_tokens: int,
    seed: int,
    settings: Settings,
    eos_token_ids: Sequence[int] = (),
) -> Generation:
    """Denoise with the noise of `seed`. Without `eos_token_ids` no canvas ends the request."""
    config = generation_config(settings, reference.tiny, eos_token_ids or [-1])
    config.max_new_tokens = max_tokens
    noise = KeyedNoise(seed, reference.tiny)
    with noise.in_place():
        found = reference.model.generate(torch.tensor([prompt]), generation_config=config)
    tokens: list[int] = found.sequences[0, len(prompt) :].tolist()
    return Generation(tuple(tokens), tuple(noise.steps))


class KeyedNoise:
    """Random numbers of one request in the order in which transformers' `generate` asks for them.

    Of each canvas: its first tokens; then in every step a draw at each position, and tokens to
    renoise with.
    """

    def __init__(self, seed: int, tiny: TinyGemma) -> None:
        self._seed = seed
        self._tiny = tiny
        self._drawn = False  # in this step
        self.steps: list[int] = []  # of each canvas so far

    @contextmanager
    def in_place(self) -> Generator[None]:
        """While it lasts, the sampler and `torch.multinomial` read this noise."""
        with (
            patch.object(EntropyBoundSampler, "initialize_canvas", self._tokens),
            patch.object(torch, "multinomial", self._draw),
            # It imports the whole compiler to say that nothing is compiled.
            patch.object(torch.compiler, "cudagraph_mark_step_begin"),
        ):
            yield

    def _tokens(self, batch_size: int, device: torch.device) -> Tensor:
        if self._drawn:
            noise = self._uniform(RENOISE_DRAW)
            self._drawn = False
            self.steps[-1] += 1
        else:
            self.steps.append(0)
            noise = self._uniform(CANVAS_DRAW)
        return (noise * self._tiny.vocab_size).long()[None].expand(batch_size, -1).to(device)

    def _draw(self, probability: Tensor, num_samples: int) -> Tensor:
        """One token a row, by inverse CDF in float64."""
        self._drawn = True
        mass = probability.double().cumsum(-1)
        below = mass <= self._uniform(TOKEN_DRAW)[:, None] * mass[:, -1:]
        return below.sum(-1, keepdim=True)

    def _uniform(self, draw: int) -> Tensor:
        position = torch.arange(self._tiny.canvas_length)
        seed, block, step = (
            torch.full_like(position, value) for value in (self._seed, len(self.steps) - 1, self.steps[-1])
        )
        return uniform(seed, block, step, position, draw)


def _config(tiny: TinyGemma) -> DiffusionGemmaConfig:
    kinds = {"S": "sliding_attention", "F": "full_attention"}
    ends: dict[str, Any] = {"pad_token_id": tiny.pad_token_id, "eos_token_id": list(tiny.eos_token_ids)}
    full: dict[str, Any] = {"global_head_dim": 16, "num_global_key_value_heads": 1}
    text = DiffusionGemmaTextConfig(
        vocab_size=tiny.vocab_size,
        hidden_size=tiny.hidden_size,
        intermediate_size=48,
        num_hidden_layers=len(tiny.layer_types),
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=tiny.max_positions,
        sliding_window=tiny.window,
        layer_types=[kinds[letter] for letter in tiny.layer_types],
        num_experts=8,
        top_k_experts=3,
        moe_intermediate_size=16,
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
    return DiffusionGemmaConfig(
        text_config=text, vision_config=vision, canvas_length=tiny.canvas_length, **ends
    )
