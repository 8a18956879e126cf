import io
import os
import socket
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from easel.cluster.cli import app
from easel.cluster.doctor import (
    PACKAGES,
    Finding,
    Verdict,
    arithmetic,
    examine,
    machine,
    model_files,
    ports,
    serving_port,
    software,
)
from easel.cluster.doctor_report import print_findings
from easel.cluster.listeners import Listener, cluster_listeners, owner_of, program_of
from tests.checkpoints import write_tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    write_tiny_checkpoint(path)
    return path


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def verdicts(findings: Iterator[Finding]) -> dict[str, Verdict]:
    return {finding.name: finding.verdict for finding in findings}


def test_what_this_environment_has_is_fine() -> None:
    assert set(verdicts(software()).values()) == {Verdict.OK}
    assert set(verdicts(arithmetic())) == {"gpus", "cpu", "dtype"}
    assert verdicts(machine())["cores"] is Verdict.OK


def test_a_missing_package_is_broken_and_says_how_to_install_it() -> None:
    def installed(package: str) -> str:
        if package == "ray":
            raise PackageNotFoundError(package)
        return "1.0"

    found = {finding.name: finding for finding in software(installed)}
    assert found["ray"].verdict is Verdict.BROKEN
    assert "pip install" in found["ray"].mend
    assert all(found[name].verdict is Verdict.OK for name in PACKAGES if name != "ray")


def test_a_complete_checkpoint_is_fine(checkpoint: Path) -> None:
    assert set(verdicts(model_files(checkpoint)).values()) == {Verdict.OK}


@pytest.mark.parametrize(
    ("missing", "name", "verdict"),
    [
        ("config.json", "config", Verdict.BROKEN),
        ("model.safetensors", "weights", Verdict.BROKEN),
        ("tokenizer.json", "tokenizer", Verdict.BROKEN),
        ("chat_template.jinja", "chat template", Verdict.NOTE),
    ],
)
def test_a_missing_file_is_named(
    checkpoint: Path, tmp_path: Path, missing: str, name: str, verdict: Verdict
) -> None:
    for file in checkpoint.iterdir():
        if file.name != missing:
            (tmp_path / file.name).symlink_to(file)
    found = {finding.name: finding for finding in model_files(tmp_path)}
    assert found[name].verdict is verdict
    assert found[name].mend
    assert all(finding.verdict is Verdict.OK for other, finding in found.items() if other != name)


def test_a_free_port_is_fine(unused_tcp_port: int) -> None:
    assert serving_port("127.0.0.1", unused_tcp_port).verdict is Verdict.OK


def test_a_port_of_another_program_is_broken_and_names_it(
    taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str, **_: object) -> httpx.Response:
        raise httpx.ReadTimeout("it does not speak HTTP")

    monkeypatch.setattr(httpx, "get", refuse)
    finding = serving_port("127.0.0.1", taken_port)
    assert finding.verdict is Verdict.BROKEN
    assert f"process {os.getpid()}" in finding.detail
    assert "--port" in finding.mend
    assert str(os.getpid()) in owner_of(taken_port)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [({"status": "ok", "journal": "ok"}, Verdict.OK), ({"up": True}, Verdict.BROKEN), ([], Verdict.BROKEN)],
)
def test_a_running_easel_is_told_from_other_servers(
    taken_port: int, monkeypatch: pytest.MonkeyPatch, answer: object, verdict: Verdict
) -> None:
    def get(url: str, **_: object) -> httpx.Response:
        return httpx.Response(200, json=answer)

    monkeypatch.setattr(httpx, "get", get)
    assert serving_port("127.0.0.1", taken_port).verdict is verdict


@pytest.mark.parametrize(
    ("name", "command", "program"),
    [
        ("raylet", ["/x/raylet", "--a"], "Ray"),
        ("valkey-server", ["valkey-server unixsocket"], "Valkey"),
        (
            "ray::ServeReplica",
            ["ray::ServeReplica:easel:gateway.handle"],
            "Ray (ServeReplica:easel:gateway.handle)",
        ),
        ("easel", ["/venv/bin/python", "/venv/bin/easel", "serve"], "Easel"),
        ("python", ["python", "-m", "easel.cluster.lifecycle"], "Easel"),
        ("python3", ["python3", "/site-packages/ray/dashboard/agent.py"], "Ray"),
        ("nginx", ["nginx: master"], None),
    ],
)
def test_processes_of_a_cluster_are_told_from_others(
    name: str, command: list[str], program: str | None
) -> None:
    assert program_of(name, command) == program


def test_a_port_open_to_other_machines_is_noted() -> None:
    listeners = [
        Listener(1, "127.0.0.1", "Ray", 5),
        Listener(2, "0.0.0.0", "Ray", 6),
        Listener(3, "::1", "x", 7),
    ]
    local, wide, local6, exposure = ports(listeners)
    assert local.verdict is local6.verdict is Verdict.OK
    assert wide.verdict is Verdict.NOTE
    assert "all interfaces" in wide.detail
    assert "1 of these ports" in exposure.detail
    assert "firewall" in exposure.mend


def test_ports_of_this_machine_alone_need_no_firewall() -> None:
    assert [finding.name for finding in ports([Listener(1, "127.0.0.1", "Ray", 5)])] == ["1"]


def test_looking_for_listeners_passes_over_processes_that_cannot_be_looked_at() -> None:
    assert all(listener.port > 0 for listener in cluster_listeners())


def test_a_machine_with_a_complete_model_passes(checkpoint: Path, unused_tcp_port: int) -> None:
    answer = CliRunner().invoke(app, ["doctor", str(checkpoint), "--port", str(unused_tcp_port)])
    assert answer.exit_code == 0
    assert "Easel can run here." in answer.output


def test_something_broken_is_counted_and_makes_the_command_fail(tmp_path: Path, unused_tcp_port: int) -> None:
    answer = CliRunner().invoke(app, ["doctor", str(tmp_path), "--port", str(unused_tcp_port)])
    assert answer.exit_code == 1
    assert "3 thing(s) to mend." in answer.output


def test_findings_are_printed_by_area_with_what_to_do() -> None:
    findings = [
        Finding("software", "python", Verdict.OK, "3.11"),
        Finding("model", "config", Verdict.BROKEN, "missing [x]", "get one"),
    ]
    console = Console(file=io.StringIO(), width=100, highlight=False)
    print_findings(findings, console, "All is well.")
    assert isinstance(console.file, io.StringIO)
    lines = [line.strip() for line in console.file.getvalue().splitlines()]
    assert lines == [
        "software",
        "python  ok  3.11",
        "model",
        "config  broken  missing [x]",
        "→ get one",
        "1 thing(s) to mend.",
    ]


def test_the_worst_is_always_examined(tmp_path: Path, unused_tcp_port: int) -> None:
    areas = [finding.area for finding in examine(tmp_path, "127.0.0.1", unused_tcp_port)]
    assert {"software", "machine", "device", "model", "ports"} <= set(areas)
