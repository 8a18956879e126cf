"""Which requests change replicas: from long queues to free slots, seldom and never back and forth.

Nothing moves while tickets wait for a replica: they fill the free slots at no cost.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from easel.scheduler.placement import ReplicaView

INTERVAL_SECONDS = 0.5  # between two looks
COOLDOWN_SECONDS = 10.0  # a request moves at most once in that time
ORDER_SECONDS = 5.0  # an order is repeated for so long, then given up
LEAST_GAIN_SECONDS = 0.5  # predicted to finish earlier by moving
RUNNING_MARGIN = 2.0  # times the prefill of what it has, for one that runs
BUSIEST_SHARE = 8  # at most one move for so many replicas in one look, and one at least
MOVED_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Move:
    """A request is to be given back by a replica, for another to take it."""

    request_id: str
    replica_id: str
    ordered_at: float


class Rebalancer:
    """Remembers what it has ordered. O(replicas) per look, O(1) per digest."""

    def __init__(self) -> None:
        self._orders: dict[str, dict[str, Move]] = {}  # by replica and request
        self._moved: OrderedDict[str, float] = OrderedDict()  # request id -> when
        self._looked_at: float | None = None

    def look(self, views: Iterable[ReplicaView], now: float) -> None:
        """Orders moves, if any are worth it; does nothing when the last look was just now."""
        if self._looked_at is not None and now - self._looked_at < INTERVAL_SECONDS:
            return
        self._looked_at = now
        self._give_up(now)
        able = [view for view in views if not view.closed]
        takers = sorted(
            (v for v in able if v.free), key=lambda v: (v.left_seconds() / v.digest.slots, v.replica_id)
        )
        givers = sorted(able, key=lambda v: (-_queue_seconds(v), v.replica_id)) if takers else []
        most = max(1, len(able) // BUSIEST_SHARE)
        pending = sum(len(moves) for moves in self._orders.values())
        pairs = [(giver, taker) for giver, taker in zip(givers, takers, strict=False) if giver is not taker]
        queued = [(giver, taker) for giver, taker in pairs if _queue_seconds(giver) >= LEAST_GAIN_SECONDS]
        for giver, _ in queued[: max(0, most - pending)]:
            self._order(giver, self._waiting_one(giver, now), now)
        if not queued and not pending and takers:
            self._move_running(able, takers[0], now)

    def of(self, replica_id: str) -> tuple[str, ...]:
        """Requests the replica is to give back; repeated until it no longer lists them."""
        return tuple(self._orders.get(replica_id, ()))

    def left(self, replica_id: str, request_id: str) -> None:
        """The request is not on the replica any more."""
        moves = self._orders.get(replica_id)
        if moves is not None and moves.pop(request_id, None) is not None and not moves:
            del self._orders[replica_id]

    def forget(self, replica_id: str) -> None:
        self._orders.pop(replica_id, None)

    def _move_running(self, able: list[ReplicaView], taker: ReplicaView, now: float) -> None:
        """One running request, if its steps would become so much shorter that it pays to prefill again."""
        giver = max(able, key=lambda v: (len(v.outstanding), v.replica_id))
        if giver is taker or giver.digest.waiting or giver.unseen or taker.digest.waiting_prefill_tokens:
            return
        request_id = self._latest(giver, now)
        if request_id is None:
            return
        request = giver.outstanding[request_id]
        context = request.prompt_tokens + request.max_tokens
        here = giver.step_seconds(len(giver.outstanding), context)
        there = taker.step_seconds(len(taker.outstanding) + 1, context)
        steps = giver.digest.blocks_left * giver.steps_per_block / max(1, len(giver.outstanding))
        prefill = context * (taker.digest.cost.per_token + taker.digest.cost.per_pair * context)
        if steps * (here - there) >= RUNNING_MARGIN * prefill + LEAST_GAIN_SECONDS:
            self._order(giver, request_id, now)

    def _waiting_one(self, view: ReplicaView, now: float) -> str | None:
        """One of those submitted last; if it has a slot after all it is given back at its block's end."""
        return self._latest(view, now, view.digest.waiting)

    def _latest(self, view: ReplicaView, now: float, among: int | None = None) -> str | None:
        active = view.digest.active
        last = active if among is None else active[len(active) - among :]
        for request_id in reversed(last):
            request = view.outstanding.get(request_id)
            if request is not None and request.max_tokens and self._rested(request_id, now):
                return request_id
        return None

    def _rested(self, request_id: str, now: float) -> bool:
        moved = self._moved.get(request_id)
        return moved is None or now - moved >= COOLDOWN_SECONDS

    def _order(self, view: ReplicaView, request_id: str | None, now: float) -> None:
        if request_id is None:
            return
        move = Move(request_id, view.replica_id, now)
        self._orders.setdefault(view.replica_id, {})[request_id] = move
        self._moved[request_id] = now
        self._moved.move_to_end(request_id)
        if len(self._moved) > MOVED_REMEMBERED:
            self._moved.popitem(last=False)

    def _give_up(self, now: float) -> None:
        old = [
            m for moves in self._orders.values() for m in moves.values() if now - m.ordered_at > ORDER_SECONDS
        ]
        for move in old:
            self.left(move.replica_id, move.request_id)


def _queue_seconds(view: ReplicaView) -> float:
    """Seconds until one who waits there gets a slot; 0 if nobody waits."""
    return view.left_seconds() / view.digest.slots if view.digest.waiting else 0.0
