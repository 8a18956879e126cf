"""The loop of steps driven by the host: one node after the other, one look at the canvases a step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from easel.worker.step_program import StepProgram

Interrupted = Callable[[], bool]  # whether something else is to be done first


def never() -> bool:
    """Nothing interrupts."""
    return False


class StepLoop(Protocol):
    """A way to run the same step again and again."""

    def run(self, program: StepProgram, most: int, interrupted: Interrupted) -> int:
        """Run a program's step at least once and at most `most` times; returns how often.

        It ends soon after a canvas is finished or `interrupted` is true: a step that was already
        under way may still take place, and changes nothing of a canvas that is finished.
        """
        ...


@dataclass(frozen=True, slots=True)
class HostLoop:
    """No step takes place after a canvas is finished."""

    def run(self, program: StepProgram, most: int, interrupted: Interrupted) -> int:
        nodes = program.nodes
        for taken in range(1, most):
            for node in nodes:
                node.run()
            if program.finished() or interrupted():
                return taken
        for node in nodes:
            node.run()
        return most
