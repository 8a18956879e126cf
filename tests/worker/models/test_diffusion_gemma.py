"""DiffusionGemma's logits and whole generations against transformers' implementation of it."""

from collections.abc import Sequence
from itertools import accumulate
from random import Random

import pytest
import torch
from torch import Tensor

from easel.bench.oracles.diffusion_gemma import Settings, TinyGemma, canvas_logits, read_tiny
from easel.worker.batch import build_batch
from easel.worker.models.diffusion_gemma import DiffusionGemma, parameter_plan
from easel.worker.runner import Runner
from tests.worker.models.gemma_rig import (
    CPU,
    Asked,
    GemmaCheckpoint,
    capped_logits,
    drive,
    encoded,
    padded,
    write_checkpoint,
)
from tests.worker.rows import plan

VOCABULARY, CANVAS, WINDOW = 105, 8, 16
TOLERANCE = 5e-5  # of logits up to 20, which sum some thousand float32 numbers on the way
PROMPTS = pytest.mark.parametrize(
    "prompt_tokens", [1, 3, WINDOW - 1, WINDOW, WINDOW + 1, 40], ids="prompt={}".format
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> GemmaCheckpoint:
    return write_checkpoint(
        tmp_path_factory.mktemp("gemma"),
        TinyGemma(vocab_size=VOCABULARY, canvas_length=CANVAS, window=WINDOW),
    )


@PROMPTS
def test_the_first_step_after_a_prompt_has_the_references_logits(
    checkpoint: GemmaCheckpoint, prompt_tokens: int
) -> None:
    chunks, canvas, _ = _inputs(prompt_tokens)
    found = _logits(checkpoint.runner(1), chunks, canvas, None)
    assert _largest(found - canvas_logits(checkpoint.reference, chunks, canvas)) < TOLERANCE


@PROMPTS
@pytest.mark.parametrize("blocks", [1, 2, 4], ids="canvas={}".format)
def test_a_self_conditioned_step_has_the_references_logits(
    checkpoint: GemmaCheckpoint, prompt_tokens: int, blocks: int
) -> None:
    """The canvases before the last one are encoded, each in the forward in which the next one opens."""
    chunks, canvas, logits = _inputs(prompt_tokens, blocks)
    found = _logits(checkpoint.runner(1), chunks, canvas, logits)
    assert _largest(found - canvas_logits(checkpoint.reference, chunks, canvas, logits)) < TOLERANCE


def test_self_conditioning_changes_the_logits_by_far_more_than_the_tolerance(
    checkpoint: GemmaCheckpoint,
) -> None:
    chunks, canvas, logits = _inputs(20)
    found = _logits(checkpoint.runner(1), chunks, canvas, logits)
    assert _largest(found - _logits(checkpoint.runner(1), chunks, canvas, None)) > 1000 * TOLERANCE


@pytest.mark.parametrize("sizes", [[7, 33], [23, 1, 16], [1] * 40], ids=str)
def test_a_prompt_in_chunks_has_the_logits_of_a_prompt_in_one(
    checkpoint: GemmaCheckpoint, sizes: list[int]
) -> None:
    (prompt,), canvas, logits = _inputs(sum(sizes))
    whole = _logits(checkpoint.runner(1), [prompt], canvas, logits)
    ends = list(accumulate(sizes))
    chunks = [prompt[end - size : end] for size, end in zip(sizes, ends, strict=True)]
    assert _largest(_logits(checkpoint.runner(1), chunks, canvas, logits) - whole) < TOLERANCE


def test_bfloat16_is_as_near_to_float32_as_the_reference_in_bfloat16(checkpoint: GemmaCheckpoint) -> None:
    """Both round every intermediate result to 8 bits, in a slightly different order.

    Where that changes an expert, at other positions in either, the error is ten times the usual
    one: medians are compared, which are equal to 2 % over 400 positions.
    """
    narrow = read_tiny(checkpoint.path, checkpoint.tiny, torch.bfloat16)
    ours, theirs = list[Tensor](), list[Tensor]()
    for prompt_tokens in range(1, 48, 2):
        chunks, canvas, logits = _inputs(prompt_tokens)
        rounded = logits.bfloat16()
        exact = canvas_logits(checkpoint.reference, chunks, canvas, rounded.float())
        ours.append(_logits(checkpoint.runner(1, torch.bfloat16), chunks, canvas, rounded) - exact)
        theirs.append(canvas_logits(narrow, chunks, canvas, rounded) - exact)
    assert _median_rms(ours) < 1.15 * _median_rms(theirs)
    assert _median_rms(ours) < 0.08  # of logits whose last bit is worth 0.06 above 8


@pytest.mark.parametrize("chunk", [1000, 13], ids=["whole-prompts", "chunked-prompts"])
def test_requests_generate_the_references_tokens(checkpoint: GemmaCheckpoint, chunk: int) -> None:
    """All side by side in one ragged batch, each its own settings, lengths and seed."""
    requests, eos = _requests(24), ()
    found = drive(checkpoint.runner(len(requests)), requests, eos, chunk)
    expected = [checkpoint.expected(request, eos) for request in requests]
    assert found == expected


def test_a_request_ends_with_the_canvas_that_holds_an_end_of_sequence(checkpoint: GemmaCheckpoint) -> None:
    requests = [Asked(request.prompt, 40, request.seed, request.settings) for request in _requests(6)]
    eos = tuple(range(1, VOCABULARY, 24))
    found = drive(checkpoint.runner(len(requests)), requests, eos, 1000)
    expected = [checkpoint.expected(request, eos) for request in requests]
    pad = checkpoint.tiny.pad_token_id
    assert [padded(one.tokens, eos, pad) for one in found] == [one.tokens for one in expected]
    assert [one.steps for one in found] == [one.steps for one in expected]
    assert len({len(one.steps) for one in found}) > 1


def test_every_tensor_of_the_text_model_is_planned_for_once(checkpoint: GemmaCheckpoint) -> None:
    planned = parameter_plan(checkpoint.config)
    for name, tensor in checkpoint.reference.model.state_dict().items():
        if name in planned.sources:
            assert planned.sources[name].shape == tuple(tensor.shape)
        else:
            assert name.startswith(planned.ignored)
    ignored = [name for name in planned.sources if name.startswith(planned.ignored)]
    assert not ignored, "a tensor cannot be both read and left out"


def _requests(count: int) -> list[Asked]:
    """Prompts from shorter to longer than the window, one to three canvases."""
    draw = Random(count)
    settings = [
        Settings(),
        Settings(entropy_bound=4.0, stop_entropy=1.0),
        Settings(entropy_bound=12.0, stop_entropy=0.5, stability=2),
        Settings(entropy_bound=0.5, stop_entropy=0.2, temperature_start=0.4, temperature_end=0.1, steps=9),
    ]
    return [
        Asked(
            prompt=tuple(draw.choices(range(VOCABULARY), k=draw.choice([1, 3, 10, 15, 16, 17, 25, 40]))),
            max_tokens=draw.choice([5, 8, 16, 20]),
            seed=draw.getrandbits(62),
            settings=settings[index % len(settings)],
        )
        for index in range(count)
    ]


def _inputs(prompt_tokens: int, blocks: int = 1) -> tuple[list[tuple[int, ...]], list[int], Tensor]:
    """Chunks to encode, the last of `blocks` canvases, and logits of the step before."""
    draw = Random(prompt_tokens)
    lengths = [prompt_tokens, *[CANVAS] * (blocks - 1)]
    chunks = [tuple(draw.choices(range(VOCABULARY), k=length)) for length in lengths]
    canvas = draw.choices(range(VOCABULARY), k=CANVAS)
    logits = torch.randn(CANVAS, VOCABULARY, generator=torch.Generator().manual_seed(prompt_tokens))
    return chunks, canvas, 3.0 * logits


@torch.inference_mode()
def _logits(
    runner: Runner, chunks: Sequence[tuple[int, ...]], canvas: Sequence[int], logits: Tensor | None
) -> Tensor:
    """Of a canvas that is opened in the forward that encodes the last chunk."""
    model, found = runner.machine.model, torch.empty(0)
    assert isinstance(model, DiffusionGemma)
    runner.machine.registers.state.tokens[0] = torch.tensor(canvas)
    for rows in encoded(chunks, CANVAS, WINDOW):
        batch = build_batch(plan(*rows), runner.machine.registers, runner.geometry, CPU)
        batch.fill(runner.machine.registers)
        conditioning = None if logits is None else _soft(model, logits)[None]
        found = model.forward(batch, runner.machine.cache, conditioning)[batch.canvases.flatten()]
    return capped_logits(model, found)


def _soft(model: DiffusionGemma, logits: Tensor) -> Tensor:
    embedding = model.embedding
    probability = logits.softmax(-1, dtype=torch.float32).to(embedding.dtype)
    return probability @ embedding * torch.tensor(embedding.shape[1] ** 0.5, dtype=embedding.dtype)


def _largest(difference: Tensor) -> float:
    return float(difference.abs().max())


def _median_rms(differences: list[Tensor]) -> float:
    """Over positions, of each one's root mean square."""
    return float(torch.cat(differences).square().mean(-1).sqrt().median())
