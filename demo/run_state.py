"""The state of a training run, on disk and in memory."""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from pathlib import Path

import torch

from easel.demo.model import DemoModel, ModelShape
from easel.demo.optimizer import build_optimizers
from easel.demo.tokenizer import VOCABULARY

STATE_FILE = "state.pt"


@dataclass(slots=True)
class RunState:
    """Everything a checkpoint of a training run holds."""

    model: DemoModel
    average: DemoModel
    optimizers: list[torch.optim.Optimizer]
    step: int = 0

    def save(self, folder: Path) -> None:
        """Replaces the state in one go, so that a crash leaves the old one or the new one."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "shape": self.model.shape.as_dict(),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
        }
        torch.save(state, folder / (STATE_FILE + ".new"))
        (folder / (STATE_FILE + ".new")).replace(folder / STATE_FILE)

    @classmethod
    def fresh(cls, options: argparse.Namespace) -> RunState:
        torch.manual_seed(options.seed)
        model = DemoModel(ModelShape(vocab_size=len(VOCABULARY), num_hidden_layers=options.layers))
        return cls(model, copy.deepcopy(model), build_optimizers(model, options.muon_lr, options.adam_lr))

    @classmethod
    def load(cls, file: Path, options: argparse.Namespace) -> RunState:
        state = torch.load(file, weights_only=True)
        model = DemoModel(ModelShape(**state["shape"]))
        run = cls(model, copy.deepcopy(model), build_optimizers(model, options.muon_lr, options.adam_lr))
        run.model.load_state_dict(state["model"])
        run.average.load_state_dict(state["average"])
        for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        run.step = state["step"]
        return run
