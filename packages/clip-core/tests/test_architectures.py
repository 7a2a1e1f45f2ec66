"""The table of every architecture: it leaves nothing out, and what it says still holds.

The slow test compares every name anew; the others a few at full size without memory, and one with weights.
"""

from __future__ import annotations

import pytest

import architectures
import clip_core

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:Importing from timm.models.helpers:FutureWarning"),  # open_clip does
]

# One of every kind of tower and of reference.
SOME = [
    "coca_roberta-ViT-B-32",
    "convnext_large_d",
    "EVA02-E-14-plus",
    "gte-modernbert-base-ViT-B-32-256",
    "mt5-xl-ViT-H-14",
    "naflex_ViT-B-16",
    "PE-Core-B-16",
    "RN50x64",
    "ViT-bigG-14-CLIPA",
    "ViTamin-XL-384",
]


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, str]]:
    return architectures.read_table()


def test_every_architecture_has_a_row_and_no_cell_is_blank_or_failed(rows) -> None:
    assert len(architectures.NAMES) == 154
    assert set(rows) == set(architectures.NAMES) == set(clip_core.list_models()) - {"tiny"}
    for name, cells in rows.items():
        assert tuple(cells) == architectures.COLUMNS
        for column, cell in cells.items():
            for part in cell.split("; "):
                verdict, _, reason = part.partition(": ")
                assert verdict in ("passed", "left out"), (name, column, part)
                assert reason, (name, column)


def test_a_name_that_points_at_another_points_at_one_of_its_family_that_passed(rows) -> None:
    for name, cells in rows.items():
        for column, cell in cells.items():
            if cell.startswith("left out: as "):
                other = cell.split("`")[1]
                assert rows[other][column].startswith("passed"), (name, column)
                configs = [clip_core.get_config(each) for each in (name, other)]
                assert architectures.family(configs[0]) == architectures.family(configs[1])


@pytest.mark.parametrize("name", SOME)
def test_keys_shapes_and_counts_are_still_what_the_table_says(name: str, rows) -> None:
    assert architectures.compare_layout(name) == {column: rows[name][column] for column in ("keys", "parameters")}


@pytest.mark.parametrize("name", ["ViT-S-32-alt"])
def test_features_and_gradients_are_still_those_of_the_peer(name: str) -> None:
    for cell in architectures.compare_outputs(name).values():
        assert "passed" in cell
        assert "failed" not in cell


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.NAMES)
def test_every_row_holds(name: str, rows) -> None:
    for column, cell in architectures.compare(name).items():
        assert "failed" not in cell, (column, cell)
        assert cell.startswith(rows[name][column].split(":")[0]) or rows[name][column].startswith("left out: as "), (
            column
        )


def test_a_table_that_is_written_reads_back(tmp_path, rows) -> None:
    architectures.write_table(rows, tmp_path / "table.md")
    assert architectures.read_table(tmp_path / "table.md") == rows


def test_a_wrong_key_count_or_feature_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(architectures.FIGURES, "ViT-S-32", ("63.10", "22.64", "40.44"))
    assert architectures.compare_layout("ViT-S-32")["parameters"] == "failed: 63.09 M, profile 63.10"
    wider = clip_core.get_config("ViT-M-32")
    monkeypatch.setattr(architectures.clip_core, "get_config", lambda name: wider)
    monkeypatch.setattr(
        architectures.clip_core, "create_model", lambda name, device: clip_core.building.build(wider, device=device)
    )
    assert architectures.compare_layout("ViT-S-32")["keys"].startswith("failed: ")
