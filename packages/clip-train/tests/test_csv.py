from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from clip_core.errors import DataError, ImageError
from clip_train.data.csv import CsvSource

COLUMNS: dict[str, Any] = {"separator": "\t", "image_column": "filepath", "caption_column": "title"}


@pytest.fixture
def table(tmp_path: Path, make: Any) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / f"images/{number}.png").write_bytes(make.png(number))
    rows = ["filepath\ttitle", *(f"images/{n}.png\tthing, number {n}" for n in range(3))]
    rows[3] = f"{tmp_path}/images/2.png\tthing, number 2"
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_rows_are_samples(table: Path, make: Any) -> None:
    source = pickle.loads(pickle.dumps(CsvSource(str(table), **COLUMNS)))
    assert [source.read(n) for n in range(len(source))] == [
        (make.png(n), f"thing, number {n}".encode()) for n in range(3)
    ]
    assert source.label(1) == f"{table}:images/1.png"
    assert source.groups[source.group(1)] == str(table)


def test_a_table_that_excel_wrote_is_read_like_any_other(table: Path) -> None:
    plain = CsvSource(str(table), **COLUMNS)
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    source = CsvSource(str(table), **COLUMNS)
    assert [source.read(n) for n in range(len(source))] == [plain.read(n) for n in range(len(plain))]


def test_an_image_that_is_not_there_is_that_samples_error(table: Path) -> None:
    (table.parent / "images/1.png").unlink()
    with pytest.raises(ImageError, match=r"images/1\.png"):
        CsvSource(str(table), **COLUMNS).read(1)


def test_a_missing_column_is_named_with_the_nearest(table: Path) -> None:
    with pytest.raises(DataError, match=r"pairs\.csv: has no column 'titel'.*title"):
        CsvSource(str(table), **{**COLUMNS, "caption_column": "titel"})
    with pytest.raises(DataError, match=r"no column 'filepath' when split at ','"):
        CsvSource(str(table), **{**COLUMNS, "separator": ","})


@pytest.mark.parametrize("content", [b"filepath\ttitle\n", b"", b"\xff\xfe\x00bad"])
def test_a_file_without_rows_or_text_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.csv"):
        CsvSource(str(path), **COLUMNS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv: no such file"):
        CsvSource(str(tmp_path / "gone.csv"), **COLUMNS)


def test_short_rows_are_counted(table: Path) -> None:
    with table.open("a", encoding="utf-8") as file:
        file.write("images/0.png\n")
    source = CsvSource(str(table), **COLUMNS)
    assert len(source) == 3
    assert source.left_out == {str(table): 1}
