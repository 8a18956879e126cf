"""The embedded model: what is served where nobody names another."""

from importlib.resources import files
from pathlib import Path

DEMO_MODEL_NAME = "easel-demo"


def demo_model() -> Path:
    """The checkpoint that comes with Easel."""
    return Path(str(files("easel.demo"))) / "checkpoint"
