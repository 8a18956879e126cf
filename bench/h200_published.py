"""transformers' DiffusionGemma on weights that lie in memory once: its parameters are views of Easel's."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, Gemma4VisionConfig
from transformers.models.diffusion_gemma import (
    DiffusionGemmaConfig,
    DiffusionGemmaForBlockDiffusion,
    DiffusionGemmaTextConfig,
)
from transformers.models.diffusion_gemma.generation_diffusion_gemma import (
    DiffusionGemmaGenerationConfig,
    EntropyBoundSamplerConfig,
)

from easel.bench.h200_replica import Lap, Replica, Scene, timed
from easel.bench.h200_shapes import Shape
from easel.scheduler.messages import BatchPlan
from easel.worker.host_loop import HostLoop
from easel.worker.renoise import SoftcappedHead

NEVER = 1e-30  # nats; no random model's mean entropy is below it, so that no canvas ends early


def published_model(shape: Shape, parameters: Mapping[str, Tensor]) -> Any:
    """The model of these parameters; its vision tower is left out.

    Raises RuntimeError should anything of it have stayed without memory.
    """
    with torch.device("meta"):
        model: Any = DiffusionGemmaForBlockDiffusion(_config(shape))
    model.model.encoder.vision_tower = nn.Identity()
    model.model.encoder.embed_vision = nn.Identity()
    views = {
        name: parameters[source.parameter][source.at] for name, source in shape.sketch.plan.sources.items()
    }
    _assign(model, views)
    _make_buffers(model, parameters["embedding"].device)
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    left = sorted(name for name, tensor in held.items() if tensor.is_meta)
    if left:
        raise RuntimeError(f"transformers' model has tensors that Easel's plan has not: {', '.join(left)}")
    return model.eval()


@dataclass(slots=True)
class Published:
    """Their `generate`, with a static cache as its documentation has it, compiled where there is a GPU."""

    model: Any
    scene: Scene
    block: int
    prompt: Tensor  # [1, prefix - block]
    compiled: bool
    first_seconds: float = 0.0  # of the first two calls: compilation

    def warm_up(self) -> None:
        started = time.perf_counter()
        # The larger cache comes first, and is then kept.
        for canvases in (2, 1, 2):
            self._generate(canvases)
        self.first_seconds = time.perf_counter() - started

    def lap(self) -> Lap:
        """Of a second canvas: what two take longer than one. The encoder has committed the first by then."""
        if not self.first_seconds:
            self.warm_up()
        one, two = (self._timed(canvases) for canvases in (1, 2))
        seconds = max(two - one, 1e-9)
        return Lap(0.0, seconds / self.scene.steps, seconds, self.block)

    def _timed(self, canvases: int) -> float:
        return timed(self.prompt.device, lambda: self._generate(canvases))[1]

    def _generate(self, canvases: int) -> None:
        config = DiffusionGemmaGenerationConfig(
            max_new_tokens=canvases * self.block,
            max_denoising_steps=self.scene.steps,
            sampler_config=EntropyBoundSamplerConfig(entropy_bound=0.1),
            t_max=0.8,
            t_min=0.4,
            stability_threshold=1,
            confidence_threshold=NEVER,
            eos_token_id=[-1],
            cache_implementation="static",
            disable_compile=not self.compiled,
        )
        with ExitStack() as stack:
            if not self.compiled:
                # It imports the whole compiler to say that nothing is compiled.
                stack.enter_context(
                    patch.object(torch.compiler, "cudagraph_mark_step_begin", new=lambda: None)
                )
            found = self.model.generate(self.prompt, generation_config=config)
        tokens = found.sequences[:, self.prompt.shape[1] :].numel()
        steps = round(tokens / float(found.tokens_per_forward))
        if (tokens, steps) != (canvases * self.block, canvases * self.scene.steps):
            raise RuntimeError(f"transformers made {tokens} tokens in {steps} steps for {canvases} canvases")


@torch.inference_mode()
def both_logits(model: Any, replica: Replica) -> tuple[Tensor, Tensor]:
    """transformers' and Easel's logits [canvas, vocabulary] float32 of the first step of slot 0's canvas."""
    replica.runner(HostLoop()).run(replica.opening())
    registers = replica.machine.registers
    canvas = registers.state.tokens[:1].clone()
    ours = _head(replica, replica.reusing(1))
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    device, end = replica.device, replica.scene.prefix
    tokens = torch.tensor([replica.prefix(0)], device=device)
    positions = torch.arange(end, device=device)[None]
    model.model.encoder(input_ids=tokens, past_key_values=cache, position_ids=positions)
    found = model(
        past_key_values=cache,
        decoder_input_ids=canvas,
        decoder_position_ids=torch.arange(end, end + canvas.shape[1], device=device)[None],
    )
    return found.logits[0], ours


def _head(replica: Replica, plan: BatchPlan) -> Tensor:
    """Of slot 0, as if nothing had been predicted yet."""
    program, model = replica.program(plan), replica.machine.model
    program.batch.fill(replica.machine.registers)
    hidden = model.forward(program.batch, replica.machine.cache, None)
    logits = F.linear(hidden[program.batch.canvases[0]], model.head).float()
    if not isinstance(model, SoftcappedHead):
        raise TypeError(f"{type(model).__name__} has no softcap")
    return (logits / model.softcap).tanh() * model.softcap


def _config(shape: Shape) -> DiffusionGemmaConfig:
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
    text = DiffusionGemmaTextConfig(**shape.config["text_config"])
    return DiffusionGemmaConfig(
        text_config=text, vision_config=vision, canvas_length=shape.config["canvas_length"]
    )


def _assign(model: Any, views: Mapping[str, Tensor]) -> None:
    """Replace every parameter by its view, wherever else it is tied to, and buffers of those names."""
    named = dict(model.named_parameters(remove_duplicate=False))
    tied = {id(named[name]): nn.Parameter(view, False) for name, view in views.items() if name in named}
    for prefix, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, tied.get(id(parameter), parameter))
        for name, _ in list(module.named_buffers(recurse=False)):
            view = views.get(f"{prefix}.{name}")
            if view is not None:
                setattr(module, name, view)


def _make_buffers(model: Any, device: torch.device) -> None:
    """What no checkpoint holds: rotary frequencies, and the embedding's scale."""
    for module in list(model.modules()):
        if "rotary_emb" in dict(module.named_children()):
            module.rotary_emb = type(module.rotary_emb)(module.rotary_emb.config, device=device)
        if "embed_scale" in dict(module.named_buffers(recurse=False)):
            module.embed_scale = torch.tensor(module.scalar_embed_scale, device=device)
