"""What is still to come at one replica, predicted from what it has done."""

from dataclasses import dataclass
from math import inf

from easel.scheduler.life import RequestState, Stage
from easel.scheduler.totals import Totals


@dataclass(slots=True)
class Forecast:
    """Predictions of steps, blocks and seconds. Before a step has been timed, seconds are 0."""

    totals: Totals

    @property
    def block_seconds(self) -> float:
        """Of a block that has not begun."""
        return self.totals.histogram.mean * self.totals.step_seconds.value

    def steps_left(self, state: RequestState) -> float:
        """Of the open canvas; 0 without one."""
        if not state.path:
            return 0.0
        seen = state.path[-1]
        return self.totals.histogram.remaining(seen.step, seen.mean_entropy)

    def blocks_left(self, state: RequestState) -> float:
        """Beside the open canvas, if outputs go on to come to the usual share of max_tokens."""
        is_open = state.stage is Stage.DENOISING
        usual = self.totals.output_share.value * state.request.sampling.max_tokens - state.output_tokens
        begun = 1 if is_open else 0
        return min(state.blocks_left - begun, max(1.0 - begun, usual / state.block_length - begun))

    def service_seconds(self, state: RequestState) -> float:
        """From the first canvas, or from now on if it is open, to the end."""
        steps = self.steps_left(state) + self.blocks_left(state) * self.totals.histogram.mean
        return steps * self.totals.step_seconds.value

    def slack(self, state: RequestState, now: float) -> float:
        """Seconds to spare before the request's target is missed; infinite if it has none any more."""
        if state.stage in (Stage.WAITING, Stage.PREFILLING):
            return state.due - now
        if state.deadline == inf:
            return inf
        return state.deadline - now - self.service_seconds(state)
