"""What a replica says of itself; costs as much as there are slots, never as much as the queue is long."""

from dataclasses import dataclass
from math import inf

from easel.scheduler.books import Books
from easel.scheduler.cost import CostModel
from easel.scheduler.forecast import Forecast
from easel.scheduler.messages import ReplicaDigest
from easel.scheduler.queue import RefreshQueue


@dataclass(frozen=True, slots=True)
class Summary:
    """Sums up one replica for the central scheduler."""

    books: Books
    queue: RefreshQueue
    forecast: Forecast

    def digest(
        self,
        replica_id: str,
        sequence: int,
        *,
        cost: CostModel,
        active: tuple[str, ...],
        policy_epoch: int,
        draining: bool,
        now: float,
    ) -> ReplicaDigest:
        """The state at time `now`."""
        shape, slots, totals = self.books.shape, self.books.slots, self.forecast.totals
        prefilling = sum(state.prefill_left for state in slots.prefilling.values())
        return ReplicaDigest(
            replica_id=replica_id,
            sequence=sequence,
            slots=shape.slots,
            slots_used=slots.used,
            pages=shape.pages,
            pages_available=self.books.pool.available,
            page_size=shape.page_size,
            block_length=shape.block_length,
            waiting=len(self.queue),
            waiting_prefill_tokens=self.queue.prefill_tokens + prefilling,
            active=active,
            steps_per_block=totals.steps_per_block.value,
            step_seconds=totals.step_seconds.value,
            cost=cost.coefficients,
            refresh_tokens=totals.refresh_tokens,
            reuse_tokens=totals.reuse_tokens,
            steps=totals.steps,
            blocks=totals.blocks,
            committed_tokens=totals.committed_tokens,
            policy_epoch=policy_epoch,
            layout=shape.layout,
            cost_error=cost.relative_error,
            output_share=totals.output_share.value,
            blocks_left=self._blocks_left(),
            steps_left=sum(self.forecast.steps_left(state) for state in slots.denoising.values()),
            least_slack=self._least_slack(now),
            preemptions=totals.preemptions,
            draining=draining,
            step_times=totals.step_times.counts(),
            predicted_times=totals.predicted_times.counts(),
        )

    def _blocks_left(self) -> float:
        """Of those that wait at least one each, and all that outputs of the usual length come to."""
        usual = self.forecast.totals.output_share.value * self.queue.blocks_left
        running = sum(self.forecast.blocks_left(state) for state in self.books.slots.holders)
        return max(float(len(self.queue)), usual) + running

    def _least_slack(self, now: float) -> float | None:
        """None if nobody has a target that is still to be met."""
        running = min((self.forecast.slack(state, now) for state in self.books.slots.holders), default=inf)
        least = min(running, self.queue.least_due - now)
        return None if least == inf else least
