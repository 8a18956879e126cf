"""The part of a replica's digest that /health shows."""

from dataclasses import astuple

from easel.scheduler.messages import ReplicaDigest


def load_of(digest: ReplicaDigest) -> dict[str, object]:
    """The part of a digest an operator looks at."""
    return {
        "slots": digest.slots,
        "slots_used": digest.slots_used,
        "waiting": digest.waiting,
        "pages": digest.pages,
        "pages_available": digest.pages_available,
        "steps_per_block": digest.steps_per_block,
        "step_seconds": digest.step_seconds,
        "blocks": digest.blocks,
        "committed_tokens": digest.committed_tokens,
        "block_length": digest.block_length,
        "page_size": digest.page_size,
        "cost": list(astuple(digest.cost)),
        "cost_error": digest.cost_error,
        "preemptions": digest.preemptions,
        "draining": digest.draining,
    }
