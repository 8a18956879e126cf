"""A model before any weight is read: what its configuration says, checked as loading would check it."""

from dataclasses import dataclass
from pathlib import Path

from easel.worker.anatomy import Anatomy, anatomy_of
from easel.worker.model_info import ModelInfo, read_json, read_model_info
from easel.worker.models.backbone import BackboneConfig
from easel.worker.models.registry import definition_of
from easel.worker.parameters import ParameterPlan
from easel.worker.presets import read_preset
from easel.worker.quantization import StoredFloat8, read_quantisation
from easel.worker.storage import Storage, stored_plan


@dataclass(frozen=True, slots=True)
class ModelSketch:
    """Everything about a model that sizes and times follow from."""

    info: ModelInfo
    dimensions: BackboneConfig
    plan: ParameterPlan  # of the architecture, whatever a checkpoint's matrices are stored in
    stored: StoredFloat8 | None = None  # how they are; None: as any float

    @property
    def anatomy(self) -> Anatomy:
        return anatomy_of(self.dimensions)

    def loaded(self, storage: Storage) -> ParameterPlan:
        """What is read of the checkpoint, and how it lies in memory."""
        return stored_plan(self.plan, self.stored, storage)


def sketch_directory(path: Path) -> ModelSketch:
    """Of a Hugging Face directory, whose weights need not be there. Raises CheckpointError."""
    info = read_model_info(path)
    definition = definition_of(info.architecture)
    config = read_json(path / "config.json", "it describes the model")
    dimensions = definition.read_config(config)
    return ModelSketch(info, dimensions, definition.parameter_plan(dimensions), read_quantisation(config))


def sketch_preset(name: str) -> ModelSketch:
    """Of a published model. Raises UnknownName."""
    preset = read_preset(name)
    info = preset.info()
    definition = definition_of(info.architecture)
    dimensions = definition.read_config(preset.config)
    return ModelSketch(
        info, dimensions, definition.parameter_plan(dimensions), read_quantisation(preset.config)
    )
