"""One replica without a model: the production LocalScheduler, and canvases that settle as they are told."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from easel.scheduler.compose import ComposePolicy
from easel.scheduler.cost import CostModel
from easel.scheduler.errors import UnknownRequest
from easel.scheduler.local import LocalScheduler
from easel.scheduler.messages import (
    BatchPlan,
    BlockEvent,
    CanvasResult,
    PhasePolicy,
    ReplicaDigest,
    ReplicaOrders,
    ReplicaShape,
    Row,
    StepResult,
)
from easel.scheduler.phase import RowKind
from easel.scheduler.sim_work import FILLER, BlockWork, SimulatedRequest

QUANTUM_SECONDS = 0.05  # after which a plan is not repeated; as in worker/engine.py

StepCost = Callable[[Sequence[Row]], float]  # a plan's rows -> seconds of the forward


def fitted_cost(model: CostModel) -> StepCost:
    """Steps cost what a cost model says."""
    return model.of


@dataclass(slots=True)
class _Canvas:
    work: BlockWork
    known: int  # tokens of the prompt
    step: int = 0


class SimulatedRunner:
    """Runs forwards that take the time of `step_cost` and do what each block's work says."""

    def __init__(self, shape: ReplicaShape, step_cost: StepCost) -> None:
        self._block = shape.block_length
        self._eos = min(shape.eos_token_ids, default=FILLER)
        self._step_cost = step_cost
        self._works: dict[str, tuple[BlockWork, ...]] = {}
        self._canvases: dict[int, _Canvas] = {}  # by slot

    def expect(self, request_id: str, blocks: tuple[BlockWork, ...]) -> None:
        """What the request's blocks will need."""
        self._works[request_id] = blocks

    def forget(self, request_id: str) -> None:
        self._works.pop(request_id, None)

    def run(self, plan: BatchPlan) -> StepResult:
        """One forward."""
        results = tuple(self._denoise(row) for row in plan.rows if row.kind.needs_head)
        return StepResult(results, self._step_cost(plan.rows))

    def _denoise(self, row: Row) -> CanvasResult:
        if row.canvas is not None:
            works, index = self._works[row.request_id], row.canvas.block_index
            # A last block that is full does not say that it is the last: another one does, with no token.
            work = works[index] if index < len(works) else BlockWork(works[-1].steps, 0)
            self._canvases[row.slot] = _Canvas(_capped(work, row), len(row.canvas.known))
        canvas = self._canvases[row.slot]
        canvas.step += 1
        left = canvas.work.steps - canvas.step
        done = left <= 0
        live = max(1, self._block * left // canvas.work.steps)
        tokens = self._tokens(row, canvas) if done else ()
        return CanvasResult(
            row.request_id, row.slot, done, canvas.step, 0 if done else live, 1.0, tokens, live, canvas.step
        )

    def _tokens(self, row: Row, canvas: _Canvas) -> tuple[int, ...]:
        said = min(canvas.work.tokens, self._block - canvas.known)
        ended = self._block - canvas.known - said
        return (FILLER,) * (canvas.known + said) + (self._eos,) * ended


def _capped(work: BlockWork, row: Row) -> BlockWork:
    """The cap on steps holds, and a tightened one most of all."""
    if row.canvas is None or row.canvas.diffusion.steps >= work.steps:
        return work
    return BlockWork(row.canvas.diffusion.steps, work.tokens)


@dataclass(slots=True)
class StepLog:
    """Every forward of a replica, in order; lists of one length."""

    began: list[float] = field(default_factory=list[float])  # seconds of the simulation
    seconds: list[float] = field(default_factory=list[float])
    canvases: list[int] = field(default_factory=list[int])  # that took part
    refresh_tokens: list[int] = field(default_factory=list[int])

    def add(self, now: float, seconds: float, plan: BatchPlan) -> None:
        self.began.append(now)
        self.seconds.append(seconds)
        self.canvases.append(sum(row.kind.needs_head for row in plan.rows))
        self.refresh_tokens.append(sum(row.length for row in plan.rows if row.kind is not RowKind.REUSE))


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """What all simulated replicas have in common."""

    shape: ReplicaShape
    step_cost: StepCost
    compose_policy: ComposePolicy = ComposePolicy.BALANCED
    policy: PhasePolicy | None = None  # until the first one comes
    prior: CostModel | None = None  # where the replica's own cost model starts
    host_seconds: float = 0.0  # between two plans: planning, applying, sending events
    log_steps: bool = True


class SimulatedReplica:
    """Plans, runs and applies, one forward at a time; whoever drives it owns the clock.

    `begin` starts a forward and returns its seconds; `end`, that much later, books it. A plan that
    may be repeated is, as a worker's engine does it, until a canvas is finished, something arrives
    or QUANTUM_SECONDS have passed.
    """

    def __init__(self, replica_id: str, settings: ReplicaSettings) -> None:
        self.replica_id = replica_id
        self.runner = SimulatedRunner(settings.shape, settings.step_cost)
        prior = settings.prior
        self.scheduler = LocalScheduler(
            settings.shape,
            compose_policy=settings.compose_policy,
            cost=CostModel(prior.coefficients) if prior is not None else None,
            policy=settings.policy,
        )
        self.log = StepLog()
        self.busy = False  # a forward is under way
        self._settings = settings
        self._plan: BatchPlan | None = None
        self._result: StepResult | None = None
        self._ran = (0, 0.0)  # forwards of the plan before this one, and their seconds
        self.given_back: list[BlockEvent] = []  # last events of requests that left without a step
        self._mail: list[SimulatedRequest | ReplicaOrders] = []  # read between two plans
        self._sequence = 0
        self._digest: ReplicaDigest | None = None  # until something happens

    def submit(self, work: SimulatedRequest) -> None:
        """The request waits until the forward under way is over."""
        self._mail.append(work)

    def obey(self, orders: ReplicaOrders) -> None:
        """A policy, and requests to give back."""
        self._mail.append(orders)

    def begin(self, now: float) -> float | None:
        """Starts the next forward; None when there is nothing to do.

        Raises what LocalScheduler.submit raises.
        """
        host = 0.0
        if self._plan is None:
            self._read_mail(now)
            self._plan = self.scheduler.plan(now)
            self._ran, host = (0, 0.0), self._settings.host_seconds
        if self._plan is None:
            return None
        self.busy = True
        self._result = result = self.runner.run(self._plan)
        if self._settings.log_steps:
            self.log.add(now, result.seconds, self._plan)
        return result.seconds + host

    def end(self, now: float) -> list[BlockEvent]:
        """The forward is over; the blocks it finished, unless the plan goes on."""
        plan, result = self._plan, self._result
        self.busy = False
        if plan is None or result is None:
            return []
        steps, seconds = self._ran[0] + 1, self._ran[1] + result.seconds
        ended = any(canvas.done for canvas in result.canvases)
        if not (ended or self._mail or steps >= plan.steps or seconds >= QUANTUM_SECONDS):
            self._ran = (steps, seconds)
            return []
        self._plan = self._result = self._digest = None
        whole = StepResult(result.canvases, seconds, steps=steps)
        events = self.scheduler.apply(plan, whole, now)
        for event in events:
            if event.finish is not None:
                self.runner.forget(event.request_id)
        return events

    def _read_mail(self, now: float) -> None:
        if self._mail:
            self._digest = None
        for letter in self._mail:
            if isinstance(letter, ReplicaOrders):
                self._obey(letter, now)
            else:
                self.scheduler.submit(letter.request, now)
                self.runner.expect(letter.request.request_id, letter.blocks)
        self._mail.clear()

    def _obey(self, orders: ReplicaOrders, now: float) -> None:
        if orders.policy is not None:
            self.scheduler.set_policy(orders.policy, now)
        for request_id in orders.hand_over:
            with suppress(UnknownRequest):  # it ended while the order was on its way
                self.given_back += self.scheduler.hand_over(request_id)

    def digest(self) -> ReplicaDigest:
        """The state after the last step, stamped anew, as a worker's engine thread gives it."""
        self._sequence += 1
        if self._digest is None:
            self._digest = self.scheduler.digest(self.replica_id, self._sequence)
        return replace(self._digest, sequence=self._sequence)
