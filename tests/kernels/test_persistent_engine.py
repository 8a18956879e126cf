"""What a persistent launch makes of canvases, beside the engine's own model, denoiser and loop."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import cast

import pytest
import torch
from torch import Tensor

from easel.kernels.canvas_state import Whole
from easel.kernels.persistent import (
    Executor,
    PersistentControl,
    PersistentLayer,
    PersistentOutcome,
    PersistentPages,
    PersistentTask,
    PersistentWeights,
    run_persistent,
)
from easel.scheduler.messages import CanvasSpec
from easel.scheduler.phase import SequenceLayout
from easel.scheduler.request import CommitRule, DiffusionParams, SamplingParams
from easel.worker.denoise import MaskedDenoiser
from easel.worker.host_loop import HostLoop
from easel.worker.kv_cache import KVCache
from easel.worker.models.config import DecoderConfig
from easel.worker.models.decoder import Decoder, build_decoder
from easel.worker.models.mlp import DenseMLP
from easel.worker.models.sdar import parameter_plan
from easel.worker.pieces import Geometry
from easel.worker.registers import CanvasRegisters
from easel.worker.runner import Runner
from easel.worker.step_program import Machine
from tests.worker.rows import canvas, opening, plan, reuse, write

BLOCK, PAGE, VOCABULARY, MASK, EOS = 8, 16, 41, 0, 7
CONFIG = DecoderConfig(
    vocab_size=VOCABULARY,
    hidden_size=24,
    intermediate_size=40,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=8,
    rotary_dim=8,
    rope_theta=10_000.0,
    rms_norm_eps=1e-6,
    max_positions=256,
    tied_embeddings=False,
    qk_norm=True,
    qkv_bias=False,
)
DRAWN = SamplingParams(temperature=0.9, seed=2**55 + 3)
PAGES = ((5, 2, 9), (0, 11, 4), (7, 1, 3), (6, 10, 8))  # of each slot
STARTS = (0, 8, 40, 24)  # of each slot's canvas


def specs_of(rules: Sequence[CommitRule]) -> list[CanvasSpec]:
    """Greedy and drawn, with and without known tokens, a limit, an entropy to settle at."""
    patient, other, hasty, settling = (DiffusionParams(steps=8, commit_rule=rule) for rule in rules)
    patient = replace(patient, threshold=0.5, entropy_bound=1.5)
    hasty = replace(hasty, steps=3, threshold=0.4, entropy_bound=3.0)
    settling = replace(settling, stop_entropy=1.5)
    return [
        canvas(BLOCK, known=(9, 10, 11), diffusion=patient, snapshots=True),
        canvas(BLOCK, block_index=3, sampling=DRAWN, diffusion=other, snapshots=True),
        canvas(5, sampling=DRAWN, diffusion=hasty, snapshots=True),
        canvas(BLOCK, known=(9,), diffusion=settling, snapshots=True),
    ]


@pytest.mark.parametrize("rule", CommitRule)
def test_every_canvas_takes_the_engines_steps_to_the_engines_tokens(rule: CommitRule) -> None:
    assert_as_by_the_engine([rule] * len(PAGES), Executor.TORCH)


def test_so_it_does_in_one_launch_with_a_rule_for_each_canvas() -> None:
    assert_as_by_the_engine([*CommitRule], Executor.TRITON)


def assert_as_by_the_engine(rules: Sequence[CommitRule], executor: Executor) -> None:
    by_engine, by_launch, specs = runner(), runner(), specs_of(rules)
    rows = [opening(slot, start, BLOCK, PAGES[slot], specs[slot]) for slot, start in enumerate(STARTS)]
    by_engine.run(plan(*rows))
    expected = by_engine.machine.registers.state
    while running := expected.whole(Whole.ACTIVE).nonzero().flatten().tolist():
        by_engine.run(plan(*(reuse(slot, STARTS[slot], BLOCK, PAGES[slot]) for slot in running)))
    for slot, spec in enumerate(specs):
        by_launch.machine.registers.open(slot, spec)
    outcome = launch(by_launch.machine, executor)
    assert outcome.done.all()
    assert torch.equal(outcome.steps.long(), expected.whole(Whole.STEP))
    for name, tensor in outcome.state.tensors().items():
        torch.testing.assert_close(tensor, expected.tensors()[name], atol=1e-5, rtol=1e-4, msg=name)


def runner() -> Runner:
    """A random model's, with prefixes in the pages of all slots."""
    decoder = build_decoder(CONFIG, random_parameters())
    registers = CanvasRegisters.allocate(len(PAGES), BLOCK, MASK, torch.device("cpu"))
    cache = KVCache.allocate(CONFIG.kv_groups, [PAGE * 12], PAGE, torch.float32, torch.device("cpu"))
    denoiser = MaskedDenoiser(registers, decoder.head, torch.tensor([EOS]))
    geometry = Geometry(SequenceLayout.BLOCK_CAUSAL, BLOCK, PAGE, MASK)
    machine = Machine(decoder, cache, registers, denoiser)
    engine, draw = Runner(machine, geometry, HostLoop(), clock=lambda: 0.0), Random(4)
    for slot, start in enumerate(STARTS):
        if start:
            tokens = tuple(draw.randrange(1, VOCABULARY) for _ in range(start))
            engine.run(plan(write(slot, 0, tokens, PAGES[slot])))
    return engine


def random_parameters() -> dict[str, Tensor]:
    """Logits that spread, so that near-ties are rare."""
    generator = torch.Generator().manual_seed(3)

    def parameter(name: str, shape: tuple[int, ...]) -> Tensor:
        if "norm" in name:
            return 0.5 + torch.rand(shape, generator=generator)
        scale = 2.5 if name == "head" else 1.0
        return torch.randn(shape, generator=generator) * scale * shape[-1] ** -0.5

    return {name: parameter(name, shape) for name, shape in parameter_plan(CONFIG).parameters.items()}


def launch(machine: Machine, executor: Executor) -> PersistentOutcome:
    """The engine's own state, cache and parameters."""
    cache, registers = machine.cache, machine.registers
    table, prefix = torch.tensor(PAGES, dtype=torch.int32), torch.tensor(STARTS, dtype=torch.int32)
    task = PersistentTask(
        weights=stacked(cast(Decoder, machine.model)),
        state=registers.state,
        pages=PersistentPages(cache.keys[0], cache.values[0], table, prefix, cache.page_size),
        control=PersistentControl.allocate(registers.device),
        traits=registers.traits_of(range(registers.slots)),
        eos_token_ids=torch.tensor([EOS]),
        mask_token_id=registers.mask_token_id,
        max_steps=BLOCK,
    )
    return run_persistent(task, executor=executor)


def stacked(model: Decoder) -> PersistentWeights:
    def layer(index: int) -> PersistentLayer:
        of = model.layers[index]
        mlp = cast(DenseMLP, of.mlp)
        matrices = [cast(Tensor, weight) for weight in (of.qkv, of.out, mlp.gate_up, mlp.down)]
        qkv, out, gate_up, down = matrices
        return PersistentLayer(of.input_norm, qkv, of.qk_norm, out, of.mlp_norm, gate_up, down, of.qkv_bias)

    return PersistentWeights.stack(
        [layer(index) for index in range(model.config.layers)],
        embedding=model.embedding,
        final_norm=model.final_norm,
        head=model.head,
        frequencies=model.inverse_frequencies,
        epsilon=model.config.rms_norm_eps,
    )
