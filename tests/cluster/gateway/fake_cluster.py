"""What a cluster of two replicas might tell of itself: GET /cluster, and one of its requests."""

from typing import Any

NOW = 1_763_862_000.0  # Unix seconds


def strip_of(steps: int) -> list[dict[str, Any]]:
    """The last steps of a replica, oldest first."""
    return [
        {
            "step": step,
            "refresh": 96 if step % 11 == 0 else 32 if step % 3 == 0 else 0,
            "reuse": 32 * (6 + step % 5),
            "predicted_ms": 4.0 + (step % 7) * 0.2,
            "actual_ms": 4.0 + (step % 5) * 0.4 + (3.0 if step == 60 else 0.0),
        }
        for step in range(steps)
    ]


def replica_of(replica_id: str, steps: int) -> dict[str, Any]:
    """A busy replica."""
    return {
        "id": replica_id,
        "state": "serving",
        "slots": 16,
        "slots_used": 11,
        "pages": 1024,
        "pages_available": 410,
        "waiting": 2,
        "block_length": 32,
        "page_size": 32,
        "policy_epoch": 317,
        "policy_age_seconds": 0.21,
        "steps_per_block": 1.34,
        "step_seconds": 0.0046,
        "cost_error": 0.08,
        "blocks": 5120,
        "committed_tokens": 88_400,
        "preemptions": 3,
        "strip": strip_of(steps),
    }


def cluster_state(requests: int = 30) -> dict[str, Any]:
    """GET /cluster in every colour it has."""
    leaving = replica_of("x9d0m4te", 40) | {"state": "draining", "slots_used": 2}
    listed = [
        {
            "id": f"chatcmpl-{index:032x}",
            "state": ["running", "finished", "finished", "cancelled", "failed"][index % 5],
            "began": NOW - index * 0.7,
            "seconds": 0.2 + index * 0.01,
            "blocks": 1 + index % 4,
            "tokens": 20 + index,
            "steps": 3 + index % 6,
            "replica": "k2f8q1zc",
        }
        for index in range(requests)
    ]
    faults = [
        {"time": NOW - 95, "kind": "replica_lost", "replica": "a1b2c3d4"},
        {"time": NOW - 12, "kind": "journal_away"},
    ]
    return {
        "time": NOW,
        "model": "tiny",
        "journal": "degraded",
        "waiting": 3,
        "lost_replicas": 1,
        "replicas": [replica_of("k2f8q1zc", 120), leaving],
        "faults": faults,
        "requests": listed,
    }


TRACE: dict[str, Any] = {
    "id": f"chatcmpl-{1:032x}",
    "state": "finished",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "events": [
        {"at": 0.0, "kind": "received"},
        {"at": 0.0012, "kind": "placed", "choice": 0, "replica": "a1b2c3d4", "attempt": 1},
        {"at": 0.014, "kind": "prefilled", "choice": 0, "queue_ms": 4.1, "prefill_ms": 8.2,
         "cached_tokens": 32},
        {"at": 0.035, "kind": "block", "choice": 0, "block": 0, "steps": 5, "tokens": 32, "mean_entropy": 0.1,
         "ms": 20.1, "tightened": False},
        {"at": 0.051, "kind": "replica_lost", "choice": 0, "replica": "a1b2c3d4"},
        {"at": 0.058, "kind": "placed", "choice": 0, "replica": "k2f8q1zc", "attempt": 2},
        {"at": 0.071, "kind": "prefilled", "choice": 0, "queue_ms": 0.4, "prefill_ms": 11.0,
         "cached_tokens": 0},
        {"at": 0.094, "kind": "block", "choice": 0, "block": 1, "steps": 4, "tokens": 20,
         "mean_entropy": 0.04, "ms": 22.0, "tightened": True},
        {"at": 0.095, "kind": "finished", "reason": "stop"},
    ],
}  # fmt: skip
