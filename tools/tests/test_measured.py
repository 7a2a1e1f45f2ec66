"""From the JSON of bench_gpu to rows of facts and a table."""

from __future__ import annotations

import ast
import copy
import json
from pathlib import Path
from typing import Any

import pytest

import measured

MACHINE = {
    "device": "NVIDIA H200",
    "architecture": "sm_90",
    "date": "2026-11-22",
    "torch": "2.11.0",
    "triton": "3.6.0",
    "open_clip_torch": None,
}
SHORT = {"operation": "attention", "dtype": "bfloat16", "length": 50, "channels": 64, "causal": False}
CONTENT: dict[str, Any] = {
    "rehearsal": False,
    "machine": MACHINE,
    "parts": {
        "attention": [
            {"case": "B/32 image", **SHORT, "ratio_training": 1.93456, "ratio_forward": 0.9},
            {"case": "the same again", **SHORT, "ratio_training": 1.8},
            {"case": "L/14 image", **SHORT, "length": 257, "missing": {"ours": "no program"}},
            {"case": "broken", "error": "out of memory"},
            {"case": "quick_gelu bfloat16", "operation": "quick_gelu", "dtype": "bfloat16", "ratio_training": 3.0},
        ],
        "text": [
            {
                "case": "packed attention, ViT-B-32",
                **SHORT,
                "operation": "packed_attention",
                "length": 128,
                "longest": 77,
                "causal": True,
                "ratio_training": 4.2,
            },
            {"case": "text tower ViT-B-32 packed", "tower": "ViT-B-32", "side": "packed", "ms": 1.0},
        ],
        "steps": [{"case": "step", "model": "ViT-B-32", "side": "everything", "samples_per_s": 12345.6}],
    },
    "targets": [
        {"case": "clip_loss, 32,768 x 512", "target": "times as fast as eager", "found": 3.14},
        {"case": "clip_loss, 32,768 x 1024", "target": "times as fast as eager", "found": 2.0},
        {"case": "B/32 image", "target": "times as fast as the best backend", "found": None},
    ],
}
EMPTY = '''"""Rows."""

MEASURED: tuple[Measured, ...] = ()
"""More."""
'''


def test_only_what_was_measured_becomes_a_row() -> None:
    rows = {tuple(row[name] for name in measured.FIELDS) for row in measured.rows_of(CONTENT)}
    end = ("NVIDIA H200", "2026-11-22")
    assert rows == {
        ("sm_90", "attention", "bfloat16", True, 64, 50, False, 1.8, *end),  # the slower one
        ("sm_90", "attention", "bfloat16", False, 64, 50, False, 0.9, *end),
        ("sm_90", "quick_gelu", "bfloat16", True, 0, 0, False, 3.0, *end),
        ("sm_90", "packed_attention", "bfloat16", True, 64, 128, True, 4.2, *end),
    }


def test_a_rehearsal_is_refused() -> None:
    with pytest.raises(ValueError, match="rehearsal"):
        measured.rows_of({**CONTENT, "rehearsal": True})


def test_rows_are_written_and_replaced_by_shape() -> None:
    once = measured.with_rows(EMPTY, measured.rows_of(CONTENT))
    assert once.count("    Measured(") == 4
    line = '    Measured("sm_90", "attention", "bfloat16", True, 64, 50, False, 1.8, "NVIDIA H200", "2026-11-22"),'
    assert line in once.splitlines()
    assert once.startswith('"""Rows."""\n')
    assert once.endswith(')\n"""More."""\n')
    assert measured.with_rows(once, measured.rows_of(CONTENT)) == once
    other = copy.deepcopy(CONTENT)
    other["machine"]["architecture"] = "sm_80"
    both = measured.with_rows(once, measured.rows_of(other))
    assert both.count('"sm_80"') == both.count('"sm_90"') == 4
    assert max(map(len, both.splitlines())) <= 120


def test_the_module_has_the_fields_that_are_written() -> None:
    source = measured.MODULE.read_text(encoding="utf-8")
    record = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "Measured")
    fields = [node.target.id for node in record.body if isinstance(node, ast.AnnAssign)]
    assert fields == list(measured.FIELDS)
    assert measured.with_rows(source, []) == source


def test_the_table_has_what_was_found_and_says_what_was_not() -> None:
    found = measured.table(CONTENT)
    assert "| 3.0 / 2.3 / 1.9 | 3.14 / – / 2.00 |" in found
    assert "| 1.8 | not measured |" in found
    assert "12,346 / – / –" in found
    assert "NVIDIA H200, torch 2.11.0, triton 3.6.0, 2026-11-22." in found
    assert "open_clip was not there" in found
    none = measured.table(None)
    assert none.count("not measured") == len(measured.FIGURES) + len(measured.MODELS)


def test_the_readme_has_a_place_for_the_table() -> None:
    readme = measured.README.read_text(encoding="utf-8")
    fresh = measured.with_table(readme, CONTENT)
    assert measured.table(CONTENT) in fresh
    assert measured.with_table(measured.with_table(fresh, None), CONTENT) == fresh
    with pytest.raises(SystemExit, match="once each"):
        measured.with_table("# No marks", None)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a README whose table is of CONTENT, a module without rows, and CONTENT itself."""
    for name, text in (("README", f"{measured.BEGIN}\n{measured.END}\n"), ("MODULE", EMPTY)):
        monkeypatch.setattr(measured, name, tmp_path / name)
        (tmp_path / name).write_text(text)
    (tmp_path / "README").write_text(measured.with_table((tmp_path / "README").read_text(), CONTENT))
    (tmp_path / "whole.json").write_text(json.dumps(CONTENT))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read: No such file"),
        ("{", "cannot be used: Expecting"),
        ("[]", "not a file of bench_gpu"),
        ('{"bench": "losses", "rows": []}', "not a file of bench_gpu"),
        (json.dumps({**CONTENT, "rehearsal": True}), "a rehearsal"),
    ],
)
def test_what_is_no_file_of_the_bench_is_an_error_and_changes_nothing(
    files: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    before = (files / "README").read_text()
    path = files / "given.json"
    if text is not None:
        path.write_text(text)
    for arguments, wanted in (([str(path)], said), ([], "required: file")):
        with pytest.raises(SystemExit) as ended:
            measured.main(arguments)
        assert ended.value.code == 2
        assert wanted in capsys.readouterr().err
    assert (files / "README").read_text() == before
    assert (files / "MODULE").read_text() == EMPTY


def test_help_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        measured.main(["--help"])
    assert ended.value.code == 0
    assert "bench_gpu.json" in capsys.readouterr().out


def test_a_file_of_some_parts_adds_rows_and_takes_no_figure_from_the_table(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (files / "README").read_text()
    parts = {"attention": CONTENT["parts"]["attention"]}
    (files / "part.json").write_text(json.dumps({**CONTENT, "parts": parts, "targets": []}))
    assert measured.main([str(files / "part.json")]) == 1
    assert "no figures for CLIP loss, 32,768 pairs" in capsys.readouterr().err
    assert (files / "README").read_text() == before
    assert (files / "MODULE").read_text().count("    Measured(") == 3
    assert measured.main([str(files / "whole.json")]) == 0
    assert (files / "MODULE").read_text().count("    Measured(") == 4
    (files / "README").write_text(f"{measured.BEGIN}\n{measured.END}\n")  # nothing to lose
    assert measured.main([str(files / "part.json")]) == 0
