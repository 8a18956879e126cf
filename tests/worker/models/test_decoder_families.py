"""The decoder's logits against those of the Hugging Face model each family's mathematics is from."""

from collections.abc import Callable, Sequence
from functools import cache
from random import Random

import pytest
import torch
from torch import Tensor

from easel.bench.oracles.checkpoints import Sizes
from easel.bench.oracles.masked import Oracle, all_visible, predictions
from easel.worker.models.decoder import Decoder
from easel.worker.models.mlp import ExpertMLP
from tests.worker.models.backbones import (
    BLOCK_CAUSAL,
    WRITERS,
    block_rows,
    empty_cache,
    load_decoder,
    logits_of,
    one_row,
    rows_apart,
)

BLOCK = 24
SIZES = {
    "grouped-heads": Sizes(block_length=BLOCK, heads=4, kv_heads=2),
    "one-key-head-three-shards": Sizes(block_length=BLOCK, kv_heads=1, layers=3, seed=1, shards=3),
    "a-key-head-each": Sizes(block_length=BLOCK, kv_heads=4, seed=2, vocabulary=61),
}
TOLERANCE = 1e-4  # of float32 logits up to 16; the largest error seen is 4e-5


@pytest.fixture(scope="module")
def oracle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Sizes], Oracle]:
    """A family's checkpoint of these sizes with its Hugging Face model, written once."""

    @cache
    def oracle(architecture: str, sizes: Sizes) -> Oracle:
        return WRITERS[architecture](tmp_path_factory.mktemp("family"), sizes)

    return oracle


@pytest.mark.parametrize("architecture", WRITERS)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_logits_of_tokens_that_all_see_each_other_equal_hugging_faces(
    oracle_of: Callable[[str, Sizes], Oracle], architecture: str, sizes: Sizes
) -> None:
    oracle = oracle_of(architecture, sizes)
    model = load_decoder(oracle.path)
    for count in (1, 7, BLOCK):
        tokens = _tokens(count, sizes.vocabulary)
        assert _error(_logits(model, tokens), oracle.logits(tokens)) < TOLERANCE


@pytest.mark.parametrize("architecture", BLOCK_CAUSAL)
@pytest.mark.parametrize("block_length", [1, 5, 16])
def test_logits_of_blocks_that_read_stored_blocks_equal_hugging_faces(
    oracle_of: Callable[[str, Sizes], Oracle], architecture: str, block_length: int
) -> None:
    sizes = Sizes(block_length=block_length)
    oracle = oracle_of(architecture, sizes)
    model = load_decoder(oracle.path)
    tokens = _tokens(6 * block_length, sizes.vocabulary)
    cache = empty_cache(model.config, len(tokens), block_length, torch.float32)
    found = logits_of(model, block_rows(tokens, block_length), cache)
    assert _error(found, oracle.logits(tokens)) < TOLERANCE


def test_a_tied_head_is_the_embedding(oracle_of: Callable[[str, Sizes], Oracle]) -> None:
    oracle = oracle_of("SDARForCausalLM", Sizes(block_length=BLOCK, tied=True))
    model = load_decoder(oracle.path)
    assert model.head is model.embedding
    tokens = _tokens(BLOCK, 105)
    assert _error(_logits(model, tokens), oracle.logits(tokens)) < TOLERANCE


@pytest.mark.parametrize("architecture", WRITERS)
def test_bfloat16_logits_are_as_close_to_float32_as_hugging_faces(
    oracle_of: Callable[[str, Sizes], Oracle], architecture: str
) -> None:
    """The median token's error is at most 1.25 times that of Hugging Face's own bfloat16 forward.

    The median, because a token that rounding sends to another expert is far off here or there.
    """
    oracle = oracle_of(architecture, SIZES["grouped-heads"])
    model = load_decoder(oracle.path, torch.bfloat16)
    narrow = oracle.checkpoint.converted(torch.bfloat16)
    ours, theirs = list[Tensor](), list[Tensor]()
    for seed in range(16):
        text = _tokens(BLOCK, 105, seed)
        exact = oracle.logits(text)
        ours.append(_logits(model, text).float() - exact)
        theirs.append(predictions(narrow, text, all_visible(BLOCK)).float() - exact)
    our_error, their_error = (
        float(torch.cat(parts).square().mean(-1).sqrt().median()) for parts in (ours, theirs)
    )
    assert 0.0 < our_error < 1.25 * their_error


@pytest.mark.parametrize("architecture", WRITERS)
def test_a_sequences_logits_do_not_depend_on_its_batch_mates(
    oracle_of: Callable[[str, Sizes], Oracle], architecture: str
) -> None:
    model = load_decoder(oracle_of(architecture, SIZES["grouped-heads"]).path)
    texts = [_tokens(count, 105, seed=count) for count in (3, 11, 1, 11, 6)]
    cache = empty_cache(model.config, 1, 1, torch.float32)
    together = logits_of(model, rows_apart(texts), cache).split([len(text) for text in texts])
    for text, found in zip(texts, together, strict=True):
        assert _error(found, _logits(model, text)) < TOLERANCE


def test_affinities_of_a_bfloat16_llada2_are_computed_in_float32(
    oracle_of: Callable[[str, Sizes], Oracle],
) -> None:
    model = load_decoder(oracle_of("LLaDA2MoeModelLM", SIZES["grouped-heads"]).path, torch.bfloat16)
    experts = [layer.mlp for layer in model.layers if isinstance(layer.mlp, ExpertMLP)]
    assert len(experts) == len(model.layers) - 1
    for mlp in experts:
        assert mlp.gate_up.dtype == torch.bfloat16
        assert mlp.router_bias is not None
        assert mlp.router.dtype == mlp.router_bias.dtype == torch.float32


def test_a_decoder_takes_no_conditioning(oracle_of: Callable[[str, Sizes], Oracle]) -> None:
    model = load_decoder(oracle_of("SDARForCausalLM", SIZES["grouped-heads"]).path)
    cache = empty_cache(model.config, 1, 1, torch.float32)
    with pytest.raises(ValueError, match=r"no conditioning, got one of \(1, 4, 32\)"):
        model.forward(one_row([1, 2]), cache, torch.zeros(1, 4, 32))


def _tokens(count: int, vocabulary: int, seed: int = 0) -> list[int]:
    draw = Random(seed)
    return [draw.randrange(vocabulary) for _ in range(count)]


def _logits(model: Decoder, tokens: Sequence[int]) -> Tensor:
    return logits_of(model, one_row(tokens), empty_cache(model.config, 1, 1, model.head.dtype))


def _error(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max())
