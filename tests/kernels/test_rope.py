"""Rotary embedding against rotation of complex numbers, and the angles against Hugging Face's."""

import math

import pytest
import torch
from torch import Tensor
from transformers import Glm4MoeConfig, Qwen3Config
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeRotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from easel.kernels.rope import apply_rotary, inverse_frequencies, reference_apply_rotary, rotary_angles


@pytest.mark.parametrize(("tokens", "heads", "dim"), [(1, 1, 2), (7, 3, 6), (13, 4, 64), (0, 2, 8)])
@pytest.mark.parametrize("share", [1.0, 0.5], ids=["all-dims", "half-of-them"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_apply_rotary_equals_its_reference(
    tokens: int, heads: int, dim: int, share: float, dtype: torch.dtype
) -> None:
    x = torch.randn(tokens, heads, dim, generator=torch.Generator().manual_seed(dim)).to(dtype)
    turned = max(2, int(dim * share) // 2 * 2)
    cos, sin = rotary_angles(torch.arange(tokens) * 3, inverse_frequencies(turned, 1e4), dtype)
    found = apply_rotary(x, cos, sin)
    # In bfloat16 two products and a sum are rounded; the reference rounds once.
    tolerance = 3e-2 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(found, reference_apply_rotary(x, cos, sin), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_angles_equal_hugging_faces_to_the_last_bit(dtype: torch.dtype) -> None:
    positions = torch.tensor([0, 1, 2, 77, 4095, 30_000, 131_071])
    full = Qwen3Config(head_dim=128, rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    partial = Glm4MoeConfig(
        hidden_size=256,
        num_attention_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 6e5, "partial_rotary_factor": 0.5},
    )
    like = torch.empty(1, dtype=dtype)
    for theirs, width, theta in (
        (Qwen3RotaryEmbedding(full), 128, 1e6),
        (Glm4MoeRotaryEmbedding(partial), 64, 6e5),
    ):
        expected = theirs(like, positions[None])
        found = rotary_angles(positions, inverse_frequencies(width, theta), dtype)
        for ours, other in zip(found, expected, strict=True):
            assert ours.dtype == dtype
            assert torch.equal(ours[:, 0], other[0])


def test_angles_are_those_of_the_paper_once_for_each_half() -> None:
    cos, sin = rotary_angles(torch.arange(5), inverse_frequencies(6, 100.0), torch.float32)
    assert cos.shape == sin.shape == (5, 1, 6)
    for position in range(5):
        for i in range(6):
            angle = position * 100.0 ** (-2 * (i % 3) / 6)
            assert float(cos[position, 0, i]) == pytest.approx(math.cos(angle), abs=1e-6)
            assert float(sin[position, 0, i]) == pytest.approx(math.sin(angle), abs=1e-6)


def test_scores_of_rotated_vectors_depend_on_their_distance_only() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(16, generator=generator), torch.randn(16, generator=generator)
    scores = [float(_at(q, start + 7) @ _at(k, start)) for start in (0, 1, 40, 92)]
    assert scores == pytest.approx([scores[0]] * 4, abs=1e-4)
    assert abs(scores[0] - float(q @ k)) > 1e-2


def test_a_frequency_of_zero_leaves_its_pair_as_it_is() -> None:
    x = torch.randn(3, 2, 8, generator=torch.Generator().manual_seed(3))
    frequencies = torch.tensor([1.0, 0.0, 0.5, 0.0])
    found = apply_rotary(x, *rotary_angles(torch.tensor([1, 5, 9]), frequencies, torch.float32))
    kept = torch.tensor([1, 3, 5, 7])
    assert torch.equal(found[..., kept], x[..., kept])
    assert not torch.equal(found[..., 0], x[..., 0])


def test_dims_after_the_turned_ones_are_copied_and_the_input_is_left_alone() -> None:
    x = torch.randn(4, 3, 10, generator=torch.Generator().manual_seed(4))
    before = x.clone()
    angles = rotary_angles(torch.arange(4) + 1, inverse_frequencies(6, 1e4), torch.float32)
    found = apply_rotary(x, *angles)
    assert torch.equal(found[..., 6:], x[..., 6:])
    torch.testing.assert_close(found[..., :6], apply_rotary(x[..., :6].contiguous(), *angles))
    assert torch.equal(x, before)


def test_angles_of_another_shape_are_refused() -> None:
    for angles in (torch.zeros(3, 4), torch.zeros(3, 1, 6), torch.zeros(3, 1, 3), torch.zeros(2, 1, 4)):
        with pytest.raises(ValueError, match=r"needs angles \[tokens, 1, r\]"):
            apply_rotary(torch.zeros(3, 2, 4), angles, angles)


def test_an_odd_number_of_dims_cannot_be_turned() -> None:
    with pytest.raises(ValueError, match="rotary_dim 5 must be even"):
        inverse_frequencies(5, 1e4)


def _at(x: Tensor, position: int) -> Tensor:
    angles = rotary_angles(torch.tensor([position]), inverse_frequencies(16, 1e4), torch.float32)
    return apply_rotary(x[None, None], *angles)[0, 0]
