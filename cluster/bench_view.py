"""Runs a load against a cluster and prints what `easel bench` has seen."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from easel.cluster.load_recorder import CONNECT_SECONDS, LoadPlan, LoadRecorder, known_questions
from easel.scheduler.sim_report import summarise
from easel.scheduler.trace import RequestTrace, Trace, write_trace


def run_load(
    url: str,
    api_key: str,
    plan: LoadPlan,
    record: Path | None,
    console: Console,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Trace:
    """Asks, prints, and writes the trace where one is wanted. Raises ChatFailed."""
    trace, failures = asyncio.run(_load(url, api_key, plan, console, transport))
    print_load(trace.requests, failures, console)
    if record is not None:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(write_trace(trace), encoding="utf-8")
        console.print(f"{record}: {len(trace.requests)} requests")
    return trace


async def _load(
    url: str, api_key: str, plan: LoadPlan, console: Console, transport: httpx.AsyncBaseTransport | None
) -> tuple[Trace, Sequence[str]]:
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    # Neither reading nor waiting for a connection is limited: that would hide how slow it is.
    timeout, limits = httpx.Timeout(None, connect=CONNECT_SECONDS), httpx.Limits(max_connections=None)
    columns = (TextColumn("requests"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=timeout, limits=limits, transport=transport, trust_env=False
    ) as http:
        with Progress(*columns, console=console, transient=True) as progress:
            bar = progress.add_task("", total=plan.requests)
            recorder = LoadRecorder(http, plan, known_questions(), on_answer=lambda: progress.advance(bar))
            return await recorder.record(), recorder.failures


def print_load(requests: Sequence[RequestTrace], failures: Sequence[str], console: Console) -> None:
    """Throughput, latencies, right answers, and the first failure if there was one."""
    found = summarise(requests, since=min(request.arrival for request in requests))
    right = sum(bool(request.correct) for request in requests)
    table = Table("", box=None, pad_edge=False)
    for name in ("p50", "p99"):
        table.add_column(name, justify="right")
    rows = {
        "first block, ms": (found.first_block_p50, found.first_block_p99),
        "between blocks, ms": (found.gap_p50, found.gap_p99),
        "whole answer, ms": (found.finish_p50, found.finish_p99),
    }
    for label, values in rows.items():
        table.add_row(label, *(f"{value * 1e3:,.1f}" for value in values))
    console.print(table)
    console.print(
        f"{found.tokens_per_second:,.0f} output tokens / s; {right} of {len(requests)} answers are right; "
        f"{len(failures)} requests failed"
    )
    if failures:
        console.print(f"the first failure: {failures[0]}", markup=False)
