"""`python -m tests.chaos`: hurt a real cluster under a checked load; fails unless no client noticed."""

import argparse
import asyncio
import json
import signal
import sys
import time
from pathlib import Path

from tests.chaos.clients import Manner
from tests.chaos.cluster import Size
from tests.chaos.drive import Plan, run
from tests.chaos.faults import FaultKind


def main() -> int:
    """The exit code: 0 when nothing was lost, doubled, changed or failed."""
    options = _options()
    plan = Plan(
        seconds=options.seconds,
        seed=options.seed,
        faults=tuple(map(FaultKind, options.faults.split(","))) if options.faults else tuple(FaultKind),
        manners=tuple(map(Manner, options.manners.split(","))) if options.manners else tuple(Manner),
        clients=options.clients,
        outage_seconds=options.outage_seconds,
        overlap=options.overlap,
        size=Size(options.nodes, options.replicas, options.gateways, keep_logs=options.keep_logs),
    )
    # So that everything that was started ends when this does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = asyncio.run(run(plan, _say))
    print("\n".join(report.lines()), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    return 0 if report.passed else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long there is load")
    parser.add_argument("--seed", type=int, default=1, help="of faults, questions and clients")
    parser.add_argument("--faults", help=f"some of {','.join(FaultKind)}; default: all")
    parser.add_argument("--manners", help=f"some of {','.join(Manner)}; default: all")
    parser.add_argument("--clients", type=int, default=12, help="that ask at the same time")
    parser.add_argument("--outage-seconds", type=float, default=30.0, help="that Redis is unreachable")
    parser.add_argument("--overlap", action="store_true", help="do not wait for a recovery")
    parser.add_argument("--nodes", type=int, default=2, help="beside the head")
    parser.add_argument("--replicas", type=int, default=3, help="worker replicas")
    parser.add_argument("--gateways", type=int, default=2, help="gateways on one port")
    parser.add_argument("--keep-logs", action="store_true", help="leave Ray's logs under /tmp/easel-…")
    parser.add_argument("--json", type=Path, help="file for the report")
    return parser.parse_args()


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
