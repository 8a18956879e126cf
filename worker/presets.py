"""Published models by name: the fields of their configuration files that Easel reads, without any weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from easel.worker.errors import UnknownName
from easel.worker.model_info import ModelInfo, model_info

_FOLDER = Path(__file__).parent / "published"


@dataclass(frozen=True, slots=True)
class Preset:
    """A model that can be reasoned about before anybody downloads it."""

    name: str
    repository: str  # on huggingface.co
    config: Mapping[str, Any]  # of config.json
    generation: Mapping[str, Any]  # of generation_config.json

    def info(self) -> ModelInfo:
        """What everything but the forward reads of it."""
        return model_info(self.config, self.generation, Path(self.repository), self.name)


def preset_names() -> tuple[str, ...]:
    """All presets, in alphabetical order."""
    return tuple(sorted(file.stem for file in _FOLDER.glob("*.json")))


def read_preset(name: str) -> Preset:
    """The preset of that name, whatever its case. Raises UnknownName."""
    known = {known.lower(): known for known in preset_names()}
    if name.lower() not in known:
        near = get_close_matches(name.lower(), known, 1)
        raise UnknownName("preset", name, preset_names(), known[near[0]] if near else None)
    found = json.loads((_FOLDER / f"{known[name.lower()]}.json").read_text(encoding="utf-8"))
    return Preset(known[name.lower()], found["repository"], found["config"], found["generation_config"])
