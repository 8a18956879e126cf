"""Which composer stands behind which policy."""

from easel.scheduler.baselines import fcfs, lockstep, segregated
from easel.scheduler.compose import ComposePolicy, Composer, compose

_COMPOSERS: dict[ComposePolicy, Composer] = {
    ComposePolicy.BALANCED: compose,
    ComposePolicy.FCFS: fcfs,
    ComposePolicy.LOCKSTEP: lockstep,
    ComposePolicy.SEGREGATED: segregated,
}


def composer_of(policy: ComposePolicy) -> Composer:
    return _COMPOSERS[policy]
