"""Every setting of a cluster: defaults, one YAML file, and EASEL_… in the environment.

Later sources win: defaults, file, environment, command line. A nested setting's variable joins
the names by two underscores: EASEL_ENGINE__SLOTS=32. Lists are separated by commas.
"""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError

from easel.cluster.errors import ConfigError

ENVIRONMENT_PREFIX = "EASEL_"
_NESTING = "__"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineSection(_Section):
    """One replica's engine."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where a replica computes; auto: on a GPU of its own if there are enough."
    )
    memory: ByteSize | None = Field(
        default=None,
        description="Memory a replica may take, such as 60GiB; default: what its device has free.",
    )
    slots: int | None = Field(
        default=None,
        ge=1,
        description="Canvases denoised together in one replica; default: as many as fit on a GPU or in "
        "`memory`, else 16.",
    )
    pages: int | None = Field(
        default=None,
        ge=1,
        description="Pages of the prefix cache in one replica; default: as many as fit on a GPU or in "
        "`memory`, else 1024.",
    )
    page_size: int | None = Field(
        default=None, ge=1, description="Tokens of a page; default: the block length."
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Arithmetic of the forward."
    )
    loop: Literal["host", "graph", "while", "persistent"] = Field(
        default="host",
        description="Who drives the steps of a canvas: the host, operator by operator; or on a CUDA device "
        "a recorded step, several of them in one launch, or one kernel for small dense models.",
    )
    quantise: Literal["none", "fp8"] = Field(
        default="none",
        description="Round the matrices of a model that is not quantised to FP8 as it is loaded; "
        "a device that cannot multiply FP8 computes with the rounded numbers and saves no memory.",
    )
    pack_weights: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Keep a CPU's matrices in oneDNN's own order; auto: where it multiplies bfloat16 "
        "natively.",
    )
    refresh_limit: int = Field(
        default=2048,
        ge=1,
        description="Most tokens of refresh work in one step; memory is set aside for them.",
    )
    partial: bool = Field(
        default=False,
        description="Keep canvases' keys and values, so that requests may ask for partial steps.",
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of a replica; default: cores divided by replicas."
    )


class SchedulerSection(_Section):
    """The central scheduler and what a gateway does when a replica dies."""

    max_waiting: int = Field(
        default=512, ge=1, description="Requests without a replica; more are refused with 429."
    )
    queue_ahead: int = Field(default=4, ge=0, description="Requests sent to a replica beyond its slots.")
    digest_timeout_seconds: float = Field(
        default=3.0, gt=0, description="A replica that reports nothing for longer is given up."
    )
    no_replica_seconds: float = Field(
        default=30.0, gt=0, description="How long a request waits while there is no replica at all."
    )
    target_seconds: float = Field(default=0.05, gt=0, description="Predicted cost a step should stay near.")
    max_attempts: int = Field(default=4, ge=1, description="Replicas that may die under one request.")


class JournalSection(_Section):
    """The durable record of requests and committed blocks."""

    redis_url: str | None = Field(
        default=None,
        description="Redis 6.2 or newer: redis://, rediss:// or unix://. Default: an embedded Valkey.",
    )
    prefix: str = Field(default="easel:", description="All keys begin with it.")
    lease_seconds: float = Field(
        default=15.0, gt=0, description="Life of a lease after its owner's last sign of life."
    )
    terminal_seconds: float = Field(
        default=600.0, gt=0, description="How long an ended request stays readable."
    )
    flush_seconds: float = Field(default=0.03, gt=0, description="Pause between two write-behind flushes.")
    buffer_records: int = Field(
        default=20_000, ge=1, description="Records kept while Redis is away, per process."
    )
    embedded_memory_mb: int = Field(default=256, ge=16, description="Memory limit of the embedded Valkey.")


class RaySection(_Section):
    """The local Ray that carries the processes."""

    object_store_mb: int = Field(
        default=80, ge=75, description="Ray's shared memory; Easel's messages are small."
    )
    start_seconds: float = Field(
        default=120.0, gt=0, description="How long start-up may take before it is given up."
    )
    keep_logs: bool = Field(default=False, description="Keep Ray's logs after a clean stop.")


class ClusterConfig(_Section):
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
    engine: EngineSection = EngineSection()
    scheduler: SchedulerSection = SchedulerSection()
    journal: JournalSection = JournalSection()
    ray: RaySection = RaySection()

    def gpus_of_a_replica(self, gpus: float) -> int:
        """What Ray, which has that many, is to give each; it hides them from processes that ask for none."""
        return int(self.engine.device == "cuda" or (self.engine.device == "auto" and gpus >= self.replicas))


def load_config(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ClusterConfig:
    """Merge the sources. `overrides` is nested as the file is; None in it means "not given".

    Raises ConfigError, which names the source and the setting.
    """
    values = _read_file(file) if file is not None else {}
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
        if isinstance(kind, type) and issubclass(kind, _Section):
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
