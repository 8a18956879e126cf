"""Tries the two-node recipe of docs/ray.md on one machine: a head, two nodes, a Redis; then a node dies.

    unshare -rn python deploy/ray/try_two_nodes.py

`unshare` gives it a network of its own, so that it neither takes nor shows a port. It ends all it started.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import yaml

from easel.cluster.cli import demo_model
from easel.cluster.valkey_server import EmbeddedValkey

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
HEAD = "127.0.0.1:6379"
URL = "http://127.0.0.1:8000"
PROMPTS = [f"count {start:03d} by {step}" for start in range(0, 480, 40) for step in (3, 8)]
WORKER = "ray::ServeReplica:easel:workers"
PATIENCE_SECONDS = 150.0


def main() -> None:
    """Raises whatever goes wrong."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
    folder = Path(tempfile.mkdtemp(prefix="easel-", dir="/tmp"))  # sockets' paths must be short
    with ExitStack() as resources:
        resources.callback(shutil.rmtree, folder, ignore_errors=True)
        redis = EmbeddedValkey()
        resources.callback(redis.stop)
        redis.start()
        environment = _environment()
        nodes = {"head": _launch(resources, folder, environment | {"CPUS": "0"}, "head", "head")}
        for name in ("one", "two"):
            nodes[name] = _launch(resources, folder, environment | {"CPUS": "4"}, name, "node", HEAD)
        _serve(resources, folder, environment, redis.url)
        _say(f"worker replicas by node: { {name: len(_workers(node)) for name, node in nodes.items()} }")
        asyncio.run(_lose_a_node(nodes["two"]))
        _say(f"worker replicas by node: { {name: len(_workers(node)) for name, node in nodes.items()} }")


async def _lose_a_node(node: psutil.Process) -> None:
    async with httpx.AsyncClient(base_url=URL, timeout=60, trust_env=False) as client:
        quiet = await asyncio.gather(*(_ask(client, prompt) for prompt in PROMPTS))
        _say(f"{len(quiet)} answers, with two nodes")
        running = asyncio.gather(*(_ask(client, prompt) for prompt in PROMPTS * 3))
        await asyncio.sleep(0.7)
        _end(node)
        _say("node two is dead")
        hurt = await running
        same = sum(one == other for one, other in zip(hurt, quiet * 3, strict=True))
        _say(f"{same} of the {len(hurt)} answers under way are as they were before")
        if same < len(hurt):
            raise RuntimeError("an answer was lost or changed")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len((await client.get("/health")).json()["replicas"]) < 2:
            if time.monotonic() > deadline:
                raise RuntimeError("the lost replicas were not replaced")
            await asyncio.sleep(0.5)
        _say("two replicas again")


async def _ask(client: httpx.AsyncClient, prompt: str) -> str:
    """The answer, over as many connections as it takes: a gateway may have died with its node."""
    text, last = "", ""
    message = {"role": "user", "content": prompt}
    body = {"model": "easel-demo", "messages": [message], "stream": True, "max_tokens": 96, "seed": 1}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        headers = {"Last-Event-ID": last} if last else {}
        try:
            async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
                response.raise_for_status()
                async for line in response.aiter_lines():
                    if line == "data: [DONE]":
                        return text
                    if line.startswith("id: "):
                        last = line.removeprefix("id: ")
                    elif line.startswith("data: {"):
                        choices = json.loads(line.removeprefix("data: ")).get("choices", ())
                        text += "".join(choice["delta"].get("content") or "" for choice in choices)
        except httpx.TransportError:
            await asyncio.sleep(0.3)
    raise RuntimeError(f"no answer to {prompt!r}")


def _serve(resources: ExitStack, folder: Path, environment: dict[str, str], redis_url: str) -> None:
    settings = {
        "model": str(demo_model()),
        "model_name": "easel-demo",
        "replicas": 2,
        "gateways": 2,
        "engine": {"dtype": "float32", "slots": 8},
        "journal": {"redis_url": redis_url},
        "ray": {"address": HEAD},
    }
    file = folder / "easel.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [str(BIN / "easel"), "serve", "--config", str(file)]
    _run(resources, folder / "serve.log", command, environment, "Easel serves", signal.SIGINT)
    _say("easel serve has joined")


def _launch(
    resources: ExitStack, folder: Path, environment: dict[str, str], name: str, *arguments: str
) -> psutil.Process:
    command = [str(HERE / "start.sh"), *arguments]
    environment = environment | {"TEMP": str(folder / name)}
    node = _run(
        resources, folder / f"{name}.log", command, environment, "Ray runtime started", signal.SIGTERM
    )
    _say(f"{name} is up")
    return node


def _run(
    resources: ExitStack, log: Path, command: list[str], environment: dict[str, str], word: str, end: int
) -> psutil.Process:
    """Start it, and wait until it has said the word."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=log.parent, stdout=output, stderr=output, start_new_session=True
        )
    resources.callback(_stop, process, end)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while word not in (said := log.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{command} did not come up: {said[-2000:]}")
        time.sleep(0.2)
    return psutil.Process(process.pid)


def _stop(process: subprocess.Popen[bytes], end: int) -> None:
    if process.poll() is None:
        node = psutil.Process(process.pid)
        rest = node.children(recursive=True)
        process.send_signal(end)
        psutil.wait_procs([node, *rest], timeout=60)
        for one in rest:
            if one.is_running():
                one.kill()


def _end(node: psutil.Process) -> None:
    """As a machine that loses its power."""
    for process in [node, *node.children(recursive=True)]:
        if process.is_running():
            os.kill(process.pid, signal.SIGKILL)


def _workers(node: psutil.Process) -> list[psutil.Process]:
    family = node.children(recursive=True) if node.is_running() else []
    return [process for process in family if " ".join(process.cmdline()).startswith(WORKER)]


def _environment() -> dict[str, str]:
    """As easel.env says, with a token for this time alone."""
    lines = (HERE / "easel.env").read_text(encoding="utf-8").splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    path = f"{BIN}:{os.environ['PATH']}"
    made = {"RAY_AUTH_TOKEN": secrets.token_hex(32), "ADDRESS": "127.0.0.1", "STORE_MB": "80", "PATH": path}
    return {**os.environ, **settings, **made}


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


if __name__ == "__main__":
    main()
