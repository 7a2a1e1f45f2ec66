"""The programs of the losses (clip_core.kernels.programs.contrastive, .sigmoid, .tiles and .products) without a GPU: in
Triton's interpreter, there with mistakes planted, and compiled for GPUs that are not here.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", minversion="3.6")

from ahead_of_time import SHARED_MEMORY, compile_for
from clip_core.kernels.programs import contrastive, products, sigmoid, tiles
from interpreted import run_interpreted

INTERPRETED = Path(__file__).parent / "interpreted"
CONTRASTIVE, SIGMOID = INTERPRETED / "test_contrastive.py", INTERPRETED / "test_sigmoid.py"
CONTRASTIVE_PROGRAM, SIGMOID_PROGRAM = "kernels/programs/contrastive.py", "kernels/programs/sigmoid.py"


@pytest.mark.parametrize("tests", [CONTRASTIVE, SIGMOID], ids=lambda path: path.stem)
def test_in_the_interpreter(tests):
    run_interpreted(tests)


PRODUCTS_PROGRAM = "kernels/programs/products.py"
MISTAKES = {
    "sign in CLIP's backward pass": (
        CONTRASTIVE,
        "as_exact",
        (CONTRASTIVE_PROGRAM, "weight = row_probability + column", "weight = row_probability - column"),
    ),
    "columns' largest logit left out": (
        CONTRASTIVE,
        "as_exact",
        (CONTRASTIVE_PROGRAM, "column_maxima + column_at, larger,", "column_maxima + column_at, larger * 0.0,"),
    ),
    "offset forgotten": (
        CONTRASTIVE,
        "shares",
        (CONTRASTIVE_PROGRAM, "(row[:, None] + offset != column[None, :])", "(row[:, None] != column[None, :])"),
    ),
    "rows behind the last counted": (
        CONTRASTIVE,
        "as_exact",
        (CONTRASTIVE_PROGRAM, "return (row < b)[:, None] & (column", "return (row >= 0)[:, None] & (column"),
    ),
    "losses rounded before the gradients": (
        CONTRASTIVE,
        "a_large_loss",
        (
            "kernels/parts.py",
            "rows, columns, own, scale, row_loss, column_loss, offset, for_rows",
            "rows, columns, own, scale, row_loss.float(), column_loss.float(), offset, for_rows",
        ),
    ),
    "slabs not added up": (CONTRASTIVE, "many", (PRODUCTS_PROGRAM, "add=left > 0", "add=False")),
    "sign in SigLIP's gradient": (
        SIGMOID,
        "as_exact",
        (SIGMOID_PROGRAM, "column[None, :], -weight, weight)", "column[None, :], weight, -weight)"),
    ),
    "log1p without its digits": (
        SIGMOID,
        "near_zero",
        (SIGMOID_PROGRAM, "return x + x * x * q", "return tl.log(1.0 + x)"),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_found(name, tmp_path):
    tests, chosen, plant = MISTAKES[name]
    run_interpreted(tests, "-x", "-k", chosen, plant=plant, folder=tmp_path)


def compiled(name, architecture, kind, depth=768):
    """A program in the configuration of the table, for features of `depth` that are aligned, as almost all are."""
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[kind]
    sizes = tiles.tiles_for(dtype, depth, architecture)
    program, tile, constants = {
        "statistics": (contrastive.tile_statistics, sizes.statistics, {"EACH": 2}),
        "weights": (contrastive.tile_weights, sizes.weights, {"FACTOR": 1.0, "WEIGHTS": True}),
        "losses": (sigmoid.tile_losses, sizes.losses, {"FACTOR": 1.0, "WEIGHTS": True, "GRADIENTS": True}),
    }[name]
    options = tile.options(torch.empty(0, depth, dtype=dtype))
    launching = {key: options.pop(key) for key in ("num_warps", "num_stages", "maxnreg")}
    features = ("rows", "columns", "weights")
    integers = ("top", "left", "b", "wide", "offset", "blocks_down", "depth")
    types = {}
    for argument in program.arg_names:
        if argument in integers or argument.endswith("_stride"):
            types[argument] = "i32"
        elif argument not in constants and argument not in options:
            types[argument] = f"*{kind if argument in features else 'fp32'}"
    aligned = [name for name, type_ in types.items() if type_ != "i32"]
    aligned += [name for name in ("depth", "row_stride", "column_stride", "weight_stride") if name in types]
    given = {key: value for key, value in launching.items() if value is not None}
    return compile_for(architecture, program, types, {**constants, **options}, aligned=tuple(aligned), **given)


PROGRAMS = ("statistics", "weights", "losses")


@pytest.mark.aot
@pytest.mark.parametrize(
    ("name", "architecture", "kind", "instruction"),
    [
        *((name, 80, "bf16", "HMMA") for name in PROGRAMS),
        *((name, 90, "bf16", "HGMMA") for name in PROGRAMS),
        ("statistics", 90, "fp32", "HGMMA"),
        ("weights", 90, "fp32", "HGMMA"),
    ],
)
def test_compiles_to_matrix_instructions_without_spills(name, architecture, kind, instruction):
    made = compiled(name, architecture, kind)
    assert made.shared <= SHARED_MEMORY[architecture]
    assert made.stack == 0
    assert made.count(instruction) > 0
    assert made.count("LDGSTS") > 0


@pytest.mark.aot
@pytest.mark.parametrize(("architecture", "instruction"), [(80, "HMMA"), (90, "HGMMA")])
@pytest.mark.parametrize("turned", [False, True])
def test_products_of_float32_compile_for_a_batch_of_any_size(architecture, instruction, turned):
    one, other = ("weight_stride", "weight_step") if turned else ("weight_step", "weight_stride")
    constants = {"K": 0, "ADD": True, "BM": 128, "BN": 64, "BK": 32, one: 1}
    types = dict.fromkeys(("weights", "features", "into"), "*fp32")
    types |= dict.fromkeys(("m", "n", "count", other, "feature_stride", "into_stride"), "i32")
    aligned = ("weights", "features", "into", other, "feature_stride", "into_stride")
    made = compile_for(
        architecture, products.multiply_float32, types, constants, aligned=aligned, num_warps=8, num_stages=2
    )
    assert made.stack == 0
    assert made.count(instruction) > 0
    assert made.count("LDGSTS") > 0


@pytest.mark.aot
def test_two_programs_for_weights_fit_beside_each_other():
    made = compiled("weights", 90, "bf16")
    assert 2 * (made.shared + 1024) <= 233_472
    assert 2 * 256 * made.registers <= 65_536


@pytest.mark.aot
@pytest.mark.parametrize(("architecture", "kind"), [(86, "fp32"), (100, "bf16"), (120, "bf16")])
def test_compiles_for_other_architectures(architecture, kind):
    assert compiled("statistics", architecture, kind).shared <= SHARED_MEMORY[architecture]
