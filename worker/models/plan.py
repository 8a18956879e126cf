"""Which tensors of a checkpoint fill a decoder's parameters, whatever the family calls them.

Parameters that read the same input lie in one: queries, keys and values; gate and up; all
experts of a layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from easel.worker.models.config import DecoderConfig, Experts, Router
from easel.worker.parameters import ParameterPlan, Source, matrices_among


@dataclass(frozen=True, slots=True)
class TensorNames:
    """A family's names, without `.weight`; those of a layer follow `layer`. The defaults are Qwen's."""

    embedding: str = "model.embed_tokens"
    final_norm: str = "model.norm"
    head: str = "lm_head"
    layer: str = "model.layers.{}."
    input_norm: str = "input_layernorm"
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")  # one: fused
    query_norm: str = "self_attn.q_norm"
    key_norm: str = "self_attn.k_norm"
    out: str = "self_attn.o_proj"
    mlp_norm: str = "post_attention_layernorm"
    mlp: str = "mlp."  # before gate, up and down
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    router: str = "mlp.gate"
    router_bias: str = "mlp.gate.expert_bias"  # the whole name
    expert: str = "mlp.experts.{}."
    shared: str = "mlp.shared_experts."


@dataclass(slots=True)
class _Draft:
    """A plan in the making."""

    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    sources: dict[str, Source] = field(default_factory=dict[str, Source])

    def whole(self, parameter: str, name: str, *shape: int) -> None:
        """A parameter that is one tensor of the checkpoint."""
        self.parameters[parameter] = shape
        self.sources[name] = Source(shape, parameter)

    def joined(self, parameter: str, parts: Sequence[tuple[str, int]], *rest: int) -> None:
        """A parameter that is several tensors (name, rows), one below the other."""
        self.parameters[parameter] = (sum(rows for _, rows in parts), *rest)
        start = 0
        for name, rows in parts:
            self.sources[name] = Source((rows, *rest), parameter, (slice(start, start + rows),))
            start += rows


def decoder_plan(config: DecoderConfig, names: TensorNames) -> ParameterPlan:
    """Everything a decoder of these dimensions loads."""
    draft, h, head = _Draft(), config.hidden_size, f"{names.head}.weight"
    draft.whole("embedding", f"{names.embedding}.weight", config.vocab_size, h)
    draft.whole("final_norm", f"{names.final_norm}.weight", h)
    if not config.tied_embeddings:
        draft.whole("head", head, config.vocab_size, h)
    for index in range(config.layers):
        here, there = f"layers.{index}.", names.layer.format(index)
        _attention(draft, config, names, here, there)
        if config.experts is None or not config.has_experts(index):
            _mlp(draft, names, here, there + names.mlp, h, config.intermediate_size)
        else:
            _experts(draft, config.experts, names, here, there, h)
    exact = config.experts is not None and config.experts.router is Router.GROUPED_SIGMOID
    return ParameterPlan(
        draft.parameters,
        draft.sources,
        ignored=(head,) if config.tied_embeddings else (),  # some tied checkpoints store it all the same
        float32=frozenset(name for name in draft.parameters if exact and ".router" in name),
        matrices=matrices_among(draft.parameters),
    )


def _attention(draft: _Draft, config: DecoderConfig, names: TensorNames, here: str, there: str) -> None:
    h, d = config.hidden_size, config.head_dim
    rows = [config.heads * d, config.kv_heads * d, config.kv_heads * d]
    if len(names.qkv) == 1:
        rows = [sum(rows)]
    parts = [(there + name, count) for name, count in zip(names.qkv, rows, strict=True)]
    draft.whole(f"{here}input_norm", f"{there}{names.input_norm}.weight", h)
    draft.joined(f"{here}qkv", [(f"{name}.weight", count) for name, count in parts], h)
    if config.qkv_bias:
        draft.joined(f"{here}qkv_bias", [(f"{name}.bias", count) for name, count in parts])
    if config.qk_norm:
        draft.whole(f"{here}query_norm", f"{there}{names.query_norm}.weight", d)
        draft.whole(f"{here}key_norm", f"{there}{names.key_norm}.weight", d)
    draft.whole(f"{here}out", f"{there}{names.out}.weight", h, config.heads * d)
    draft.whole(f"{here}mlp_norm", f"{there}{names.mlp_norm}.weight", h)


def _mlp(draft: _Draft, names: TensorNames, here: str, there: str, h: int, size: int) -> None:
    draft.joined(f"{here}gate_up", [(f"{there}{name}.weight", size) for name in (names.gate, names.up)], h)
    draft.whole(f"{here}down", f"{there}{names.down}.weight", h, size)


def _experts(draft: _Draft, experts: Experts, names: TensorNames, here: str, there: str, h: int) -> None:
    size = experts.intermediate_size
    draft.whole(f"{here}router", f"{there}{names.router}.weight", experts.count, h)
    if experts.router is Router.GROUPED_SIGMOID:
        draft.whole(f"{here}router_bias", f"{there}{names.router_bias}", experts.count)
    draft.parameters[f"{here}expert_gate_up"] = (experts.count, 2 * size, h)
    draft.parameters[f"{here}expert_down"] = (experts.count, h, size)
    for expert in range(experts.count):
        at = there + names.expert.format(expert)
        for half, name in enumerate((names.gate, names.up)):
            index = (expert, slice(half * size, (half + 1) * size))
            draft.sources[f"{at}{name}.weight"] = Source((size, h), f"{here}expert_gate_up", index)
        draft.sources[f"{at}{names.down}.weight"] = Source((h, size), f"{here}expert_down", (expert,))
    if experts.shared_size:
        _mlp(draft, names, f"{here}shared_", there + names.shared, h, experts.shared_size)
