"""Options of a training run small enough for a test."""

from __future__ import annotations

import argparse
from pathlib import Path

from easel.demo.train import parse_options


def small_options(out: Path, *more: str) -> argparse.Namespace:
    fixed = [
        "--out",
        str(out),
        "--layers",
        "1",
        "--workers",
        "1",
        "--evaluate-every",
        "1000",
        "--log-every",
        "1",
    ]
    return parse_options([*fixed, *more])
