"""The plain denoising loop, driven by scripted logits."""

from __future__ import annotations

import torch
from torch import Tensor

from easel.demo.reference_loop import LoopSettings, block_causal_mask, decide, generate

MASK, EOS, VOCAB = 0, 1, 12
SETTINGS = LoopSettings(mask_id=MASK, eos_id=EOS, block_length=4, threshold=0.9, max_blocks=3)


class Script:
    """A model that wants `text` at every position, surely or one position a step."""

    def __init__(self, text: list[int], sure: bool) -> None:
        self.text = torch.tensor(text)
        self.sure = sure
        self.lengths: list[int] = []

    def __call__(self, tokens: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
        self.lengths.append(tokens.shape[1])
        assert torch.equal(allowed[0], block_causal_mask(tokens.shape[1], SETTINGS.block_length))
        wanted = torch.nn.functional.one_hot(self.text[positions], VOCAB).float()
        strength = 50.0 if self.sure else 1.0 - 0.01 * positions[..., None]
        return wanted * strength


def test_a_position_sees_its_own_block_and_those_before() -> None:
    mask = block_causal_mask(4, 2).int().tolist()
    assert mask == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_confident_positions_are_decided_together() -> None:
    model = Script([5, 6, 7, 8, 9, EOS, EOS, EOS], sure=True)
    made = generate(model, torch.tensor([[5, 6]]), SETTINGS)[0]
    assert made.tokens == [7, 8, 9, EOS]
    assert made.steps == [1, 1]


def test_at_least_one_position_is_decided_each_step() -> None:
    model = Script([5, 6, 7, 8, 9, EOS, EOS, EOS], sure=False)
    made = generate(model, torch.tensor([[5, 6]]), SETTINGS)[0]
    assert made.tokens == [7, 8, 9, EOS]
    assert made.steps == [2, 2]


def test_nothing_after_the_first_eos_is_computed() -> None:
    model = Script([5, 6, 7, EOS, EOS, EOS, EOS, EOS], sure=True)
    generate(model, torch.tensor([[5, 6]]), SETTINGS)
    assert max(model.lengths) == 4


def test_a_text_without_eos_stops_at_the_block_limit() -> None:
    made = generate(Script([5] * 12, sure=True), torch.tensor([[5, 6]]), SETTINGS)[0]
    assert made.tokens == [5] * 10


def test_the_mask_token_is_never_chosen() -> None:
    logits = torch.zeros(1, 4, VOCAB)
    logits[..., MASK] = 100.0
    assert (decide(torch.full((1, 4), MASK), logits, SETTINGS) != MASK).sum() == 1


def test_rows_of_a_batch_come_out_as_they_do_alone() -> None:
    model = Script([5, 6, 7, 8, 9, EOS, EOS, EOS], sure=False)
    together = generate(model, torch.tensor([[5, 6], [9, 9]]), SETTINGS)
    alone = [generate(model, torch.tensor([prompt]), SETTINGS)[0] for prompt in ([5, 6], [9, 9])]
    assert together == alone
