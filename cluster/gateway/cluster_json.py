"""The JSON of GET /cluster and GET /cluster/requests/{id}. Times are Unix seconds."""

from collections.abc import Iterable, Sequence

from easel.cluster.cluster_state import (
    AnswerState,
    AnswerSummary,
    ClusterState,
    Fault,
    Json,
    ReplicaState,
    StoredTimeline,
)
from easel.cluster.gateway.statistics import ms_of
from easel.scheduler.messages import StepSample

LISTED = 100  # requests


def cluster_json(
    state: ClusterState, requests: Iterable[AnswerSummary], model: str, journal: str, now: float
) -> Json:
    """The whole cluster, with the requests that its reader may see, newest first."""
    newest = sorted(requests, key=lambda request: request.began, reverse=True)
    return {
        "time": now,
        "model": model,
        "journal": journal,
        "waiting": state.waiting,
        "lost_replicas": state.lost_replicas,
        "replicas": [_replica(replica) for replica in state.replicas],
        "faults": [_fault(fault) for fault in state.faults],
        "requests": [_request(request, now) for request in newest[:LISTED]],
    }


def timeline_json(timeline: StoredTimeline) -> Json:
    """What became of one request."""
    summary = timeline.summary
    return {
        "id": summary.answer_id,
        "state": summary.state.value,
        "trace_id": summary.trace_id,
        "events": list(timeline.events),
    }


def with_own(known: Sequence[AnswerSummary], own: Sequence[AnswerSummary]) -> list[AnswerSummary]:
    """What a gateway knows of its own answers is newer than what it has reported."""
    return list({summary.answer_id: summary for summary in (*known, *own)}.values())


def _replica(replica: ReplicaState) -> Json:
    digest = replica.digest
    return {
        "id": digest.replica_id,
        "state": "draining" if replica.draining else "serving",
        "slots": digest.slots,
        "slots_used": digest.slots_used,
        "pages": digest.pages,
        "pages_available": digest.pages_available,
        "waiting": digest.waiting,
        "block_length": digest.block_length,
        "page_size": digest.page_size,
        "policy_epoch": digest.policy_epoch,
        "policy_age_seconds": round(replica.policy_age_seconds, 3),
        "steps_per_block": round(digest.steps_per_block, 3),
        "step_seconds": round(digest.step_seconds, 6),
        "cost_error": round(digest.cost_error, 4),
        "blocks": digest.blocks,
        "committed_tokens": digest.committed_tokens,
        "preemptions": digest.preemptions,
        "strip": [_step(sample) for sample in replica.strip],
    }


def _step(sample: StepSample) -> Json:
    return {
        "step": sample.step,
        "refresh": sample.refresh_tokens,
        "reuse": sample.reuse_tokens,
        "predicted_ms": ms_of(sample.predicted_seconds),
        "actual_ms": ms_of(sample.actual_seconds),
    }


def _fault(fault: Fault) -> Json:
    return {"time": fault.time, "kind": fault.kind.value, "replica": fault.replica}


def _request(summary: AnswerSummary, now: float) -> Json:
    running = summary.state is AnswerState.RUNNING
    return {
        "id": summary.answer_id,
        "state": summary.state.value,
        "began": summary.began,
        "seconds": round(max(summary.seconds, now - summary.began) if running else summary.seconds, 3),
        "blocks": summary.blocks,
        "tokens": summary.tokens,
        "steps": summary.steps,
        "replica": summary.replica,
    }
