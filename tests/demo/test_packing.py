"""Training rows: what is masked, what is learned and what sees what."""

from __future__ import annotations

import numpy as np
import torch

from easel.demo.packing import (
    BLOCK_LENGTH,
    FILL_WEIGHT,
    NO_SAMPLE,
    allowed_attention,
    lay_out,
    lay_out_block,
    pack,
)
from easel.demo.tokenizer import EOS, MASK, VOCABULARY

MASK_ID, EOS_ID = VOCABULARY[MASK], VOCABULARY[EOS]


def test_a_sample_is_the_clean_blocks_then_the_generated_blocks_at_their_own_positions() -> None:
    sample = lay_out(range(100, 150), range(200, 241), task=0, weight=1.0)
    assert list(sample.position) == [*range(64), *range(32, 96)]
    assert list(sample.noisy) == [False] * 64 + [True] * 64
    assert list(sample.clean[64:82]) == list(range(132, 150))


def test_the_prompt_is_never_learned_and_the_fill_after_eos_hardly() -> None:
    sample = lay_out(range(100, 110), range(200, 205), task=0, weight=2.0)
    expected = [0.0] * 10 + [2.0] * 6 + [2.0 * FILL_WEIGHT] * 16
    assert np.allclose(sample.weight, expected)
    assert list(sample.clean[15:]) == [EOS_ID] * 17


def test_an_answer_that_ends_with_its_block_puts_eos_in_the_next() -> None:
    sample = lay_out(range(100, 110), range(200, 222), task=0, weight=1.0)
    assert list(sample.position[sample.noisy]) == [*range(64)]
    assert sample.clean[sample.noisy][BLOCK_LENGTH] == EOS_ID


def test_one_block_of_a_long_answer_sees_only_the_blocks_before_it() -> None:
    sample = lay_out_block(range(100, 116), range(200, 287), task=0, weight=1.0, pick=0.5)
    assert list(sample.position) == [*range(64), *range(64, 96)]


def test_only_weighted_positions_are_masked_and_targets_stay_clean() -> None:
    sample = lay_out(range(10, 60), range(60, 101), task=3, weight=1.0)
    batch = pack([sample], 1, np.random.default_rng(0))
    hidden = batch.tokens == MASK_ID
    assert hidden.any()
    assert torch.equal(hidden, batch.weights > 0)
    assert torch.equal(hidden, batch.tasks == 3)
    assert not (batch.targets == MASK_ID).any()
    assert torch.equal(batch.tokens[~hidden], batch.targets[~hidden])


def test_samples_that_share_a_row_do_not_see_each_other() -> None:
    samples = [lay_out(range(10, 20), range(20, 25), task, 1.0) for task in range(4)]
    batch = pack(samples, 1, np.random.default_rng(0))
    quarter = torch.arange(4).repeat_interleave(BLOCK_LENGTH)
    assert torch.equal(batch.allowed[0], quarter[:, None] == quarter[None, :])


def test_what_fits_nowhere_is_left_out() -> None:
    samples = [lay_out(range(10, 60), range(60, 101), 0, 1.0) for _ in range(3)]
    batch = pack(samples, 2, np.random.default_rng(0))
    assert batch.tokens.shape == (2, 128)
    assert (batch.tasks != NO_SAMPLE).any(1).all()


def test_a_noisy_block_sees_itself_and_the_clean_blocks_before_it() -> None:
    owner = np.zeros((1, 4), np.int64)
    noisy = np.array([[False, False, True, True]])
    block = np.array([[0, 1, 1, 2]])
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]]
    assert allowed_attention(owner, noisy, block)[0].astype(int).tolist() == expected
