"""What a training step is made of."""

from __future__ import annotations

import pytest
import torch

from easel.demo.curriculum import STAGES, TASK_INDEX, Stage, batch_of_step, stage_at


def test_a_step_is_made_of_the_same_tasks_and_noise_whenever_it_is_drawn() -> None:
    first, again = batch_of_step(0, 5, 0), batch_of_step(0, 5, 0)
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.weights, again.weights)


def test_workers_and_steps_draw_different_tasks() -> None:
    targets = [batch_of_step(0, step, rank).targets for step, rank in ((5, 0), (5, 1), (6, 0))]
    assert not torch.equal(targets[0], targets[1])
    assert not torch.equal(targets[0], targets[2])


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_trains_every_task(stage: Stage) -> None:
    tasks = {
        int(task) for rank in range(4) for task in batch_of_step(0, stage.first_step, rank).tasks.unique()
    }
    assert tasks >= set(TASK_INDEX.values())


def test_a_stage_lasts_until_the_next_begins() -> None:
    assert stage_at(STAGES[1].first_step - 1) is STAGES[0]
    assert stage_at(STAGES[1].first_step) is STAGES[1]
    assert stage_at(10**6) is STAGES[-1]
