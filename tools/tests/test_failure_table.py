from __future__ import annotations

from pathlib import Path

import pytest

import failure_table

TEST = """
@pytest.mark.failure({row!r}, promise={promise!r})
@pytest.mark.parametrize("guarded", [True, False])
def test_{number}() -> None:
    pass
"""


def test_the_page_is_what_the_tests_say() -> None:
    assert failure_table.main(["--check"]) == 0


def write_tests(folder: Path, rows: list[str]) -> list[failure_table.Injection]:
    text = "".join(TEST.format(row=row, promise=f"promise {n}", number=n) for n, row in enumerate(rows))
    (folder / "test_x.py").write_text(text, encoding="utf-8")
    return failure_table.injections(folder)


def test_every_row_has_its_tests(tmp_path: Path) -> None:
    rows = [*failure_table.ROWS, failure_table.ROWS[0]]
    lines = failure_table.page(write_tests(tmp_path, rows)).splitlines()
    assert lines[-len(rows)] == f"| {rows[0]} | promise 0 | `test_x.py::test_0` |"
    assert lines[-len(rows) + 1] == f"| {rows[0]} | promise {len(rows) - 1} | `test_x.py::test_{len(rows) - 1}` |"


def test_a_row_without_a_test_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=failure_table.ROWS[3]):
        failure_table.page(write_tests(tmp_path, [row for row in failure_table.ROWS if row != failure_table.ROWS[3]]))
    with pytest.raises(ValueError, match="meteor"):
        failure_table.page(write_tests(tmp_path, [*failure_table.ROWS, "meteor"]))


def test_a_page_that_is_out_of_date_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_table, "PAGE", tmp_path / "FAILURES.md")
    assert failure_table.main(["--check"]) == 1
    assert failure_table.main([]) == 0
    assert failure_table.main(["--check"]) == 0
