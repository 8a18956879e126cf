"""The loop of steps inside one kernel, for models whose weights fit a GPU's L2 cache."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from easel.kernels.attention_layout import ROW_FIELDS, RaggedRows
from easel.kernels.canvas_state import Whole
from easel.kernels.persistent import (
    PersistentControl,
    PersistentLayer,
    PersistentOutcome,
    PersistentPages,
    PersistentScratch,
    PersistentTask,
    PersistentWeights,
    run_persistent,
)
from easel.worker.denoise import MaskedDenoiser
from easel.worker.errors import WorkerError
from easel.worker.fixed_inputs import Bounds, fits, ragged_of
from easel.worker.host_loop import HostLoop, Interrupted
from easel.worker.models.backbone import Backbone
from easel.worker.models.decoder import Decoder, DecoderLayer
from easel.worker.models.mlp import DenseMLP
from easel.worker.step_program import Machine, StepProgram

POLL_SECONDS = 50e-6  # between two looks at whether something is to be done first


@dataclass(slots=True)
class PersistentLoop:
    """Each canvas takes its own steps until it is finished or has taken the most; none waits for another.

    Batches that hold anything but whole canvases, and canvases whose steps the kernel does not know,
    are the host's.
    """

    machine: Machine
    denoiser: MaskedDenoiser
    weights: PersistentWeights
    bounds: Bounds
    control: PersistentControl
    pause: Callable[[float], None] = time.sleep
    host: HostLoop = field(default_factory=HostLoop)
    _scratch: PersistentScratch | None = None

    def run(self, program: StepProgram, most: int, interrupted: Interrupted) -> int:
        """The most steps that a canvas took."""
        traits, batch = program.traits, program.batch
        unknown = traits.cut or traits.edits or traits.partial or self.denoiser.plain_confidence
        if unknown or not fits(batch, self.bounds):
            return self.host.run(program, most, interrupted)
        state, slots = self.machine.registers.state, batch.slots
        active = state.whole(Whole.ACTIVE)
        before = active.clone()
        active.zero_()
        active.index_copy_(0, slots, before.index_select(0, slots))
        task = self._task(program, most)
        self._scratch = self._scratch or PersistentScratch.allocate(task)
        self.control.shutdown.zero_()
        steps = torch.zeros(task.slots, dtype=torch.int32, device=slots.device)
        run_persistent(task, outcome=PersistentOutcome(state, steps), scratch=self._scratch)
        self._wait(interrupted)
        # Canvases that are not of the batch go on another time.
        after = active.index_select(0, slots)
        active.copy_(before)
        active.index_copy_(0, slots, after)
        return int(steps.max())

    def _task(self, program: StepProgram, most: int) -> PersistentTask:
        cache, registers = self.machine.cache, self.machine.registers
        table, prefix = page_table(program, self.bounds.pages[0])
        return PersistentTask(
            weights=self.weights,
            state=registers.state,
            pages=PersistentPages(cache.keys[0], cache.values[0], table, prefix, cache.page_size),
            control=self.control,
            traits=program.traits,
            eos_token_ids=self.denoiser.eos_token_ids,
            mask_token_id=registers.mask_token_id,
            max_steps=most,
        )

    def _wait(self, interrupted: Interrupted) -> None:
        """Until the launch has ended; when interrupted, canvases end with the step they are in."""
        if self.machine.registers.device.type != "cuda":
            return  # the executor that stands in for the kernel has ended already
        ended = torch.cuda.Event()
        ended.record()
        while not ended.query():
            if interrupted():
                self.control.shutdown.fill_(1)
                ended.synchronize()
                return
            self.pause(POLL_SECONDS)


def page_table(program: StepProgram, pages: int) -> tuple[Tensor, Tensor]:
    """Of every slot, its pages [slots, pages] and prefix [slots], int32; zeros of those not in the batch."""
    rows, registers = ragged_of(program.batch.layouts[0]), program.machine.registers
    device, slots = registers.device, program.batch.slots
    owner = _slot_of_rows(program, rows)
    table = torch.zeros(registers.slots, pages, dtype=torch.int32, device=device)
    prefix = torch.zeros(registers.slots, dtype=torch.int32, device=device)
    first = rows.table[:, ROW_FIELDS.index("pages")].long()
    at = first[:, None] + torch.arange(pages, device=device)
    if len(rows.pages):
        # Beyond a row's own pages the table holds another row's, which no prefix reaches.
        table.index_copy_(0, owner, rows.pages[at.clamp(max=len(rows.pages) - 1)])
    prefix.index_copy_(0, owner, rows.table[:, ROW_FIELDS.index("prefix")].contiguous())
    if len(owner) != len(slots):
        raise ValueError(f"{len(slots)} canvases in {len(owner)} rows of attention")
    return table, prefix


def _slot_of_rows(program: StepProgram, rows: RaggedRows) -> Tensor:
    """[rows] int64: rows are laid out by what they see, canvases in the order of the plan."""
    start = rows.table[:, ROW_FIELDS.index("start")].long()
    place = program.batch.filled_from.index_select(0, start)
    return place // program.machine.registers.block_length


def persistent_weights(model: Backbone) -> PersistentWeights:
    """The model's weights side by side. Raises WorkerError for a model that the kernel does not know."""
    if not isinstance(model, Decoder) or model.config.rotary_dim != model.config.head_dim:
        raise WorkerError(
            "loop 'persistent' is for dense decoders whose heads are rotated whole, like SDAR; use 'graph'."
        )
    try:
        return PersistentWeights.stack(
            [_layer(layer) for layer in model.layers],
            embedding=model.embedding,
            final_norm=model.final_norm,
            head=model.head,
            frequencies=model.inverse_frequencies,
            epsilon=model.config.rms_norm_eps,
        )
    except ValueError as error:
        raise WorkerError(f"loop 'persistent' cannot run this model ({error}); use 'graph'.") from None


def _layer(layer: DecoderLayer) -> PersistentLayer:
    mlp = layer.mlp
    if not isinstance(mlp, DenseMLP):
        raise ValueError("experts are not covered")
    return PersistentLayer(
        input_norm=layer.input_norm,
        qkv=_plain(layer.qkv),
        qk_norm=layer.qk_norm,
        out=_plain(layer.out),
        mlp_norm=layer.mlp_norm,
        gate_up=_plain(mlp.gate_up),
        down=_plain(mlp.down),
        qkv_bias=layer.qkv_bias,
    )


def _plain(weight: object) -> Tensor:
    if not isinstance(weight, Tensor):
        raise ValueError(f"a {type(weight).__name__} is not covered")
    return weight
