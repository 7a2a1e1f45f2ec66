"""The programs for attention (clip_core.kernels.programs.attention and .pieces) without a GPU: their values in Triton's
interpreter, mistakes that its tests must find, and what the compiler makes of them for GPUs that are not here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", minversion="3.6")

from ahead_of_time import SHARED_MEMORY, Compiled, compile_for
from clip_core.kernels.dispatch import MOST_TOKENS
from clip_core.kernels.programs.attention import LONGEST, attend, attend_backward, configuration
from interpreted import Planted, run_interpreted

INTERPRETED = Path(__file__).parent / "interpreted/test_attention.py"
PROGRAM, PIECES = "kernels/programs/attention.py", "kernels/programs/pieces.py"
OURS = "ours = (rows < length)[:, None] & (columns < CHANNELS)[None, :]\n"


def test_dispatch_knows_how_long_a_sequence_may_be() -> None:
    assert MOST_TOKENS == LONGEST


def test_values_and_gradients_in_the_interpreter() -> None:
    run_interpreted(INTERPRETED)


@pytest.mark.parametrize(
    ("file", "right", "wrong", "tests"),
    [
        (PROGRAM, "mix(d_key, n, d_stride, d_scores, q, SCALE", "mix(d_key, n, d_stride, d_scores, q, -SCALE", "16"),
        (PROGRAM, "mix(d_query, n, d_stride, d_scores, k, SCALE", "mix(d_query, n, d_stride, d_scores, k, 1.0", "16"),
        (PROGRAM, "if -(-size // 16) * 16 & width", "if size // 16 * 16 & width", "72"),
        (PIECES, "columns[None, :] <= rows[:, None]", "columns[None, :] <= rows[:, None] + 1", "16-True"),
    ],
)
def test_a_planted_mistake_is_found(file: str, right: str, wrong: str, tests: str, tmp_path: Path) -> None:
    arguments = ("-x", "-k", f"test_programs_alone and {tests}")
    run_interpreted(INTERPRETED, *arguments, plant=(file, right, wrong), folder=tmp_path)


def test_a_planted_leak_is_found(tmp_path: Path) -> None:
    plant: Planted = (PIECES, f"{OURS}            piece =", f"{OURS.replace('<', '<=', 1)}            piece =")
    run_interpreted(INTERPRETED, "-x", "-k", "test_nothing_leaks", plant=plant, folder=tmp_path)


def compiled(
    architecture: int, backward: bool, tile: int, channels: int, causal: bool, *, packed: bool = False, group: int = 1
) -> Compiled:
    """A program for 12 heads of bfloat16 with strides as one linear layer leaves them."""
    program = attend_backward if backward else attend
    shorter = 0 if tile == 16 or not packed else 64 if tile == 80 else tile // 2
    constants: dict[str, Any] = configuration(tile, channels, causal=causal)
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages")}
    constants |= {"CAUSAL": causal, "UNIT": 8, "WIDEN": False, "VARIED": packed, "SHORTER": shorter, "GROUP": group}
    if backward:
        constants["GRADIENT_UNIT"] = 8
    pointers = {"packed": "*bf16", "out": "*bf16", "gradient": "*bf16", "d_packed": "*bf16", "starts": "*i32"}
    types = {name: pointers.get(name, "i32") for name in program.arg_names if name not in constants}
    aligned = tuple(name for name in types if name in pointers)
    return compile_for(architecture, program, types, constants, aligned=aligned, **options)


HOT = [
    (90, 64, 64, False, {}),  # vision of 50 tokens
    (90, 80, 64, True, {}),  # text of 77
    (90, 16, 64, True, {"packed": True}),  # captions by length
    (90, 32, 64, True, {"packed": True}),
    (90, 64, 64, True, {"packed": True, "group": 4}),
    (90, 80, 64, True, {"packed": True, "group": 4}),
    (90, 128, 80, False, {}),  # wide heads
    (90, 128, 88, False, {}),
    (90, 128, 104, False, {}),
    (90, 128, 128, False, {}),
    (80, 64, 64, False, {}),
    (80, 80, 64, True, {}),
    (80, 64, 128, False, {}),
]


@pytest.mark.aot
@pytest.mark.parametrize(("architecture", "tile", "channels", "causal", "how"), HOT)
def test_gradients_fit_in_registers(
    architecture: int, tile: int, channels: int, causal: bool, how: dict[str, Any]
) -> None:
    made = compiled(architecture, True, tile, channels, causal, **how)
    assert made.stack == 0
    # Two programs, or one of eight warps, on each processor hide the time that one waits for memory.
    assert made.shared <= SHARED_MEMORY[architecture] // (1 if tile == LONGEST else 2)
    assert made.count("HGMMA" if architecture == 90 and tile >= 64 else "HMMA") > 0
    assert made.count("FFMA") < 100  # no product of matrices is left to plain arithmetic
    assert made.count("LDG") - made.count("LDG.E.128") <= 5  # bounds of sequences


@pytest.mark.aot
@pytest.mark.parametrize(
    ("architecture", "tile", "channels"), [(90, 64, 64), (90, 80, 64), (90, 128, 128), (80, 80, 64)]
)
def test_results_fit_in_registers(architecture: int, tile: int, channels: int) -> None:
    made = compiled(architecture, False, tile, channels, True)
    assert made.stack == 0
    assert made.shared <= SHARED_MEMORY[architecture] // 2
    assert made.count("HGMMA" if architecture == 90 else "HMMA") > 0
    assert made.count("LDG") == made.count("LDG.E.128")


@pytest.mark.aot
@pytest.mark.parametrize("backward", [False, True])
def test_the_next_architecture(backward: bool) -> None:
    assert compiled(100, backward, 80, 64, True).shared <= SHARED_MEMORY[100] // 2
