"""Every setting of a cluster: defaults, one YAML file, and EASEL_… in the environment.

Later sources win: defaults, file, environment, command line. A nested setting's variable joins
the names by two underscores: EASEL_ENGINE__SLOTS=32. Lists are separated by commas.
"""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, Field, ValidationError

from easel.cluster.config_sections import (
    AutoscalingSection,
    EngineSection,
    JournalSection,
    LimitsSection,
    RaySection,
    SchedulerSection,
    Section,
    TelemetrySection,
    TenantSection,
)
from easel.cluster.errors import ConfigError

ENVIRONMENT_PREFIX = "EASEL_"
_NESTING = "__"


class ClusterConfig(Section):
    """All settings of `easel serve`."""

    model: Path = Field(description="Directory of a Hugging Face checkpoint.")
    model_name: str | None = Field(
        default=None, description="Name in the API; default: the directory's name."
    )
    host: str = Field(default="127.0.0.1", description="Address the HTTP port binds.")
    port: int = Field(default=8000, ge=1, le=65535, description="The HTTP port.")
    replicas: int = Field(default=2, ge=1, description="Worker replicas, each with a copy of the model.")
    gateways: int = Field(default=1, ge=1, description="Gateway processes; several share the port.")
    api_keys: tuple[str, ...] = Field(
        default=(), description="Accepted bearer tokens; empty: none is asked for.", repr=False
    )
    tenants: tuple[TenantSection, ...] = Field(
        default=(), description="API keys with a name and limits each; only in the file."
    )
    deadline_ms: int | None = Field(
        default=None, ge=1, description="Deadline of requests that name none; default: none."
    )
    stream_buffer: int = Field(
        default=64, ge=1, description="Blocks kept for a client that reads slowly; then it is cut off."
    )
    limits: LimitsSection = LimitsSection()
    engine: EngineSection = EngineSection()
    scheduler: SchedulerSection = SchedulerSection()
    journal: JournalSection = JournalSection()
    ray: RaySection = RaySection()
    telemetry: TelemetrySection = TelemetrySection()
    autoscaling: AutoscalingSection = AutoscalingSection()

    @property
    def least_replicas(self) -> int:
        """Worker replicas to begin with."""
        return self.autoscaling.min_replicas if self.autoscaling.enabled else self.replicas

    @property
    def most_replicas(self) -> int:
        """Worker replicas there may ever be at once."""
        return self.autoscaling.max_replicas if self.autoscaling.enabled else self.replicas

    def gpus_of_a_replica(self, gpus: float) -> int:
        """What Ray, which has that many, is to give each; it hides them from processes that ask for none."""
        enough = self.engine.device == "auto" and gpus >= self.least_replicas
        return int(enough or self.engine.device == "cuda")


def load_config(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> ClusterConfig:
    """Merge the sources. `overrides` is nested as the file is; None in it means "not given".

    `settings` stand for what would be in a file.

    Raises ConfigError, which names the source and the setting.
    """
    values = _read_file(file) if file is not None else {}
    _merge(values, settings or {})
    _merge(values, _from_environment(environment or {}))
    _merge(values, overrides or {})
    try:
        return ClusterConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(str(file or "configuration"), _explain(error)) from None


def option_table() -> list[tuple[str, str, str]]:
    """Name, default and meaning of every setting, for help texts and the documentation."""
    return [
        (".".join(path), "required" if field.is_required() else repr(field.default), field.description or "")
        for path, field in _options(ClusterConfig)
    ]


def _read_file(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(file), f"it cannot be read: {error.strerror}.") from None
    except yaml.YAMLError as error:
        raise ConfigError(str(file), f"it is not valid YAML: {error}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(str(file), "it must hold settings as `name: value`.")
    return cast(dict[str, Any], values)


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {ENVIRONMENT_PREFIX + _NESTING.join(path).upper(): path for path, _ in _options(ClusterConfig)}
    lists = {ENVIRONMENT_PREFIX + "API_KEYS"}
    values: dict[str, Any] = {}
    for name, text in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise ConfigError(name, "no such setting." + (f" Did you mean {near[0]}?" if near else ""))
        value = [part.strip() for part in text.split(",") if part.strip()] if name in lists else text
        _merge(values, _nested(known[name], value))
    return values


def _options(section: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from _options(kind, (*above, name))
        else:
            yield (*above, name), field


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return value


def _merge(values: dict[str, Any], later: Mapping[str, Any]) -> None:
    for name, value in later.items():
        if isinstance(value, Mapping):
            if not isinstance(values.get(name), dict):
                values[name] = {}
            _merge(values[name], cast(Mapping[str, Any], value))
        elif value is not None:
            values[name] = value


def _explain(error: ValidationError) -> str:
    problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
    return "; ".join(problems) + "."
