"""The decoder's logits against Hugging Face's model under the dense block-causal mask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from easel.scheduler.messages import Row
from easel.worker.batch import build_batch
from easel.worker.engine import Engine
from easel.worker.models.config import DecoderConfig, read_decoder_config
from easel.worker.models.decoder import expected_tensors
from tests.worker.cases import random_tokens
from tests.worker.rows import canvas, opening, plan, write
from tests.worker.tiny import VOCABULARY, Dimensions, Layout, TinyCheckpoint

DIMENSIONS = (
    Dimensions(heads=4, kv_heads=4, tied=True, block_length=8),
    Dimensions(heads=4, kv_heads=2, tied=False, block_length=4),
    Dimensions(heads=4, kv_heads=1, tied=True, block_length=16),
    Dimensions(heads=3, kv_heads=1, tied=False, block_length=8),
)


@dataclass(slots=True)
class Text:
    """A sequence in a slot of its own: all blocks but the last are prefilled, the last is its canvas."""

    slot: int
    tokens: tuple[int, ...]
    pages: tuple[int, ...]
    block_length: int

    @property
    def canvas_start(self) -> int:
        return len(self.tokens) - self.block_length

    def rows(self, chunk: int) -> list[Row]:
        """Prefill rows of at most `chunk` tokens, then the opening."""
        starts = range(0, self.canvas_start, chunk)
        last = self.tokens[self.canvas_start :]
        return [
            *(
                write(self.slot, at, self.tokens[at : min(at + chunk, self.canvas_start)], self.pages)
                for at in starts
            ),
            opening(
                self.slot,
                self.canvas_start,
                self.block_length,
                self.pages,
                canvas(self.block_length, known=last),
            ),
        ]


@pytest.mark.parametrize("dimensions", DIMENSIONS, ids=lambda d: f"{d.heads}-over-{d.kv_heads}-heads")
@pytest.mark.parametrize("chunk_blocks", [1, 2, 100])
@pytest.mark.parametrize("page_blocks", [1, 4])
def test_float32_logits_equal_hugging_faces_whatever_the_chunks(
    checkpoint_of: Callable[[Dimensions], TinyCheckpoint],
    dimensions: Dimensions,
    chunk_blocks: int,
    page_blocks: int,
) -> None:
    checkpoint = checkpoint_of(dimensions)
    engine = checkpoint.engine(Layout(page_blocks=page_blocks))
    (text,) = _texts(engine, [6])
    parts = [_logits(engine, [row])[text.slot] for row in text.rows(chunk_blocks * checkpoint.block_length)]
    expected = checkpoint.reference.logits(text.tokens)
    torch.testing.assert_close(torch.cat(parts), expected, atol=5e-5, rtol=1e-5)


def test_texts_of_different_lengths_in_one_forward_do_not_mix(tiny: TinyCheckpoint) -> None:
    engine = tiny.engine(Layout(slots=8))
    texts = _texts(engine, [1, 4, 2, 2, 7, 3, 1, 5])
    rows = [row for text in texts for row in text.rows(1000)]
    rows.sort(key=lambda row: not row.kind.writes_pages)
    found = _logits(engine, rows)
    for text in texts:
        expected = tiny.reference.logits(text.tokens)
        torch.testing.assert_close(found[text.slot], expected, atol=5e-5, rtol=1e-5)


def test_bfloat16_logits_are_as_close_to_float32_as_hugging_faces(tiny: TinyCheckpoint) -> None:
    """Root mean square error at most 1.25 times that of Hugging Face's own bfloat16 forward."""
    engine = tiny.engine(Layout(slots=8), dtype="bfloat16")
    narrow = tiny.reference.converted(torch.bfloat16)
    ours: list[Tensor] = []
    theirs: list[Tensor] = []
    for text in _texts(engine, [3, 4, 5, 6]):
        exact = tiny.reference.logits(text.tokens)
        ours.append(_logits(engine, text.rows(1000))[text.slot].float() - exact)
        theirs.append(narrow.logits(text.tokens).float() - exact)
    our_error, their_error = (float(torch.cat(parts).square().mean().sqrt()) for parts in (ours, theirs))
    assert 0.0 < our_error < 1.25 * their_error


def test_expected_tensors_are_those_hugging_face_writes(
    checkpoint_of: Callable[[Dimensions], TinyCheckpoint],
) -> None:
    for dimensions in DIMENSIONS:
        checkpoint = checkpoint_of(dimensions)
        model = checkpoint.reference.model
        theirs = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        if dimensions.tied:
            del theirs["lm_head.weight"]
        assert expected_tensors(read_decoder_config(checkpoint.path)) == theirs


def test_the_configuration_is_read_as_hugging_face_writes_it(tiny: TinyCheckpoint) -> None:
    assert read_decoder_config(tiny.path) == DecoderConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        layers=2,
        heads=4,
        kv_heads=2,
        head_dim=8,
        rope_theta=10_000.0,
        rms_norm_eps=1e-6,
        max_positions=1024,
        tied_embeddings=True,
    )


def _texts(engine: Engine, blocks: Sequence[int]) -> list[Text]:
    """Random texts of so many blocks each, on pages of a random order."""
    draw = Random(len(blocks))
    length = engine.shape.block_length
    free = draw.sample(range(engine.shape.pages), engine.shape.pages)
    texts: list[Text] = []
    for slot, count in enumerate(blocks):
        needed = -(-count * length // engine.shape.page_size)
        pages = tuple(free.pop() for _ in range(needed))
        texts.append(Text(slot, random_tokens(draw, count * length, VOCABULARY), pages, length))
    return texts


def _logits(engine: Engine, rows: Sequence[Row]) -> dict[int, Tensor]:
    """Logits [tokens, vocabulary] of one forward, by slot and in order of position."""
    runner = engine.runner
    for row in rows:
        if row.canvas is not None:
            runner.registers.open(row.slot, row.canvas)
    length = engine.shape.block_length
    batch = build_batch(plan(*rows), runner.registers, engine.shape.page_size, length, torch.device("cpu"))
    logits = F.linear(runner.model.forward(batch, runner.cache), runner.model.head)
    owner = [row.slot for row in sorted(_blocks(rows, length), key=lambda row: row.start)]
    slots = torch.tensor(owner).repeat_interleave(length)
    return {slot: logits[slots == slot] for slot in set(owner)}


def _blocks(rows: Sequence[Row], length: int) -> list[Row]:
    """The rows, cut as the batch cuts them: a stable sort of these by start is its order."""
    return [
        write(row.slot, at, (0,) * length, row.pages)
        for row in rows
        for at in range(row.start, row.end, length)
    ]
