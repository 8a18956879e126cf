"""The sections of a cluster's settings, each with what it means and its default."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field, model_validator


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineSection(Section):
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
    batch_invariant: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="Compute every row in the same order whatever shares its forward, so that tokens never "
        "depend on the load, bit for bit; auto: where it costs next to nothing.",
    )
    partial: bool = Field(
        default=False,
        description="Keep canvases' keys and values, so that requests may ask for partial steps.",
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of a replica; default: cores divided by replicas."
    )


class ValveSection(Section):
    """How far answers may settle sooner than asked for while deadlines are in danger."""

    enabled: bool = Field(default=False, description="Whether the load valve may open at all.")
    least_steps: int = Field(default=8, ge=1, description="Steps of a block that every request keeps.")
    least_threshold: float = Field(
        default=0.7, ge=0, le=1, description="Confidence thresholds are not lowered beyond it."
    )
    most_entropy_bound: float = Field(
        default=1.0, ge=0, description="Entropy bounds are not raised beyond it, nats."
    )


class TenantSection(Section):
    """Who may ask, for how much."""

    name: str = Field(min_length=1, description="Shown in metrics and logs; salts the prefix cache.")
    key_hashes: tuple[str, ...] = Field(
        min_length=1,
        description="SHA-256 of its API keys, hexadecimal; `easel key` makes a key and its hash.",
        repr=False,
    )
    priority: Literal["interactive", "standard", "batch"] = Field(
        default="standard", description="Class of its requests, which may ask for a later one."
    )
    weight: float = Field(default=1.0, gt=0, description="Its share of the cluster, relative to the others'.")
    deadline_ms: int | None = Field(
        default=None, ge=1, description="Deadline of requests that name none; default: none."
    )
    max_requests: int | None = Field(
        default=None, ge=1, description="Requests waiting or running at once; more are refused with 429."
    )
    max_canvases: int | None = Field(
        default=None, ge=1, description="Requests running at once; more wait for their turn."
    )
    tokens_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="Prompt and output tokens admitted a minute; more are refused with 429.",
    )


class LimitsSection(Section):
    """How large one HTTP request may be; beyond it is refused."""

    max_body_bytes: ByteSize = Field(default=ByteSize(4 * 1024 * 1024), ge=1, description="Bytes of a body.")
    max_header_bytes: ByteSize = Field(
        default=ByteSize(16 * 1024), ge=1, description="Bytes of all headers, names and values."
    )
    max_depth: int = Field(default=32, ge=1, description="Objects and lists within each other in a body.")
    max_choices: int = Field(default=64, ge=1, description="Prompts times `n`.")
    body_seconds: float = Field(default=30.0, gt=0, description="How long a body may take to arrive.")


class SchedulerSection(Section):
    """The central scheduler and what a gateway does when a replica dies."""

    max_waiting: int = Field(
        default=512, ge=1, description="Requests without a replica; more are refused with 429."
    )
    queue_ahead: int = Field(default=4, ge=0, description="Requests sent to a replica beyond its slots.")
    digest_timeout_seconds: float = Field(
        default=3.0, gt=0, description="A replica that reports nothing for longer is given up."
    )
    hang_seconds: float = Field(
        default=30.0, gt=0, description="A replica one of whose steps takes longer is given up and replaced."
    )
    no_replica_seconds: float = Field(
        default=30.0, gt=0, description="How long a request waits while there is no replica at all."
    )
    target_seconds: float = Field(default=0.05, gt=0, description="Predicted cost a step should stay near.")
    max_attempts: int = Field(
        default=4,
        ge=1,
        description="Replicas that may die under one request, one after the other, without a block finished.",
    )
    preempt: bool = Field(
        default=True, description="Whether a request of a sooner class may take a later one's slot."
    )
    rebalance: bool = Field(
        default=True, description="Whether requests move from busy replicas to idle ones."
    )
    valve: ValveSection = ValveSection()


class JournalSection(Section):
    """The durable record of requests and committed blocks."""

    redis_url: str | None = Field(
        default=None,
        description="Redis 6.2 or newer: redis://, rediss:// or unix://. Default: an embedded Valkey.",
        repr=False,
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
    driver_seconds: float = Field(
        default=4.0,
        gt=0,
        description="Silence of a gateway after which another one may go on with its answers.",
    )
    tls_ca: Path | None = Field(
        default=None,
        description="Certificates that a rediss:// server's is checked against; default: the system's.",
    )
    tls_cert: Path | None = Field(
        default=None, description="Easel's own certificate, if the server asks for one."
    )
    tls_key: Path | None = Field(default=None, description="The key of that certificate.")
    embedded_memory_mb: int = Field(default=256, ge=16, description="Memory limit of the embedded Valkey.")


class AutoscalingSection(Section):
    """How many worker replicas there are, by what there is to do."""

    enabled: bool = Field(
        default=False, description="Whether the number of worker replicas follows the load; else it is fixed."
    )
    min_replicas: int = Field(default=1, ge=1, description="Worker replicas at least, and at the start.")
    max_replicas: int = Field(default=4, ge=1, description="Worker replicas at most.")
    target_wait_seconds: float = Field(
        default=2.0, gt=0, description="Predicted wait for a slot, above which there are to be more replicas."
    )
    target_load: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Share of what the replicas can do that may be in use before there are to be more.",
    )
    up_delay_seconds: float = Field(
        default=5.0, ge=0, description="How long a need has to last before replicas are added."
    )
    down_delay_seconds: float = Field(
        default=300.0, ge=0, description="How long fewer have to suffice before replicas are taken away."
    )

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "AutoscalingSection":
        if self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas ({self.max_replicas}) must not be less than min_replicas ({self.min_replicas})"
            )
        return self


class RaySection(Section):
    """The Ray that carries the processes."""

    address: str | None = Field(
        default=None,
        description="A Ray cluster to join, as host:port; default: a private one on this machine.",
    )
    drain_seconds: float = Field(
        default=20.0,
        gt=0,
        description="How long a replica that is to go may finish its blocks before it is ended.",
    )

    object_store_mb: int = Field(
        default=80, ge=75, description="Ray's shared memory; Easel's messages are small."
    )
    start_seconds: float = Field(
        default=120.0, gt=0, description="How long start-up may take before it is given up."
    )
    keep_logs: bool = Field(default=False, description="Keep Ray's logs after a clean stop.")


class TelemetrySection(Section):
    """Traces, metrics and logs."""

    otlp_endpoint: str | None = Field(
        default=None,
        description="OpenTelemetry collector that takes OTLP over HTTP, such as http://collector:4318; "
        "default: no traces.",
        repr=False,
    )
    otlp_headers: str = Field(
        default="",
        description="Headers of what is sent there, as name=value,name=value; values percent-encoded.",
        repr=False,
    )
    sample_ratio: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of requests that are traced, of those whose `traceparent` does not say.",
    )
    service_name: str = Field(default="easel", min_length=1, description="`service.name` of all spans.")
    log_format: Literal["text", "json"] = Field(
        default="text", description="Lines for people, or an object on each line for log collectors."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least urgent lines that are written; info has one for each answer."
    )
    log_prompts: bool = Field(
        default=False, description="Write prompts and answers into the log, which is private data."
    )
    log_directory: Path | None = Field(
        default=None,
        description="Folder for a log file of each process; default: standard error, which Ray keeps.",
    )
    metrics_directory: Path | None = Field(
        default=None,
        description="Folder where gateways of one machine share their counts; default: a temporary one.",
    )
