"""The engine generates, token for token, what a plain loop over Hugging Face's model generates.

Blocks, steps of each block and the reason for the end are compared, in float32 and without any
tolerance. The cases are fixed; that none of them hangs on rounding is a test of its own.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from random import Random

import pytest
import torch

from easel.bench.oracles.cases import random_tokens
from easel.scheduler.compose import ComposePolicy
from easel.scheduler.request import (
    CommitRule,
    DiffusionParams,
    FinishReason,
    Request,
    SamplingParams,
    Schedule,
)
from tests.worker.driving import drain, generate, generations
from tests.worker.tiny import VOCABULARY, Dimensions, Layout, TinyCheckpoint

DIMENSIONS = (
    Dimensions(heads=4, kv_heads=4, tied=True, block_length=8),
    Dimensions(heads=4, kv_heads=2, tied=False, block_length=4),
    Dimensions(heads=4, kv_heads=1, tied=True, block_length=16),
    Dimensions(heads=3, kv_heads=1, tied=False, block_length=8),
)
LAYOUTS = (
    Layout(slots=2, page_blocks=1, refresh_blocks=1),
    Layout(slots=5, page_blocks=2, refresh_blocks=3),
    Layout(slots=32, page_blocks=4, refresh_blocks=64),
)
CASES = 16  # of each checkpoint


@pytest.fixture(scope="module", params=DIMENSIONS, ids=lambda d: f"{d.heads}-over-{d.kv_heads}-heads")
def checkpoint(
    request: pytest.FixtureRequest, checkpoint_of: Callable[[Dimensions], TinyCheckpoint]
) -> TinyCheckpoint:
    return checkpoint_of(request.param)


@pytest.fixture(scope="module")
def cases(checkpoint: TinyCheckpoint) -> list[Request]:
    return checkpoint.requests(CASES, seed=checkpoint.block_length)


def test_requests_that_run_alone_equal_the_plain_loop(
    checkpoint: TinyCheckpoint, cases: list[Request]
) -> None:
    engine = checkpoint.engine(Layout(slots=1))
    for case in cases:
        assert generate(engine, [case])[case.request_id] == checkpoint.expected(case), case


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.slots}-slots")
def test_mixed_batches_equal_the_plain_loop_whatever_slots_pages_and_chunks(
    checkpoint: TinyCheckpoint, cases: list[Request], layout: Layout
) -> None:
    found = generate(checkpoint.engine(layout), cases)
    for case in cases:
        assert found[case.request_id] == checkpoint.expected(case), case


@pytest.mark.parametrize("compose_policy", list(ComposePolicy))
def test_every_composer_leads_to_the_same_tokens(tiny: TinyCheckpoint, compose_policy: ComposePolicy) -> None:
    cases = tiny.requests(CASES, seed=1)
    found = generate(tiny.engine(Layout(refresh_blocks=2, compose_policy=compose_policy)), cases)
    for case in cases:
        assert found[case.request_id] == tiny.expected(case), case


@pytest.mark.parametrize("page_blocks", [1, 2])
def test_a_repeated_prompt_is_read_from_the_cache_and_generates_the_same(
    checkpoint: TinyCheckpoint, cases: list[Request], page_blocks: int
) -> None:
    engine = checkpoint.engine(Layout(pages=512, page_blocks=page_blocks))
    generate(engine, cases)
    for case in cases:
        engine.submit(case)
    events = drain(engine)
    found = generations(events)
    page_size = engine.shape.page_size
    for case in cases:
        cached = {event.cached_tokens for event in events if event.request_id == case.request_id}
        assert cached == {len(case.prompt) // page_size * page_size}
        assert found[case.request_id] == checkpoint.expected(case), case


def test_requests_that_share_a_beginning_share_its_pages_and_nothing_else(checkpoint: TinyCheckpoint) -> None:
    draw = Random(5)
    block = checkpoint.block_length
    shared = random_tokens(draw, 2 * block, VOCABULARY)
    cases = [
        replace(case, prompt=shared + case.prompt[: block + index])
        for index, case in enumerate(checkpoint.requests(6, seed=6))
    ]
    engine = checkpoint.engine()
    generate(engine, cases[:1])
    for case in cases[1:]:
        engine.submit(case)
    events = drain(engine)
    assert {event.cached_tokens for event in events} == {2 * block}
    found = generations(events)
    for case in cases[1:]:
        assert found[case.request_id] == checkpoint.expected(case), case


def test_a_page_is_shared_only_after_the_same_beginning(checkpoint: TinyCheckpoint) -> None:
    """Eight prompts of three blocks, each block one of two: equal blocks at equal places everywhere."""
    draw = Random(8)
    blocks = [random_tokens(draw, checkpoint.block_length, VOCABULARY) for _ in range(2)]
    engine = checkpoint.engine()
    for index, (first, second, third) in enumerate(product(blocks, repeat=3)):
        case = Request(f"{index}", first + second + third, SamplingParams(max_tokens=checkpoint.block_length))
        assert generate(engine, [case])[case.request_id] == checkpoint.expected(case), case


def test_evicted_pages_do_not_come_back_as_another_prompt(
    checkpoint: TinyCheckpoint, cases: list[Request]
) -> None:
    longest = max(case.total_tokens for case in cases)
    engine = checkpoint.engine(Layout(pages=longest // checkpoint.block_length))
    for _ in range(2):
        found = generate(engine, cases)
        for case in cases:
            assert found[case.request_id] == checkpoint.expected(case), case


@pytest.mark.parametrize("cached", [False, True], ids=["on-a-new-replica", "where-it-ran"])
def test_a_resumed_request_generates_the_same_later_blocks(
    checkpoint: TinyCheckpoint, cases: list[Request], cached: bool
) -> None:
    engine = checkpoint.engine(Layout(pages=512))
    if cached:
        generate(engine, cases)
    whole = {case.request_id: checkpoint.expected(case) for case in cases}
    resumed = [
        replace(case, request_id=f"{case.request_id}+{kept}", committed=sum(blocks[:kept], ()))
        for case in cases
        for blocks in [whole[case.request_id].blocks]
        for kept in range(1, len(blocks))
    ]
    assert len(resumed) >= 10
    found = generate(engine, resumed)
    for case in resumed:
        name, kept = case.request_id.split("+")
        after, before = found[case.request_id], whole[name]
        assert (after.blocks, after.steps) == (before.blocks[int(kept) :], before.steps[int(kept) :]), case
        assert after.finish is before.finish


def test_slot_and_batch_mates_do_not_matter(tiny: TinyCheckpoint) -> None:
    case = Request(
        "sampled",
        prompt=random_tokens(Random(7), 2 * tiny.block_length + 3, VOCABULARY),
        sampling=SamplingParams(max_tokens=2 * tiny.block_length, temperature=1.0, seed=11),
        diffusion=DiffusionParams(steps=4),
    )
    engine = tiny.engine(Layout(slots=8))
    for mates in range(8):
        found = generate(engine, [*tiny.requests(mates, seed=100 + mates), case])
        assert found[case.request_id] == tiny.expected(case)


def test_another_seed_generates_something_else(tiny: TinyCheckpoint) -> None:
    cases = [
        Request(f"seed-{seed}", (9,) * 5, SamplingParams(max_tokens=16, temperature=10.0, seed=seed))
        for seed in (0, 1, 2**32, 2**63 - 1)
    ]
    found = generate(tiny.engine(), cases)
    assert len({found[case.request_id].tokens for case in cases}) == len(cases)


def test_no_case_hangs_on_rounding(checkpoint: TinyCheckpoint, cases: list[Request]) -> None:
    """In float64 the plain loop decides the same, so no decision is within float32's reach of another."""
    wide = checkpoint.reference.converted(torch.float64)
    for case in cases:
        assert wide.generate(case) == checkpoint.expected(case), case


def test_the_cases_cover_every_setting(checkpoint_of: Callable[[Dimensions], TinyCheckpoint]) -> None:
    checkpoints = [checkpoint_of(dimensions) for dimensions in DIMENSIONS]
    all_cases = [
        (checkpoint, case)
        for checkpoint in checkpoints
        for case in checkpoint.requests(CASES, seed=checkpoint.block_length)
    ]
    assert len(all_cases) >= 50
    tails = {len(case.prompt) % checkpoint.block_length > 0 for checkpoint, case in all_cases}
    assert tails == {True, False}
    assert {case.diffusion.commit_rule for _, case in all_cases} == set(CommitRule)
    assert {case.diffusion.schedule for _, case in all_cases} == set(Schedule)
    assert {case.diffusion.stop_entropy is None for _, case in all_cases} == {True, False}
    assert {case.sampling.temperature > 0 for _, case in all_cases} == {True, False}
    ends = [checkpoint.expected(case).finish for checkpoint, case in all_cases]
    assert min(ends.count(FinishReason.STOP), ends.count(FinishReason.LENGTH)) >= 10
    blocks = [len(checkpoint.expected(case).blocks) for checkpoint, case in all_cases]
    assert set(blocks) >= {1, 2, 3}
