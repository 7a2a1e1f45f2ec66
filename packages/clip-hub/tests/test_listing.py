"""Tables that fit, in the order that was asked for, and cards that say everything."""

from __future__ import annotations

import dataclasses
import json

import pytest

import clip_hub
from clip_core.errors import UnknownModel
from clip_hub.listing import SORTS, as_values, card, matching, ordered, table
from clip_hub.registry import all_tags
from clip_hub.sizes import SIZES

ROWS = all_tags()


@pytest.mark.parametrize("width", [80, 100, 120, 140, 200])
def test_a_table_fits_and_never_cuts_a_name(width: int) -> None:
    lines = table(ROWS, width)
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines[2:]] == [row.name for row in ROWS]
    for heading in ("params", "IN-1k", "38 sets"):
        assert heading in lines[0]


def test_what_a_table_leaves_out_depends_on_the_room_that_there_is() -> None:
    short = matching(ROWS, "siglip2")
    assert table(short, 120)[0].endswith("data")
    whole = table(ROWS)
    assert table(ROWS, 1000) == whole
    assert any(line.endswith("LAION-2B (English), then MS COCO captions") for line in whole)
    assert any("..." in line for line in table(ROWS, max(map(len, whole)) - 5))
    assert "data" not in table(ROWS, 120)[0]
    assert "licence" in table(ROWS, 120)[0]
    assert "licence" not in table(ROWS, 80)[0]


def test_columns_stand_under_their_headings() -> None:
    heading, rule, *lines = table(ROWS)
    starts = [0, *(place + 2 for place in range(len(rule)) if rule[place : place + 2] == "  ")]
    for line in (heading, *lines):
        assert all(line[start - 2 : start] == "  " for start in starts[1:])


def test_every_word_of_a_filter_counts() -> None:
    found = matching(ROWS, "LAION-2b vit-l MIT")
    assert {row.name for row in found} >= {"ViT-L-14:laion2b_s32b_b82k", "coca_ViT-L-14:laion2b_s13b_b90k"}
    assert all(row.licence == "mit" and "LAION-2B" in (row.data or "") for row in found)
    for name in ("ViT-H-14-quickgelu:dfn5b", "ViT-H-14:dfn5b"):
        assert [row.name for row in matching(ROWS, name)] == ["ViT-H-14:dfn5b"]
    assert matching(ROWS, "") == list(ROWS)
    assert all(row.licence == "cc-by-nc-4.0" for row in matching(ROWS, "by-nc"))
    with pytest.raises(UnknownModel, match="No weights match --filter 'zzz'"):
        matching(ROWS, "zzz")


@pytest.mark.parametrize(("key", "heading"), [("samples", "seen"), ("activations", "acts"), ("resolution", "px")])
def test_what_the_rows_are_sorted_by_is_shown_however_little_room_there_is(key: str, heading: str) -> None:
    rows = ordered(matching(ROWS, "laion"), key)
    for width in (80, 100, None):
        lines = table(rows, width, key)
        assert heading in lines[0].split()
        assert width is None or max(map(len, lines)) <= width
    assert "seen" not in table(rows, 100)[0].split()
    lines = table(ordered(ROWS, "samples"), None, "samples")
    end = lines[0].index("seen") + 4
    shown = [line[end - 4 : end].strip() for line in lines[2:]]
    numbers = [float(value) for value in shown if value != "-"]
    assert numbers == sorted(numbers, reverse=True)
    assert shown[len(numbers) :] == ["-"] * (len(shown) - len(numbers))


@pytest.mark.parametrize("key", SORTS)
def test_each_order_is_that_of_its_key(key: str) -> None:
    rows = ordered(ROWS, key)
    assert sorted(row.name for row in rows) == sorted(row.name for row in ROWS)
    ranks = [SORTS[key](row) for row in rows]
    assert ranks == sorted(ranks)


def test_the_best_scores_and_the_smallest_models_come_first() -> None:
    assert ordered(ROWS, "imagenet")[0].imagenet == max(row.imagenet or 0 for row in ROWS)
    assert ordered(ROWS, "imagenet")[-1].imagenet is None
    assert SIZES[ordered(ROWS, "params")[0].model] == min(SIZES.values())


def test_a_card_says_what_is_known_what_is_not_and_where_it_is_from() -> None:
    text = card(clip_hub.find_name("roberta-ViT-B-32:laion2b_s12b_b32k"))
    for part in (
        "212.72 M",
        "8.82 for an image, 13.30 for a text",
        "224 x 224 px, patches of 32 px",
        "77 tokens",
        "12,000,000,000",
        "MS COCO, image retrieval recall@5",
        "63.0 %  (model card of laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k)",
        "https://huggingface.co/laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k, revision main",
        "0.48145466 0.4578275 0.40821073",
        "MIT",
    ):
        assert part in text, text
    text = card(clip_hub.find_name("ViT-B-32-quickgelu:laion400m_e31"))
    assert "not known here" in text
    assert "ViT-B-32-quickgelu:laion400m_e31" in text
    assert "vit_b_32-quickgelu-laion400m_e31-d867053b.pt" in text
    assert "any shape, in patches of 16 px" in card(clip_hub.find_name("ViT-B-16-SigLIP2-naflex:webli"))
    assert "timm's convnext_base" in card(clip_hub.find_name("convnext_base:laion400m_s13b_b51k"))
    unlicensed = dataclasses.replace(clip_hub.find_name("ViT-B-32:openai"), licence=None)
    assert "not known here; see the repository" in card(unlicensed)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_card_fits_and_its_three_lines_load_the_row(row: clip_hub.Tag) -> None:
    text = card(row)
    # Addresses are as long as they are.
    assert all(len(line) <= 140 for line in text.splitlines() if "https://" not in line)
    code = text.split("To load it\n")[1]
    names: list[str] = []
    loading = type("Module", (), {"load": staticmethod(names.append)})
    lines = [line.strip() for line in code.splitlines()]
    assert lines[0] == "import clip_hub"
    exec(lines[1], {"clip_hub": loading})
    assert clip_hub.find_name(names[0]) is row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_plain_values_are_json_and_have_every_fact(row: clip_hub.Tag) -> None:
    values = json.loads(json.dumps(as_values(row)))
    assert values["name"] == row.name
    assert values["imagenet"] == row.imagenet
    assert values["mean"] == list(row.mean)
    assert values["parameters"] > 10
    assert values["context_length"] == row.config().text.context_length
    assert [score["source"] for score in values["scores"]] == [score.source for score in row.scores]
