from dataclasses import replace
from random import Random
from statistics import mean, median

import pytest

from easel.bench.phase_balance import ratios
from easel.bench.phase_real import WorkClock, figures_of
from easel.bench.phase_simulated import SCENARIOS, simulate
from easel.bench.phase_static import pad
from easel.bench.phase_steps import HOST_SECONDS, REACHED, RooflineSteps, draw_steps
from easel.bench.phase_work import CHAT, INTERACTIVE, Backlog, bursts, closed, open_loop, poisson
from easel.bench.report import figure
from easel.scheduler.compose import ComposePolicy
from easel.scheduler.messages import Row
from easel.scheduler.phase import RowKind, SequenceLayout
from easel.scheduler.request import Priority
from easel.scheduler.trace import BlockTrace, RequestTrace
from easel.worker.devices import known_device
from easel.worker.roofline import Rows, forward
from easel.worker.sketch import sketch_preset

GEMMA = sketch_preset("DiffusionGemma-26B-A4B").anatomy
H200 = known_device("H200")


def row(kind: RowKind, start: int, length: int, slot: int = 0, span: int = 0) -> Row:
    return Row(kind, "r", slot, start, length, (), canvas_start=start, span=span)


def test_steps_of_blocks_are_those_of_real_text() -> None:
    rng = Random(0)
    drawn = [draw_steps(rng) for _ in range(20_000)]
    assert mean(drawn) == pytest.approx(26.6, abs=0.5)
    assert median(drawn) == pytest.approx(23, abs=1)
    assert sum(steps == 48 for steps in drawn) / len(drawn) == pytest.approx(0.21, abs=0.01)


def test_a_step_costs_what_the_roofline_says() -> None:
    cost = RooflineSteps(GEMMA, H200, SequenceLayout.CAUSAL)
    canvases = [row(RowKind.REUSE, 1024, 256, slot) for slot in range(8)]
    floor = forward(GEMMA, [Rows(8, 256, 1024, 256.0, head=256)], 2).seconds(H200)
    assert cost(canvases) == pytest.approx(floor / REACHED + HOST_SECONDS)


def test_a_commit_and_an_opening_read_the_prefix_once() -> None:
    cost = RooflineSteps(GEMMA, H200, SequenceLayout.CAUSAL, host_seconds=0.0)
    commit, opening = row(RowKind.COMMIT, 32_000, 256), row(RowKind.OPEN, 32_256, 256)
    elsewhere = row(RowKind.OPEN, 32_256, 256, slot=1)
    assert cost([commit, opening]) <= cost([commit, elsewhere])


def test_a_rebuild_of_the_whole_sequence_costs_more_than_its_canvas() -> None:
    llada = sketch_preset("LLaDA-8B-Instruct").anatomy
    cost = RooflineSteps(llada, H200, SequenceLayout.BIDIRECTIONAL)
    reuse = Row(RowKind.REUSE, "r", 0, 992, 32, (), canvas_start=992, span=1024)
    rebuild = Row(RowKind.REBUILD, "r", 0, 0, 1024, (), canvas_start=992, span=1024)
    assert cost([rebuild]) > 1.5 * cost([reuse])


def test_the_same_number_of_a_mix_is_the_same_request() -> None:
    assert CHAT.request(1, 5, 0.0) == CHAT.request(1, 5, 0.0)
    assert CHAT.request(1, 5, 0.0) != CHAT.request(2, 5, 0.0)


def test_arrivals_come_in_order_whatever_their_streams() -> None:
    load = open_loop(poisson(CHAT, 1, 2.0, until=10.0), bursts(CHAT, 1, 5, every=4.0, first=1.0, until=10.0))
    arrivals: list[float] = []
    work = load.first()
    while work is not None:
        arrivals.append(work.arrival)
        work = load.following(work)
    assert arrivals == sorted(arrivals)
    assert arrivals.count(1.0) == arrivals.count(5.0) == 5


def test_a_backlog_has_clients_and_others() -> None:
    others = open_loop(bursts(INTERACTIVE, 1, 2, every=9.0, first=3.0, until=10.0))
    load = Backlog(closed(CHAT, 1, 3, until=10.0), others)
    found: list[tuple[int, float]] = []
    work = load.first()
    while work is not None:
        found.append((work.client, work.arrival))
        work = load.following(work)
    assert found == [(0, 0.0), (1, 0.0), (2, 0.0), (-1, 3.0), (-1, 3.0)]
    assert load.after(0, 5.0) is not None
    assert load.after(0, 10.0) is None


def test_a_padded_batch_has_the_longest_rows_blocks_and_the_slowest_rows_steps() -> None:
    batch = [CHAT.request(3, number, 0.0) for number in range(6)]
    padded = pad(batch)
    longest = max(len(work.blocks) for work in batch)
    assert {len(work.blocks) for work in padded} == {longest}
    assert {work.blocks[0].steps for work in padded} == {max(work.blocks[0].steps for work in batch)}
    assert {len(work.blocks) for work in pad(batch, 4)} == {max(4, longest)}


def test_balanced_keeps_up_with_fcfs_and_is_faster_than_the_others() -> None:
    scenario = replace(SCENARIOS[0], seconds=50.0)
    speed = {policy: simulate(scenario, policy, seed=1).tokens_per_second for policy in ComposePolicy}
    balanced = speed[ComposePolicy.BALANCED]
    assert balanced > 0.98 * speed[ComposePolicy.FCFS]
    assert balanced > 1.05 * speed[ComposePolicy.SEGREGATED]
    assert balanced > 1.2 * speed[ComposePolicy.LOCKSTEP]


def test_ratios_are_of_medians() -> None:
    policies = {"balanced": (20.0, 1.0), "fcfs": (10.0, 5.0)}
    found = {
        name: {"tokens_per_second": figure([speed]), "first_block_p99": figure([wait])}
        for name, (speed, wait) in policies.items()
    }
    assert ratios(found) == {"throughput over fcfs": 2.0, "fcfs p99 first block over balanced": 5.0}


def test_figures_of_a_round_are_of_the_class_that_is_asked_for() -> None:
    def trace(priority: int, at: float) -> RequestTrace:
        return RequestTrace("r", 0.0, 4, 8, (BlockTrace(at, 1, 5, 0.1),), priority=priority)

    found = figures_of([trace(-1, 1.0), trace(1, 4.0)], [0.1, 0.1], of=Priority.INTERACTIVE)
    assert found["first_block_p99"] == 1.0
    assert found["tokens_per_second"] == 10 / 4


def test_the_work_clock_skips_what_nobody_computes() -> None:
    clock = WorkClock()
    before = clock()
    clock.skip_to(before + 5.0)
    assert 5.0 <= clock() - before < 6.0
    clock.skip_to(before)
    assert clock() - before >= 5.0
