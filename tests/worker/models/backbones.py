"""Decoders loaded from tiny checkpoints, and batches of one sequence for them, made by hand."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.bench.oracles.checkpoints import Sizes
from easel.bench.oracles.dream import write_dream
from easel.bench.oracles.llada import write_llada
from easel.bench.oracles.llada2 import write_llada2
from easel.bench.oracles.masked import Oracle
from easel.bench.oracles.sdar import write_sdar, write_sdar_moe
from easel.kernels.attention import AttentionRow, attention_layout
from easel.worker.batch import ForwardBatch
from easel.worker.kv_cache import KVCache
from easel.worker.model_info import read_json
from easel.worker.models.backbone import Backbone, BackboneConfig
from easel.worker.models.decoder import Decoder
from easel.worker.models.registry import definition_of
from easel.worker.weights import load_parameters

CPU = torch.device("cpu")

BLOCK_CAUSAL: dict[str, Callable[[Path, Sizes], Oracle]] = {
    "SDARForCausalLM": write_sdar,
    "SDARMoeForCausalLM": write_sdar_moe,
    "LLaDA2MoeModelLM": write_llada2,
}
WRITERS: dict[str, Callable[[Path, Sizes], Oracle]] = BLOCK_CAUSAL | {
    "LLaDAModelLM": write_llada,
    "DreamModel": write_dream,
}


def load_decoder(path: Path, dtype: torch.dtype = torch.float32) -> Decoder:
    """The model a checkpoint holds, by its architecture."""
    fields = read_json(path / "config.json", "it describes the model")
    definition = definition_of(fields["architectures"][0])
    config = definition.read_config(fields)
    parameters = load_parameters(path, definition.parameter_plan(config), dtype, CPU)
    model = definition.build(config, parameters)
    if not isinstance(model, Decoder):
        raise TypeError(f"{path} holds a {type(model).__name__}")
    return model


def empty_cache(config: BackboneConfig, tokens: int, page_size: int, dtype: torch.dtype) -> KVCache:
    """Room for so many stored tokens, poisoned: what is read before it is written shows."""
    cache = KVCache.allocate(config.kv_groups, [tokens] * len(config.kv_groups), page_size, dtype, CPU)
    for store in (*cache.keys, *cache.values):
        store.fill_(float("nan"))
    return cache


def one_row(tokens: Sequence[int]) -> ForwardBatch:
    """A sequence whose tokens all see each other; nothing is stored."""
    return rows_apart([tokens])


def rows_apart(texts: Sequence[Sequence[int]]) -> ForwardBatch:
    """Several such sequences that see nothing of each other."""
    rows = [AttentionRow(pages=(), prefix=0, length=len(text)) for text in texts]
    tokens = [token for text in texts for token in text]
    positions = [position for text in texts for position in range(len(text))]
    return _batch(tokens, positions, rows, page_size=1, stored=0)


def block_rows(tokens: Sequence[int], block_length: int) -> ForwardBatch:
    """A sequence of whole blocks, each a row that is stored and sees the blocks stored before it."""
    rows = [
        AttentionRow(pages=tuple(range(block)), prefix=block * block_length, length=block_length)
        for block in range(len(tokens) // block_length)
    ]
    return _batch(tokens, range(len(tokens)), rows, page_size=block_length, stored=len(tokens))


def logits_of(model: Backbone, batch: ForwardBatch, cache: KVCache) -> Tensor:
    """[tokens, vocabulary]"""
    return F.linear(model.forward(batch, cache, None), model.head)


def _batch(
    tokens: Sequence[int],
    positions: Sequence[int],
    rows: Sequence[AttentionRow],
    *,
    page_size: int,
    stored: int,
) -> ForwardBatch:
    return ForwardBatch(
        tokens=torch.tensor(tokens),
        positions=torch.tensor(positions),
        layouts=(attention_layout(rows, page_size, CPU),),
        written=torch.arange(stored),
        written_to=(torch.arange(stored),),
        places=(torch.cat((torch.arange(stored), torch.full((len(tokens) - stored,), -1))),),
        canvases=torch.empty(0, 1, dtype=torch.int64),
        slots=torch.empty(0, dtype=torch.int64),
        filled=torch.empty(0, dtype=torch.int64),
        filled_from=torch.empty(0, dtype=torch.int64),
    )
