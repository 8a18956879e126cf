"""An engine beside its family's plain loop, and the comparisons that every family must pass.

Blocks, steps of each block and the reason for the end are compared, in float32 and without any
tolerance; logits with one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Protocol, Self

import torch
from torch import Tensor

from easel.bench.oracles.cases import random_requests, random_tokens
from easel.bench.oracles.checkpoints import MASK_ID, Sizes
from easel.bench.oracles.masked import Generation, Oracle
from easel.bench.oracles.passes import engine_logits
from easel.scheduler.messages import PhasePolicy
from easel.scheduler.request import FinishReason, Request
from easel.worker.config import EngineConfig
from easel.worker.engine import Engine
from easel.worker.loading import load_engine
from tests.checkpoints import tiny_tokenizer
from tests.worker.driving import drain, generate, generations

LOGITS_TOLERANCE = 5e-5  # of logits up to 30; measured: 1e-5


class Convertible(Oracle, Protocol):
    def converted(self, dtype: torch.dtype) -> Self: ...


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything about an engine that must not change what it generates; sizes in blocks."""

    slots: int = 6
    pages: int = 256
    page_blocks: int = 1
    refresh_blocks: int = 64
    fuse_commits: bool = True
    partial: bool = False


LAYOUTS = {
    "alone": Layout(slots=1),
    "chunks-of-a-block": Layout(slots=3, refresh_blocks=1),
    "pages-of-two-blocks": Layout(slots=5, page_blocks=2, refresh_blocks=3),
    "all-at-once": Layout(slots=32, page_blocks=4),
    "commits-apart": Layout(slots=4, fuse_commits=False),
}


@dataclass(frozen=True, slots=True)
class Rig:
    """A family's tiny checkpoint, its plain loop, requests for it, and engines that run it."""

    oracle: Convertible
    cases: tuple[Request, ...]
    _known: dict[Request, Generation] = field(default_factory=dict[Request, Generation])

    def engine(self, layout: Layout | None = None, dtype: str = "float32") -> Engine:
        layout, block = layout or Layout(), self.oracle.block_length
        policy = PhasePolicy(
            refresh_tokens=layout.refresh_blocks * block,
            target_seconds=1e3,
            fuse_commits=layout.fuse_commits,
        )
        config = EngineConfig(
            slots=layout.slots,
            pages=layout.pages,
            page_size=layout.page_blocks * block,
            dtype=dtype,
            partial=layout.partial,
            policy=policy,
        )
        return load_engine(self.oracle.path, config)

    def expected(self, request: Request) -> Generation:
        """What the plain loop generates; computed once."""
        key = replace(request, request_id="")
        if key not in self._known:
            self._known[key] = self.oracle.generate(request)
        return self._known[key]

    def assert_generated(self, found: dict[str, Generation], cases: Sequence[Request]) -> None:
        for case in cases:
            assert found[case.request_id] == self.expected(case), case


def build_rig(path: Path, write: Callable[[Path, Sizes], Convertible], sizes: Sizes, count: int) -> Rig:
    """Writes a checkpoint with a tokenizer, and makes `count` random requests for it."""
    oracle = write(path, sizes)
    tiny_tokenizer(sizes.vocabulary).save_pretrained(path)
    return Rig(oracle, tuple(random_requests(oracle, count, seed=sizes.block_length)))


def check_float32_logits(rig: Rig) -> None:
    """Encoded blocks and a canvas that is masked in part, in one forward and chunk by chunk."""
    block = rig.oracle.block_length
    for blocks, page_blocks, chunk in ((1, 1, None), (6, 1, None), (5, 2, block), (7, 4, 3 * block)):
        tokens = _half_masked(blocks, block)
        found = engine_logits(rig.engine(Layout(page_blocks=page_blocks)), tokens, chunk)
        torch.testing.assert_close(found, rig.oracle.logits(tokens), atol=LOGITS_TOLERANCE, rtol=1e-5)


def check_bfloat16_logits(rig: Rig) -> None:
    """The engine's error at most 1.25 times Hugging Face's own: the median of the tokens' root mean squares.

    Both round at every product; only the order of sums differs, so that their errors are alike in
    size (0.93 to 1.04 of each other on 20 checkpoints) and not equal. Rounding may send a token to
    another expert, in either of them: such outliers would rule a mean.
    """
    narrow = rig.oracle.converted(torch.bfloat16)
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    for blocks in (3, 4, 5, 6, 7):
        tokens = _half_masked(blocks, rig.oracle.block_length)
        exact = rig.oracle.logits(tokens)
        ours.append(engine_logits(rig.engine(dtype="bfloat16"), tokens) - exact)
        theirs.append(narrow.logits(tokens).float() - exact)
    our_error, their_error = (
        float(torch.cat(parts).square().mean(-1).median().sqrt()) for parts in (ours, theirs)
    )
    assert 0.0 < our_error < 1.25 * their_error


def check_generations(rig: Rig, layout: Layout) -> None:
    rig.assert_generated(generate(rig.engine(layout), rig.cases), rig.cases)


def check_cached_prefixes(rig: Rig) -> None:
    """The same prompts again, and longer ones with their beginnings, from pages where there are any."""
    draw, block = Random(5), rig.oracle.block_length
    engine = rig.engine(Layout(pages=1024))
    generate(engine, rig.cases)
    longer = [
        replace(case, request_id=f"{case.request_id}+", prompt=case.prompt + random_tokens(draw, block + 3))
        for case in rig.cases[:4]
    ]
    for case in (*rig.cases, *longer):
        engine.submit(case)
    events = drain(engine)
    rig.assert_generated(generations(events), [*rig.cases, *longer])
    cached = {event.request_id: event.cached_tokens for event in events}
    shared = engine.shape.layout.shares_prefix
    for case in rig.cases:
        assert cached[case.request_id] == (len(case.prompt) // block * block if shared else 0)
    for case, base in zip(longer, rig.cases, strict=False):
        assert cached[case.request_id] >= (len(base.prompt) // block * block if shared else 0)


def check_resumed(rig: Rig) -> None:
    """With its first blocks given, a request generates the later ones as if it had never stopped."""
    whole = {case.request_id: rig.expected(case) for case in rig.cases}
    resumed = [
        replace(case, request_id=f"{case.request_id}+{kept}", committed=sum(blocks[:kept], ()))
        for case in rig.cases
        for blocks in [whole[case.request_id].blocks]
        for kept in range(1, len(blocks))
    ]
    assert resumed
    found = generate(rig.engine(), resumed)
    for case in resumed:
        name, kept = case.request_id.split("+")
        before = whole[name]
        later = Generation(before.blocks[int(kept) :], before.steps[int(kept) :], before.finish)
        assert found[case.request_id] == later, case


def check_rebuilding_every_step(rig: Rig) -> None:
    """Recomputing all at every step is exact, also beside requests that recompute less often."""
    periods = [1 + (index % 3 == 2) for index in range(len(rig.cases))]
    partial = [
        replace(case, diffusion=replace(case.diffusion, rebuild_every=period))
        for case, period in zip(rig.cases, periods, strict=True)
    ]
    found = generate(rig.engine(Layout(partial=True)), partial)
    exact = [case for case, period in zip(rig.cases, periods, strict=True) if period == 1]
    rig.assert_generated(found, exact)


def check_coverage(rigs: Iterable[Rig]) -> None:
    """Between them the rigs' cases use every rule, and end in both ways after one block and more."""
    cases = [(rig, case) for rig in rigs for case in rig.cases]
    expected = [rig.expected(case) for rig, case in cases]
    assert {case.diffusion.commit_rule for _, case in cases} == {
        rule for rig, _ in cases for rule in rig.oracle.rules
    }
    assert {case.sampling.temperature > 0 for _, case in cases} == {True, False}
    assert {len(case.prompt) % rig.oracle.block_length == 0 for rig, case in cases} == {True, False}
    assert {1, 2, 3} <= {len(generation.blocks) for generation in expected}
    ends = [generation.finish for generation in expected]
    assert min(ends.count(FinishReason.STOP), ends.count(FinishReason.LENGTH)) >= 2


def _half_masked(blocks: int, block_length: int) -> tuple[int, ...]:
    """Random tokens of which every other one of the last block is the mask."""
    tokens = random_tokens(Random(blocks), blocks * block_length)
    last = tokens[-block_length:]
    return tokens[:-block_length] + tuple(MASK_ID if place % 2 else token for place, token in enumerate(last))
