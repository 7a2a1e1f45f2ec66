"""Compile a Triton program for a GPU that is not here, and say what it would take of that GPU.

Shared memory, registers and spills, and which matrix instructions it has, are decided by the compiler: no GPU is needed
to find a program that would not start or would crawl.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

__all__ = ["SHARED_MEMORY", "Compiled", "compile_for"]

SHARED_MEMORY = {80: 166_912, 86: 101_376, 90: 232_448, 100: 232_448, 120: 101_376}
"""Bytes that one block may have, by architecture."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What the compiler made of a program."""

    shared: int
    """Bytes of shared memory."""
    registers: int
    """Per thread."""
    stack: int
    """Bytes per thread that do not fit in registers."""
    assembly: str
    """The machine code, as text."""

    def count(self, instruction: str) -> int:
        """How often an instruction stands in the assembly, by the beginning of its name: "HGMMA", "LDGSTS"."""
        return len(re.findall(rf"\b{instruction}", self.assembly))


def compile_for(
    architecture: int,
    program: Any,
    types: Mapping[str, str],
    constants: Mapping[str, Any],
    *,
    aligned: tuple[str, ...] = (),
    **options: int,
) -> Compiled:
    """Compile `program`, a function under `triton.jit`, for sm_`architecture`.

    Args:
        architecture: 80 (A100), 90 (H100, H200), 100 (B200).
        program: not under the interpreter.
        types: Triton's type of each parameter that is no constant: "*bf16", "i32".
        constants: the value of each `tl.constexpr` parameter.
        aligned: parameters that are divisible by 16, as pointers and most strides are; without this the compiler does
            not pipeline loads.
        options: `num_warps`, `num_stages`.
    """
    names = program.arg_names
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    signature = {name: types.get(name, "constexpr") for name in names}
    source = ASTSource(program, signature, constexprs=dict(constants), attrs=attributes)
    chosen = {"enable_fp_fusion": True, **options}  # as programs are started
    made = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=chosen)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "program.cubin"
        binary.write_bytes(made.asm["cubin"])
        usage, assembly = (_run(tool, option, binary) for option in ("-res-usage", "-sass"))
    found = {name: int(value) for name, value in re.findall(r"\b(REG|STACK):(\d+)", usage)}
    return Compiled(shared=made.metadata.shared, registers=found["REG"], stack=found["STACK"], assembly=assembly)


def _run(tool: Path, option: str, binary: Path) -> str:
    return subprocess.run([tool, option, binary], capture_output=True, text=True, check=True).stdout
