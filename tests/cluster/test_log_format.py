"""What processes write into their logs, as a log collector reads it."""

import builtins
import contextvars
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from easel.cluster.config_sections import TelemetrySection
from easel.cluster.log_format import FILE_BYTES, LOGGERS, LogOrigin, configure_logging
from easel.cluster.tracing import task_context

ORIGIN = LogOrigin("gateway", "42")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LOGGER = logging.getLogger("easel.test")


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def lines(folder: Path, **settings: object) -> list[str]:
    """Set the log up and write one line of each urgency into it, in a request's course."""
    section = TelemetrySection.model_validate({"log_directory": folder, **settings})
    configure_logging(section, ORIGIN)
    task_context(TRACEPARENT, "chatcmpl-1").run(write)
    return (folder / "gateway-42.log").read_text(encoding="utf-8").splitlines()


def write() -> None:
    LOGGER.debug("in detail")
    LOGGER.info("answered", extra={"tokens": 7})
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        LOGGER.warning("it went %s", "wrong", exc_info=error)


def test_a_full_file_is_put_aside(tmp_path: Path) -> None:
    full = tmp_path / "gateway-42.log"
    with full.open("wb") as file:
        file.truncate(FILE_BYTES)
    assert len(lines(tmp_path, log_format="json")) == 2
    assert (tmp_path / "gateway-42.log.1").stat().st_size == FILE_BYTES


def test_a_line_of_json_has_the_ids_of_request_and_trace(tmp_path: Path) -> None:
    first, second = (json.loads(line) for line in lines(tmp_path, log_format="json"))
    assert (first["message"], first["level"], first["tokens"]) == ("answered", "info", 7)
    assert (first["process"], first["instance"], first["logger"]) == ("gateway", "42", "easel.test")
    assert first["request_id"] == "chatcmpl-1"
    assert f"{first['trace_id']}-{first['span_id']}" == TRACEPARENT[3:-3]
    assert second["message"] == "it went wrong"
    assert second["error"].endswith("ValueError: two\nlines")


def test_a_line_for_people_says_the_same(tmp_path: Path) -> None:
    first = lines(tmp_path)[0]
    assert "INFO gateway easel.test: answered  request_id=chatcmpl-1  trace_id=0af765" in first
    assert first.endswith("tokens=7")


@pytest.mark.parametrize(("level", "count"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_the_least_level_is_as_configured(tmp_path: Path, level: str, count: int) -> None:
    assert len(lines(tmp_path, log_format="json", log_level=level)) == count


def test_outside_of_a_request_there_are_no_ids(tmp_path: Path) -> None:
    configure_logging(TelemetrySection(log_directory=tmp_path, log_format="json"), ORIGIN)
    contextvars.Context().run(LOGGER.warning, "alone")
    fields = json.loads((tmp_path / "gateway-42.log").read_text(encoding="utf-8"))
    assert not {"request_id", "trace_id", "span_id"} & fields.keys()


def test_an_error_is_legible_where_print_is_not_pythons_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def redirected(*objects: object, file: TextIO | None = None, **_: object) -> None:
        (file or sys.stderr).write(str(objects))

    monkeypatch.setattr(builtins, "print", redirected)
    assert lines(tmp_path)[-2:] == ["ValueError: two", "lines"]


def test_without_a_folder_the_log_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(TelemetrySection(), ORIGIN)
    contextvars.Context().run(LOGGER.warning, "alone")
    assert "WARNING gateway easel.test: alone" in capfd.readouterr().err
