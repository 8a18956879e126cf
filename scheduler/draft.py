"""A batch plan in the making: rows added so far, what they cost, and what still fits."""

from easel.scheduler.books import Books
from easel.scheduler.cost import CostModel
from easel.scheduler.life import RequestState
from easel.scheduler.messages import BatchPlan, PhasePolicy, Row


class Draft:
    """Rows of one forward. Pages are allocated as rows are added; nothing else changes."""

    def __init__(self, books: Books, policy: PhasePolicy, cost: CostModel) -> None:
        self._books = books
        self._policy = policy
        self._cost = cost
        self._block = books.shape.block_length
        self._writes: list[Row] = []
        self._canvases: list[Row] = []
        self._seconds = cost.coefficients.constant
        self._refresh_tokens = 0
        self._refreshes = 0  # rows
        self._opens = 0  # by newcomers
        self.newcomers = 0  # that got a row

    @property
    def quota_left(self) -> int:
        """Refresh tokens the policy still allows; the first newcomer's block is always allowed."""
        left = self._policy.refresh_tokens - self._refresh_tokens
        return left if self.newcomers else max(left, self._block)

    def add_running_canvases(self) -> None:
        """A row for every canvas that is being denoised."""
        slots = self._books.slots
        self._canvases.extend(slots.canvas_rows.values())
        self._refresh_tokens += slots.canvas_load.tokens - slots.canvas_load.reuse_tokens
        self._seconds += self._cost.of_load(slots.canvas_load) - self._cost.coefficients.constant

    def add_finished_blocks(self) -> None:
        """For every block that was finished, its commit together with the next canvas's opening.

        Those for which one forward has no memory wait for the next, the last to finish first.
        """
        commits = self._books.shape.commit_limit
        for state in self._books.slots.finished.values():
            if state.to_commit:
                if not commits or not self._books.extend(state, state.canvas_start):
                    continue
                commits -= 1
                self._add_write(state.commit_row())
                if not self._policy.fuse_commits:
                    continue
            self._add_open(state.open_row())

    def room(self, start: int) -> int:
        """Tokens in whole blocks that can be written from `start` on within quota and target.

        One block is always allowed when no newcomer has a row yet, so refresh never stands still.
        """
        seconds = self._policy.target_seconds - self._seconds
        tokens = min(self.quota_left, self._cost.chunk_within(seconds, start))
        if not self.newcomers:
            tokens = max(tokens, self._block)
        granularity = self._books.shape.granularity
        return tokens // granularity * granularity

    def advance(self, state: RequestState, room: int) -> bool:
        """Prefills up to `room` tokens of a request that has a slot, and opens its canvas if that fits.

        False when it got no row.
        """
        before = len(self._writes) + len(self._canvases)
        chunk = min(state.prefill_left, room, self._books.write_room(state))
        if chunk > 0:
            self._books.extend(state, state.written + chunk)
            self._add_write(state.prefill_row(chunk))
        if chunk == state.prefill_left and self._opens < max(1, self._policy.opens_per_step):
            opening = state.open_row()
            nothing_else = not self.newcomers and chunk == 0
            if nothing_else or (room >= chunk + opening.length and self._in_time(opening)):
                self._add_open(opening)
                self._opens += 1
        advanced = len(self._writes) + len(self._canvases) > before
        self.newcomers += advanced
        return advanced

    def plan(self) -> BatchPlan:
        rows = (*self._writes, *self._canvases)
        return BatchPlan(rows, self._seconds, max(1, self._policy.quantum) if self._steady else 1)

    @property
    def _steady(self) -> bool:
        """Whether the same forward is due again and again until a canvas of it is finished."""
        slots, refreshed = self._books.slots, self._refreshes
        return not (refreshed or slots.looked_at or slots.prefilling or slots.finished)

    def _in_time(self, row: Row) -> bool:
        return self._seconds + self._cost.of_row(row) <= self._policy.target_seconds

    def _add_write(self, row: Row) -> None:
        self._writes.append(row)
        self._count(row)

    def _add_open(self, row: Row) -> None:
        self._canvases.append(row)
        self._count(row)

    def _count(self, row: Row) -> None:
        self._refreshes += 1
        self._refresh_tokens += row.length
        self._seconds += self._cost.of_row(row)
