"""Turn the JSON of bench_gpu into what is read: rows of `clip_core.kernels.measured`, and the table in the README.

    python tools/measured.py bench_gpu.json

Only what was measured becomes a row: a shape that failed, or that a cut run did not reach, has none, and `dispatch`
leaves it to torch. Rows of other devices stay; those of this one are replaced shape by shape. The table is of one run:
it stays as it is where a file of some parts only would turn figures into "not measured".
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["FIGURES", "lost", "main", "merged", "rows_of", "table", "with_rows", "with_table"]

ROOT = Path(__file__).resolve().parent.parent
MODULE = ROOT / "packages/clip-core/src/clip_core/kernels/measured.py"
README = ROOT / "packages/clip-core/README.md"
BEGIN, END = "<!-- figures of bench_gpu: begin -->", "<!-- figures of bench_gpu: end -->"
FIELDS = (
    "architecture",
    "operation",
    "dtype",
    "training",
    "channels",
    "length",
    "causal",
    "ratio",
    "device",
    "date",
)
KEY = 7
"""So many first fields say what was measured; the others, what came out."""

Fact = dict[str, Any]
_BEST, _EAGER, _COMPILED = "times as fast as the best backend", "times as fast as eager", "times as fast as compiled"
_PADDED, _SHARE, _PEAK = "times as fast as padded", "share of the matrix rate", "GiB at the peak"
_DIMS = (512, 768, 1024)
FIGURES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    (
        "CLIP loss, 32,768 pairs of 512 / 768 / 1024, times as fast as open_clip in eager torch",
        "3.0 / 2.3 / 1.9",
        _EAGER,
        tuple(f"clip_loss, 32,768 x {dim}" for dim in _DIMS),
    ),
    (
        "the same, than open_clip under torch.compile",
        "1.4 / 1.3 / 1.2",
        _COMPILED,
        tuple(f"clip_loss, 32,768 x {dim}" for dim in _DIMS),
    ),
    (
        "the same, share of the rate of a large matrix product",
        "0.6",
        _SHARE,
        tuple(f"clip_loss, 32,768 x {dim}" for dim in _DIMS),
    ),
    (
        "SigLIP loss, as above, times as fast as open_clip in eager torch",
        "3.5 / 2.7 / 2.2",
        _EAGER,
        tuple(f"siglip_loss, 32,768 x {dim}" for dim in _DIMS),
    ),
    (
        "CLIP and SigLIP loss, 131,072 pairs of 1024, GiB beyond the inputs",
        "at most 2",
        _PEAK,
        ("clip_loss, 131,072 x 1024", "siglip_loss, 131,072 x 1024"),
    ),
    ("attention, 50 tokens, times as fast as the best of torch's backends", "1.8", _BEST, ("B/32 image",)),
    ("the same, 77 tokens, causal, 8 / 12 / 16 heads", "1.5", _BEST, ("text 512", "text 768", "text 1024")),
    (
        "the same, captions of about 20 tokens packed, times as fast as padded",
        "4",
        _PADDED,
        ("packed attention, ViT-B-32", "packed attention, ViT-L-14"),
    ),
    (
        "text tower of ViT-B-32 / ViT-L-14, packed, times as fast as padded",
        "3",
        _PADDED,
        ("text tower of ViT-B-32", "text tower of ViT-L-14"),
    ),
    ("QuickGELU, times as fast as eager torch", "2.5", _EAGER, ("quick_gelu bfloat16",)),
)
"""What the table has: text, target, the target's name in the JSON, its cases there."""
MODELS = ("ViT-B-32", "ViT-L-14")


def rows_of(content: Mapping[str, Any]) -> list[Fact]:
    """The rows, by the fields of `Measured`, that a file of bench_gpu gives; where two are of one shape, the slower.

    Raises `ValueError` for a rehearsal.
    """
    if content["rehearsal"]:
        raise ValueError("it is of a rehearsal, whose times mean nothing; allowed: a run on a GPU")
    where = content["machine"]
    found: dict[tuple[Any, ...], Fact] = {}
    for row in (row for part in ("attention", "text") for row in content["parts"].get(part, [])):
        for direction in ("training", "forward"):
            ratio = row.get(f"ratio_{direction}")
            if ratio is None or "operation" not in row:
                continue
            fact: Fact = {
                "architecture": where["architecture"],
                "operation": row["operation"],
                "dtype": row["dtype"],
                "training": direction == "training",
                "channels": row.get("channels", 0),
                "length": row.get("length", 0),
                "causal": row.get("causal", False),
                "ratio": round(ratio, 3),
                "device": where["device"],
                "date": where["date"],
            }
            key = tuple(fact[name] for name in FIELDS[:KEY])
            if key not in found or fact["ratio"] < found[key]["ratio"]:
                found[key] = fact
    return list(found.values())


def merged(before: Sequence[Fact], fresh: Sequence[Fact]) -> list[Fact]:
    """`before` with `fresh` in place of the rows of the same shape, sorted by what was measured."""
    rows = {tuple(fact[name] for name in FIELDS[:KEY]): fact for fact in (*before, *fresh)}
    return [rows[key] for key in sorted(rows)]


def with_rows(source: str, fresh: Sequence[Fact]) -> str:
    """The text of `clip_core/kernels/measured.py` with `fresh` merged into its MEASURED."""
    for node in ast.parse(source).body:
        match node:
            case ast.AnnAssign(target=ast.Name(id="MEASURED"), value=ast.Tuple(elts=elements)):
                calls = [element for element in elements if isinstance(element, ast.Call)]
                before = [dict(zip(FIELDS, map(ast.literal_eval, call.args), strict=True)) for call in calls]
                lines = source.splitlines()
                rows = [
                    f"    Measured({', '.join(_literal(fact[name]) for name in FIELDS)}),"
                    for fact in merged(before, fresh)
                ]
                block = ["MEASURED: tuple[Measured, ...] = (", *rows, ")"] if rows else [lines[node.lineno - 1]]
                return "\n".join([*lines[: node.lineno - 1], *block, *lines[node.end_lineno :]]) + "\n"
    raise SystemExit(f"{MODULE.name} has no MEASURED: tuple[Measured, ...] = (...)")


def _literal(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def table(content: Mapping[str, Any] | None) -> str:
    """The README's table, of a file of bench_gpu or, without one, of "not measured"."""
    found = {} if content is None else {(row["case"], row["target"]): row["found"] for row in content["targets"]}
    lines = ["| on an H200, bfloat16, forward and backward | target | measured |", "|---|---|---|"]
    for text, wanted, target, cases in FIGURES:
        values = [found.get((case, target)) for case in cases]
        lines.append(f"| {text} | {wanted} | {_cells(values)} |")
    runs = [] if content is None else content["parts"].get("steps", [])
    steps = {(row.get("model"), row.get("side")): row for row in runs}
    for model in MODELS:
        rates = [steps.get((model, side), {}).get("samples_per_s") for side in ("everything", "torch", "open_clip")]
        text = f"{model}, a training step, samples per second: everything / without Triton, padded / open_clip"
        lines.append(f"| {text} | | {_cells(rates, '{:,.0f}')} |")
    if content is not None:
        where = content["machine"]
        names = {"torch": where["torch"], "triton": where["triton"]}
        versions = ", ".join(f"{name} {version}" for name, version in names.items())
        lines += ["", f"{where['device']}, {versions}, {where['date']}."]
        if where.get("open_clip_torch") is None:
            lines[-1] += " open_clip was not there: its losses are the same operations, written in the bench."
    return "\n".join(lines)


def _cells(values: Sequence[float | None], form: str = "{:.2f}") -> str:
    if all(value is None for value in values):
        return "not measured"
    return " / ".join("–" if value is None else form.format(value) for value in values)


def with_table(readme: str, content: Mapping[str, Any] | None) -> str:
    """The README with the table between its two marks."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1:
        raise SystemExit(f"{README.name} must have {BEGIN!r} and {END!r} once each.")
    head, rest = readme.split(BEGIN)
    return f"{head}{BEGIN}\n{table(content)}\n{END}{rest.split(END)[1]}"


def lost(readme: str, content: Mapping[str, Any]) -> list[str]:
    """The first cells of the README's lines that have figures and would have none."""
    fresh = {line.split("|")[1] for line in table(content).splitlines() if line.endswith("| not measured |")}
    body = readme.split(BEGIN)[-1].split(END)[0].strip().splitlines()[2:]
    cells = [line.split("|") for line in body if line.startswith("|") and not line.endswith("| not measured |")]
    return [text.strip() for _, text, *_ in cells if text in fresh]


def main(arguments: list[str]) -> int:
    """Write both files; exit code 2 for a file that cannot be read or is not of bench_gpu, 1 where the table stays."""
    parser = argparse.ArgumentParser(
        prog="measured.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="what bench_gpu wrote with --json")
    path = parser.parse_args(arguments).file
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fresh = rows_of(content)
        table(content)
    except OSError as error:
        parser.error(f"{path} cannot be read: {error.strerror}")
    except (KeyError, TypeError, AttributeError):
        parser.error(f"{path} is not a file of bench_gpu; allowed: what it wrote with --json")
    except ValueError as error:  # not UTF-8, no JSON, or a rehearsal
        parser.error(f"{path} cannot be used: {error}")
    readme = README.read_text(encoding="utf-8")
    rewritten, missing = with_table(readme, content), lost(readme, content)
    MODULE.write_text(with_rows(MODULE.read_text(encoding="utf-8"), fresh), encoding="utf-8")
    print(f"{len(fresh)} rows of {content['machine']['device']} in {MODULE.name}")
    if missing:
        print(f"the table in {README.name} stays: {path} has no figures for {'; '.join(missing)}", file=sys.stderr)
        return 1
    README.write_text(rewritten, encoding="utf-8")
    print(f"the table in {README.parent.name}/{README.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
