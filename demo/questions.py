"""Writes questions.json: held-out tasks with their answers, for load that knows what is right.

`python -m easel.demo.questions`. The command line asks them (`easel bench`); it cannot draw tasks
itself, because nothing below may depend on the demo.
"""

import json
import random
from pathlib import Path

from easel.demo.tasks import TaskName, generate

COUNT = 400
SEED = 2026
FILE = Path(__file__).with_name("questions.json")


def questions(count: int = COUNT, seed: int = SEED) -> list[dict[str, str]]:
    """All kinds in turn; every task has exactly one right answer."""
    rng = random.Random(seed)
    kinds = list(TaskName)
    tasks = [generate(rng, kinds[index % len(kinds)], held_out=True) for index in range(count)]
    return [{"prompt": task.prompt, "answer": task.answer} for task in tasks]


def main() -> None:
    FILE.write_text(json.dumps(questions(), indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
