"""How matrices come to lie in memory: as a checkpoint stores them, rounded to float8, dequantised, or packed.

A device that multiplies float8 keeps such numbers. Any other has them multiplied by their scales
once, while they are loaded: repeating that in each forward would cost more than the memory saves.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from easel.kernels.fp8 import (
    BLOCK,
    block_shape,
    dequantise,
    multiply_scales,
    quantise_channels,
    row_block_shape,
)
from easel.worker.parameters import Fill, ParameterPlan, Source, scale_of
from easel.worker.quantization import Share, StoredFloat8

CHANNELS = 128  # that are rounded at a time


@dataclass(frozen=True, slots=True)
class Storage:
    """How matrices are to lie in memory."""

    quantise: bool = False  # round those of a checkpoint that is not quantised to float8
    float8: bool = False  # keep float8 numbers: the device multiplies them
    packed: bool = False  # in oneDNN's layout; a CPU's


def stored_plan(plan: ParameterPlan, stored: StoredFloat8 | None, storage: Storage) -> ParameterPlan:
    """The plan with what the checkpoint stores, and with matrices as they are to lie in memory.

    A matrix made of several tensors stays float8 when all of them are, and experts when both their
    matrices are; otherwise it is loaded in the dtype of the forward. Experts are never packed.
    """
    packed = frozenset(name for name in plan.matrices if storage.packed and len(plan.parameters[name]) == 2)
    plan = replace(plan, packed=packed)
    if stored is None and not storage.quantise:
        return plan
    if stored is not None and stored.modules:
        plan = replace(plan, sources=_apart(plan))
    share = Share.CHANNEL if stored is None else stored.share
    sources, scales, kept = dict(plan.sources), dict[str, tuple[int, ...]](), set[str]()
    matrices = _sources_of_matrices(plan)
    covered = {
        parameter: {name: source for name, source in parts.items() if stored is None or stored.covers(name)}
        for parameter, parts in matrices.items()
    }
    whole = {parameter for parameter, parts in matrices.items() if len(parts) == len(covered[parameter])}
    for parameter, parts in covered.items():
        kind = _Scales(plan.parameters[parameter], share, _cut(parts.values()))
        if storage.float8 and {parameter, _partner(parameter)} <= whole:
            kept.add(parameter)
            scales[scale_of(parameter)] = kind.shape()
        for name, source in parts.items():
            if stored is None:
                sources[name] = replace(source, fill=Fill.QUANTISE)
            else:
                sources[name] = replace(source, float8=True)
                sources[name + stored.suffix] = kind.source(source, keep=parameter in kept)
    return replace(
        plan,
        parameters={**plan.parameters, **scales},
        sources=sources,
        float32=plan.float32 | scales.keys(),
        float8=frozenset(kept),
    )


def fill(parameters: Mapping[str, Tensor], source: Source, tensor: Tensor) -> None:
    """Bring a tensor of the checkpoint into its place. Scales come after the numbers that they multiply."""
    part = parameters[source.parameter][source.at]
    if source.fill is Fill.COPY:
        part.copy_(tensor.reshape(source.shape) if source.is_scale else tensor)
    elif source.fill is Fill.SPREAD:
        part.copy_(tensor.reshape(source.shape).repeat_interleave(BLOCK, dim=-2)[..., : part.shape[-2], :])
    elif source.fill is Fill.SCALE:
        multiply_scales(part, tensor.reshape(source.shape).to(part.device).float())
    else:
        scale = parameters.get(scale_of(source.parameter))
        _quantise(tensor, part, None if scale is None else scale[source.at])


def _quantise(tensor: Tensor, part: Tensor, scale: Tensor | None) -> None:
    """`part` and `scale` become the float8 form of `tensor`; without `scale`, `part` what that form means.

    A few channels at a time, so that little is taken besides.
    """
    if tensor.ndim > 2:
        for index, expert in enumerate(tensor):
            _quantise(expert, part[index], None if scale is None else scale[index])
        return
    for start in range(0, len(tensor), CHANNELS):
        rows = slice(start, start + CHANNELS)
        found = quantise_channels(tensor[rows].to(part.device))
        if scale is None:
            part[rows] = dequantise(found, part.dtype)
        else:
            part[rows], scale[rows] = found.data, found.scale


def _sources_of_matrices(plan: ParameterPlan) -> dict[str, dict[str, Source]]:
    """By parameter, then by name in the checkpoint."""
    found: dict[str, dict[str, Source]] = {name: {} for name in sorted(plan.matrices)}
    for name, source in plan.sources.items():
        if source.parameter in found:
            found[source.parameter][name] = source
    return found


def _apart(plan: ParameterPlan) -> dict[str, Source]:
    """The sources, with a tensor for each projection of each expert where one holds all experts."""
    found: dict[str, Source] = {}
    for name, source in plan.sources.items():
        if source.parameter not in plan.matrices or len(source.shape) == 2:
            found[name] = source
            continue
        experts, rows, columns = source.shape
        stem, _, kind = name.rpartition(".")
        parts = ("gate_proj", "up_proj") if kind == "gate_up_proj" else (kind,)
        each = rows // len(parts)
        for expert in range(experts):
            for number, part in enumerate(parts):
                at = (expert, slice(number * each, (number + 1) * each))
                found[f"{stem}.{expert}.{part}.weight"] = Source((each, columns), source.parameter, at)
    return found


def _partner(parameter: str) -> str:
    """The other matrix of experts, which go through one kernel; any other matrix itself."""
    there, dot, name = parameter.rpartition(".")
    pair = {"expert_gate_up": "expert_down", "expert_down": "expert_gate_up"}
    return there + dot + pair.get(name, name)


def _cut(sources: Iterable[Source]) -> bool:
    """Whether a block of a matrix would lie in two of the tensors that it is made of."""
    return any(isinstance(part, slice) and part.start % BLOCK for source in sources for part in source.at)


@dataclass(frozen=True, slots=True)
class _Scales:
    """The scales of a matrix."""

    matrix: tuple[int, ...]  # its shape
    share: Share
    cut: bool  # blocks are cut where tensors are joined: each row gets the scales of its block

    def shape(self) -> tuple[int, ...]:
        """Of the parameter that holds them."""
        if self.share is not Share.BLOCK:
            return self.matrix[:-1]
        return row_block_shape(self.matrix) if self.cut else block_shape(self.matrix)

    def source(self, part: Source, *, keep: bool) -> Source:
        """The scales of a tensor of the checkpoint that fills a part of the matrix."""
        shape = (*part.shape[:-2], 1) if self.share is Share.TENSOR else part.shape[:-1]
        if self.share is Share.BLOCK:
            shape = block_shape(part.shape)
        if not keep:
            return Source(shape, part.parameter, part.at, Fill.SCALE, is_scale=True)
        in_blocks = self.share is Share.BLOCK and not self.cut
        at = tuple(_in_blocks(index) for index in part.at) if in_blocks else part.at
        fill = Fill.SPREAD if self.share is Share.BLOCK and self.cut else Fill.COPY
        return Source(shape, scale_of(part.parameter), at, fill, is_scale=True)


def _in_blocks(part: int | slice) -> int | slice:
    if isinstance(part, int):
        return part
    return slice(part.start // BLOCK, -(-part.stop // BLOCK))
