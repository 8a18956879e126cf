"""Layers take a large batch's tokens in parts, which changes nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from easel.bench.oracles.checkpoints import Sizes
from easel.worker.batch import ForwardBatch
from easel.worker.kv_cache import KVCache
from easel.worker.models.backbone import Backbone
from easel.worker.models.mlp import fed
from tests.worker.models.backbones import WRITERS, empty_cache, load_decoder, one_row
from tests.worker.models.gemma_rig import write_checkpoint

TOKENS, CANVAS = 30, 8
Case = tuple[Backbone, ForwardBatch, KVCache, Tensor | None]


def _decoder(path: Path, family: str) -> Case:
    WRITERS[family](path, Sizes())
    model = load_decoder(path)
    return model, one_row(range(TOKENS)), empty_cache(model.config, 1, 1, torch.float32), None


def _gemma(path: Path) -> Case:
    """The last tokens are a conditioned canvas, the others are encoded."""
    model = write_checkpoint(path).model()
    batch = one_row(range(TOKENS))
    batch = replace(
        batch,
        layouts=batch.layouts * 2,
        written_to=batch.written_to * 2,
        places=batch.places * 2,
        canvases=torch.arange(TOKENS - CANVAS, TOKENS)[None],
    )
    soft = torch.randn(1, CANVAS, model.head.shape[1], generator=torch.Generator().manual_seed(0))
    return model, batch, empty_cache(model.config, 1, 1, torch.float32), soft


@torch.inference_mode()
@pytest.mark.parametrize("family", [*WRITERS, "DiffusionGemma"])
@pytest.mark.parametrize("at_once", [1, 7, TOKENS - 1, TOKENS])
def test_hidden_states_do_not_depend_on_how_many_tokens_are_fed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, at_once: int
) -> None:
    model, batch, cache, soft = _gemma(tmp_path) if family == "DiffusionGemma" else _decoder(tmp_path, family)
    whole = model.forward(batch, cache, soft)
    for module in ("mlp", "diffusion_gemma"):
        monkeypatch.setattr(f"easel.worker.models.{module}.FED_AT_ONCE", at_once)
    torch.testing.assert_close(model.forward(batch, cache, soft), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("tokens", "parts"), [(0, [0]), (4, [4]), (5, [4, 1]), (12, [4, 4, 4])])
def test_tokens_are_fed_in_parts_with_what_belongs_to_them(
    monkeypatch: pytest.MonkeyPatch, tokens: int, parts: list[int]
) -> None:
    monkeypatch.setattr("easel.worker.models.mlp.FED_AT_ONCE", 4)
    sizes: list[int] = []

    def feed(x: Tensor, attended: Tensor, role: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(x))
        return x + attended * role[:, None], attended + 1.0

    x, attended, role = torch.randn(tokens, 3), torch.randn(tokens, 3), torch.randn(tokens)
    expected = x + attended * role[:, None], attended + 1.0
    found = fed(feed, x, attended, role)
    assert sizes == parts
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
