"""One denoising step of a batch as a list of nodes, which every way of looping runs alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from easel.kernels.canvas_state import Whole
from easel.kernels.commit import StepTraits
from easel.worker.batch import ForwardBatch
from easel.worker.denoise import Denoiser
from easel.worker.kv_cache import KVCache
from easel.worker.models.backbone import Backbone
from easel.worker.registers import CanvasRegisters


@dataclass(frozen=True, slots=True)
class Node:
    """A part of a step. It reads and writes the same tensors whenever it runs."""

    name: str
    run: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Machine:
    """What all steps of a replica share."""

    model: Backbone
    cache: KVCache
    registers: CanvasRegisters
    denoiser: Denoiser


@dataclass(slots=True)
class StepProgram:
    """The step of one batch: its nodes, and the tensors that pass between them.

    Without canvases it is a forward that only writes pages.
    """

    machine: Machine
    batch: ForwardBatch
    traits: StepTraits
    hidden: Tensor | None = None  # [n, h], of the last forward

    @property
    def nodes(self) -> Sequence[Node]:
        """In the order in which they run."""
        nodes = [Node("fill", self._fill), Node("forward", self._forward)]
        if len(self.batch.slots):
            nodes.append(Node("denoise", self._denoise))
        return nodes

    def finished(self) -> bool:
        """Whether a canvas of the batch is finished; waits for the device."""
        return not bool(self.active().all())

    def active(self) -> Tensor:
        """[c] bool: which canvases of the batch are not finished."""
        return self.machine.registers.state.whole(Whole.ACTIVE).index_select(0, self.batch.slots) > 0

    def _fill(self) -> None:
        self.batch.fill(self.machine.registers)

    def _forward(self) -> None:
        machine, batch = self.machine, self.batch
        conditioning = machine.denoiser.conditioning(batch.slots)
        self.hidden = machine.model.forward(batch, machine.cache, conditioning)

    def _denoise(self) -> None:
        if self.hidden is None:
            raise RuntimeError("a step was denoised before its forward")
        canvases = self.batch.canvases
        hidden = self.hidden.index_select(0, canvases.flatten())
        shaped = hidden.view(*canvases.shape, hidden.shape[1])
        self.machine.denoiser.step(self.batch.slots, shaped, self.traits)
