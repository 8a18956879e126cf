"""Kernels compiled for a GPU that is not here: in a process of its own, where triton does not interpret."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

PROGRAM = """
import json, re, subprocess, sys, tempfile
from importlib import import_module
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

def resources(cubin):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.findall("(REG|STACK|LOCAL):([0-9]+)", told.stdout + told.stderr)
    return {name: int(count) for name, count in found}

for kernel in json.load(sys.stdin):
    function = getattr(import_module(kernel["module"]), kernel["name"])
    signature = {argument: kernel["kinds"].get(argument, "constexpr") for argument in function.arg_names}
    kinds = enumerate(signature.values())
    aligned = {(at,): [["tt.divisibility", 16]] for at, kind in kinds if kind[0] == "*"}
    source = ASTSource(function, signature, kernel["fixed"], aligned)
    options = kernel["options"] | {"enable_fp_fusion": True}
    built = compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    used = resources(built.asm["cubin"])
    tensor_cores = "wgmma" in built.asm["ptx"]
    found = [kernel["name"], built.metadata.shared, used["REG"], used["STACK"] + used["LOCAL"], tensor_cores]
    print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Kernel:
    """What there is to compile."""

    module: str
    name: str
    kinds: Mapping[str, str]  # of the arguments that a launch gives, "*bf16" or "i32"; others may be named
    fixed: Mapping[str, int | bool | None]
    options: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Built:
    name: str
    shared: int  # bytes
    registers: int  # of a thread
    spilled: int  # bytes of a thread
    tensor_cores: bool


def built_for_sm90(kernels: Sequence[Kernel], cache: Path) -> list[Built]:
    """Compile them with the options that launches have, on pointers of 16 aligned bytes."""
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
    asked = json.dumps([asdict(kernel) for kernel in kernels])
    command = [sys.executable, "-P", "-c", PROGRAM]
    done = subprocess.run(
        command, input=asked, text=True, capture_output=True, check=True, env=environment, timeout=120
    )
    return [Built(*json.loads(line)) for line in done.stdout.splitlines()]
