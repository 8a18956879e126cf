"""Logs of every process: lines for people or JSON objects, with the ids of request and trace.

Nothing here writes what a client said; whoever logs a prompt must have asked the settings.
"""

import json
import logging
import os
import sys
import traceback
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import Final

from opentelemetry import trace

from easel.cluster.config_sections import TelemetrySection

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
REQUEST_ID: Final[ContextVar[str]] = ContextVar("easel_request_id", default="")  # whom the task works for
LOGGERS = ("easel", "opentelemetry", "uvicorn")
FILE_BYTES = 64 * 2**20
_FILES_KEPT = 3  # besides the one that is written
# Attributes that every record has; what else there is came with `extra`.
_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


@dataclass(frozen=True, slots=True)
class LogOrigin:
    """Which process writes."""

    process: str  # gateway, scheduler, worker or serve
    instance: str


class _Formatter(logging.Formatter):
    def formatException(self, ei: ExceptionInfo) -> str:  # noqa: N802 its name in the library
        # The library's prints it, and what Ray makes of print() in its processes nobody can read.
        return "".join(traceback.format_exception(*ei)).rstrip("\n")


class _RollingFile(RotatingFileHandler):
    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 its name in the library
        """When it is full; the library's writes every line twice to know whether it would be."""
        return self.stream is not None and os.fstat(self.stream.fileno()).st_size >= self.maxBytes


class JsonFormatter(_Formatter):
    """One JSON object a line. What a call gives as `extra` becomes fields of it."""

    def __init__(self, origin: LogOrigin) -> None:
        super().__init__()
        self._origin = {"process": origin.process, "instance": origin.instance}

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._origin,
            **ids(),
            **extras_of(record),
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


class TextFormatter(_Formatter):
    """The same for people: `2026-01-31 12:00:00,123 WARNING gateway easel.dispatch: …  request_id=…`."""

    def __init__(self, origin: LogOrigin) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {origin.process} %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 its name in the library
        fields = {**ids(), **extras_of(record)}
        return super().formatMessage(record) + "".join(f"  {name}={value}" for name, value in fields.items())


def configure_logging(section: TelemetrySection, origin: LogOrigin) -> None:
    """Set this process's loggers up, in place of what was set up before."""
    formatter = JsonFormatter(origin) if section.log_format == "json" else TextFormatter(origin)
    handler = _handler(section.log_directory, origin)
    handler.setFormatter(formatter)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for earlier in logger.handlers[:]:
            logger.removeHandler(earlier)
            earlier.close()
        logger.addHandler(handler)
        logger.propagate = False
        # Libraries have nothing to say of requests; their warnings are wanted.
        least = section.log_level.upper() if name == "easel" else "WARNING"
        logger.setLevel(least)


def ids() -> dict[str, str]:
    """Ids of the request and the span in whose course this is called, where there are any."""
    found: dict[str, str] = {}
    if request_id := REQUEST_ID.get():
        found["request_id"] = request_id
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        found["trace_id"] = f"{context.trace_id:032x}"
        found["span_id"] = f"{context.span_id:016x}"
    return found


def extras_of(record: logging.LogRecord) -> dict[str, object]:
    """What the call gave beside its message."""
    return {name: value for name, value in vars(record).items() if name not in _OWN}


def _handler(directory: Path | None, origin: LogOrigin) -> logging.Handler:
    if directory is None:
        # Not sys.stderr: Serve keeps what is written there until there are a thousand lines.
        return logging.StreamHandler(sys.__stderr__)
    directory.mkdir(parents=True, exist_ok=True)
    name = f"{origin.process}-{origin.instance}.log"
    return _RollingFile(directory / name, maxBytes=FILE_BYTES, backupCount=_FILES_KEPT)
