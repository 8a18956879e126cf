"""The stages of a persistent launch as plain functions, a canvas and a step at a time.

This is what the Triton kernel computes, tensor by tensor; with a trace both leave every stage's tensors
behind, to be compared.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from easel.kernels.canvas_state import Real, Whole
from easel.kernels.commit import Found
from easel.kernels.commit_rules import CanvasView, Rule, accept
from easel.kernels.head import Sampling, head_stats
from easel.kernels.moe import Activation, gated
from easel.kernels.noise import uniform
from easel.kernels.norm import rms_norm
from easel.kernels.persistent_layout import PersistentOutcome, PersistentTask, PersistentTrace
from easel.kernels.rope import apply_rotary, rotary_angles
from easel.kernels.stop_rules import finished, mean_entropy

TOKEN_DRAW = 0  # which of a position's random numbers picks its token


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the third stage finds of one canvas."""

    undecided: Tensor  # [1, block]  bool  before the step
    accepted: Tensor  # [1, block]  bool
    mean_entropy: Tensor  # [1]  float32  nats, over the undecided positions


@dataclass(frozen=True, slots=True)
class _Recorder:
    """Where a step of a canvas leaves its stages' tensors."""

    trace: PersistentTrace | None
    step: int  # of this launch
    slot: int

    def keep(self, name: str, value: Tensor, layer: int | None = None) -> None:
        if self.trace is not None:
            kept = self.trace.tensors()[name][self.step, self.slot]
            (kept if layer is None else kept[layer]).copy_(value)


@torch.no_grad()
def run_stages(task: PersistentTask, outcome: PersistentOutcome, trace: PersistentTrace | None) -> None:
    """What `run_persistent` promises, in torch; the device is asked after each step."""
    for slot in range(task.slots):
        if task.state.integers[slot, Whole.ACTIVE] > 0:
            outcome.steps[slot] = _run_canvas(task, slot, trace)
    task.control.shutdown.fill_(1)


def _run_canvas(task: PersistentTask, slot: int, trace: PersistentTrace | None) -> int:
    taken, done = 0, False
    while not done and taken < task.max_steps and not int(task.control.shutdown):
        done = run_step(task, slot, _Recorder(trace, taken, slot))
        taken += 1
    return taken


def run_step(task: PersistentTask, slot: int, recorder: _Recorder) -> bool:
    """The five stages of one step; returns whether the canvas is done."""
    hidden = denoise(task, slot, recorder)
    found = estimate(task, slot, hidden)
    verdict = verify(task, slot, found)
    commit(task, slot, found, verdict)
    done = conclude(task, slot, verdict)
    state = task.state
    for name, value in (
        ("hidden", hidden),
        ("token", found.token[0]),
        ("confidence", found.confidence[0]),
        ("entropy", found.entropy[0]),
        ("accepted", verdict.accepted[0]),
        ("tokens", state.tokens[slot]),
        ("decided", state.decided[slot]),
        ("done", done),
        ("mean_entropy", verdict.mean_entropy[0]),
    ):
        recorder.keep(name, value)
    return bool(done)


def denoise(task: PersistentTask, slot: int, recorder: _Recorder) -> Tensor:
    """Stage 1: hidden states [block, h] of a canvas, over its prefix and all of itself."""
    weights, pages = task.weights, task.pages
    x = F.embedding(task.state.tokens[slot], weights.embedding)
    prefix = int(pages.prefix[slot])
    positions = torch.arange(prefix, prefix + len(x), device=x.device)
    angles = rotary_angles(positions, weights.frequencies, x.dtype)
    place = torch.arange(prefix, device=x.device)
    page = pages.table[slot].long()[place // pages.page_size]
    stored = page * pages.page_size + place % pages.page_size
    for layer in range(weights.layers):
        x = x + _attention(
            task, layer, rms_norm(x, weights.input_norm[layer], weights.epsilon), angles, stored
        )
        inner = F.linear(rms_norm(x, weights.mlp_norm[layer], weights.epsilon), weights.gate_up[layer])
        x = x + F.linear(gated(inner, Activation.SILU), weights.down[layer])
        recorder.keep("layers", x, layer)
    return rms_norm(x, weights.final_norm, weights.epsilon)


def _attention(
    task: PersistentTask, layer: int, x: Tensor, angles: tuple[Tensor, Tensor], stored: Tensor
) -> Tensor:
    """[block, h]; `stored` [prefix] are the store tokens of the prefix."""
    weights, pages = task.weights, task.pages
    heads = F.linear(x, weights.qkv[layer]).view(len(x), -1, weights.dim)
    values = weights.heads + weights.kv_heads  # where they start
    turned = rms_norm(heads[:, :values].contiguous(), weights.qk_norm[layer], weights.epsilon)
    turned = apply_rotary(turned, *angles)
    q = turned[:, : weights.heads].reshape(len(x), weights.kv_heads, -1, weights.dim)
    k = torch.cat((pages.keys[layer, stored], turned[:, weights.heads :]))
    v = torch.cat((pages.values[layer, stored], heads[:, values:]))
    scores = torch.einsum("ngsd,kgd->gsnk", q.float(), k.float()) * weights.dim**-0.5
    shares = scores.softmax(-1).to(x.dtype).float()
    mixed = torch.einsum("gsnk,kgd->ngsd", shares, v.float()).to(x.dtype)
    return F.linear(mixed.flatten(1), weights.out[layer])


def estimate(task: PersistentTask, slot: int, hidden: Tensor) -> Found:
    """Stage 2: what the head chooses at each open position, [1, block] each; zeros elsewhere.

    Logits are float32 also where weights are not.
    """
    state = task.state
    undecided = ~state.decided[slot]
    position = undecided.nonzero().squeeze(-1)
    wide = hidden[position].float(), task.weights.head.float()
    stats = head_stats(*wide, task.mask_token_id, _sampling(task, slot, position))
    found = Found(
        token=torch.zeros_like(state.tokens[slot]),
        confidence=torch.zeros_like(state.confidence[slot]),
        entropy=torch.zeros_like(state.confidence[slot]),
    )
    found.token[position] = stats.token
    found.confidence[position] = stats.confidence
    found.entropy[position] = stats.entropy
    return Found(found.token[None], found.confidence[None], found.entropy[None])


def _sampling(task: PersistentTask, slot: int, position: Tensor) -> Sampling:
    """How the open positions [n] of a canvas are drawn."""
    integers = task.state.integers[slot]
    seed, block, step = (
        integers[column].expand(len(position)) for column in (Whole.SEED, Whole.BLOCK_INDEX, Whole.STEP)
    )
    return Sampling(
        temperature=task.state.numbers[slot, Real.TEMPERATURE].expand(len(position)),
        top_k=torch.zeros_like(position),
        top_p=torch.ones_like(position, dtype=torch.float32),
        noise=uniform(seed, block, step, position, TOKEN_DRAW),
    )


def verify(task: PersistentTask, slot: int, found: Found) -> Verdict:
    """Stage 3: the positions that the canvas's rule accepts, or all, if they are sure enough on average."""
    state = task.state
    integers, numbers = state.integers[slot, None], state.numbers[slot, None]
    undecided = ~state.decided[slot, None]
    # A step beyond the schedule's has the last one's quota.
    step = integers[:, Whole.STEP].clamp(max=state.block_length - 1)
    view = CanvasView(
        undecided=undecided,
        confidence=found.confidence,
        entropy=found.entropy,
        quota=state.quotas[slot, step],
        threshold=numbers[:, Real.THRESHOLD],
        entropy_bound=numbers[:, Real.ENTROPY_BOUND],
    )
    accepted = accept(integers[:, Whole.RULE], frozenset(Rule), view)
    mean = mean_entropy(found.entropy, undecided, undecided.sum(-1))
    settled = mean < numbers[:, Real.STOP_ENTROPY]
    return Verdict(undecided, accepted | (undecided & settled[:, None]), mean)


def commit(task: PersistentTask, slot: int, found: Found, verdict: Verdict) -> None:
    """Stage 4: what was chosen and what was accepted, to the registers."""
    state = task.state
    accepted, undecided = verdict.accepted[0], verdict.undecided[0]
    state.tokens[slot] = torch.where(accepted, found.token[0], state.tokens[slot])
    state.predicted[slot] = torch.where(undecided, found.token[0], state.predicted[slot])
    state.confidence[slot] = torch.where(undecided, found.confidence[0], state.confidence[slot])
    state.decided[slot] |= accepted


def conclude(task: PersistentTask, slot: int, verdict: Verdict) -> Tensor:
    """Stage 5: the canvas's books; returns whether it is done, [] bool."""
    state = task.state
    integers, numbers = state.integers[slot], state.numbers[slot]
    tokens, decided = state.tokens[slot, None], state.decided[slot, None]
    first, limit = integers[Whole.FIRST, None], integers[Whole.LIMIT, None]
    done = finished(tokens, decided, first, limit, task.eos_token_ids)[0]
    integers[Whole.ACTIVE] = (~done).to(torch.int64)
    integers[Whole.STEP] += 1
    integers[Whole.UNDECIDED] = (~decided).sum()
    integers[Whole.LIVE] = verdict.undecided.sum()
    numbers[Real.MEAN_ENTROPY] = verdict.mean_entropy[0]
    numbers[Real.ENTROPY_SUM] += verdict.mean_entropy[0]
    return done
