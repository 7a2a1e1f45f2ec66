"""The rows of facts themselves: of the stated types, unique, well formed, and true to what their own names say."""

from __future__ import annotations

import re
import typing

import pytest

import clip_hub
from clip_core.presets.parts import IMAGENET_MEAN, INCEPTION_MEAN, OPENAI_MEAN
from clip_hub.registry import all_tags
from clip_hub.tag import LICENCES, Layout, Licence, Score, Tag
from clip_hub.tags.table import rows, with_facts

ROWS = all_tags()
IDS = [row.name for row in ROWS]

# Tags round what DataComp's paper states.
POOLS = {"s13m": 12_800_000, "s128m": 128_000_000, "s1b": 1_280_000_000, "s13b": 12_800_000_000}


def fits(value: object, kind: object) -> bool:
    """Whether `value` is of the annotated type `kind`."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return value in parts
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        parts = parts[:1] * len(value) if parts[-1] is ... else parts
        return len(value) == len(parts) and all(map(fits, value, parts))
    if parts:  # a union
        return any(fits(value, part) for part in parts)
    return type(value) is kind


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_each_row_is_well_formed(row: Tag) -> None:
    for record in (row, *row.scores):
        for field, kind in typing.get_type_hints(type(record)).items():
            assert fits(getattr(record, field), kind), f"{field} is {getattr(record, field)!r}"
    assert re.fullmatch(r"[a-z0-9_]+", row.tag)
    assert re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", row.repo)
    assert not re.search(r"\.\.|--|[.-]$|\.git$", row.repo), "the Hub allows no such name"
    assert row.files
    assert all(re.fullmatch(r"[\w.]+\.(safetensors|bin)", file) for file in row.files)
    assert row.url is None or re.fullmatch(r"https://[\w./-]+\.pth?", row.url)
    assert row.licence is None or row.licence in LICENCES
    for value in (row.imagenet, row.average_38, *(score.value for score in row.scores)):
        assert value is None or 0 < value < 1
    assert row.samples_seen is None or 10**7 <= row.samples_seen <= 10**11
    assert row.mean in (OPENAI_MEAN, INCEPTION_MEAN, IMAGENET_MEAN, (0.0, 0.0, 0.0))
    for text in (
        row.data,
        row.note,
        row.measured_by,
        *(s.source for s in row.scores),
        *(s.dataset for s in row.scores),
    ):
        assert text is None or (text and text == text.strip())


def test_a_value_of_another_type_is_noticed() -> None:
    assert fits((0.5, 0.5, 0.5), tuple[float, float, float])
    assert not fits((0.5, 0.5), tuple[float, float, float])
    assert not fits((1, 0.5, 0.5), tuple[float, float, float])
    assert not fits("gpl", Licence | None)
    assert fits(None, Licence | None)
    assert not fits(["a"], tuple[str, ...])


def test_literals_and_names_of_licences_are_the_same() -> None:
    assert set(LICENCES) == set(typing.get_args(Licence))
    assert {row.layout for row in ROWS} == set(typing.get_args(Layout))


def test_names_are_unique_and_a_repository_serves_one_set_of_weights() -> None:
    assert len({(row.model, row.tag) for row in ROWS}) == len(ROWS)
    shared = {}
    for row in ROWS:
        shared.setdefault(row.repo, []).append(row.model)
    twice = {repo: models for repo, models in shared.items() if len(models) > 1}
    # One file, two names: 384 is what its authors called a size of which 378 pixels are used.
    assert twice == {"timm/ViT-SO400M-14-SigLIP-384": ["ViT-SO400M-14-SigLIP-378", "ViT-SO400M-14-SigLIP-384"]}


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_samples_seen_are_those_of_the_tag(row: Tag) -> None:
    said = re.search(r"_(s(\d+)[mb])(_|$)", row.tag)
    if said is None:
        return
    if re.match(r"(datacomp|commonpool)_(s|m|l|xl)_", row.tag):
        assert row.samples_seen == POOLS[said[1]]
    else:
        assert row.samples_seen == int(said[2]) * 10**9


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_scores_published_twice_agree_to_a_percent(row: Tag) -> None:
    for score in row.scores:
        if score.dataset == "ImageNet-1k":
            assert row.imagenet is not None
            assert abs(score.value - row.imagenet) < 0.01


# Zero-shot accuracies that are quoted often: ImageNet in percent, by name.
QUOTED = {
    "ViT-g-14:laion2b_s34b_b88k": 78.4,
    "convnext_large_d_320:laion2b_s29b_b131k_ft_soup": 76.9,
    "roberta-ViT-B-32:laion2b_s12b_b32k": 61.7,
    "xlm-roberta-large-ViT-H-14:frozen_laion5b_s13b_b90k": 77.0,
    "ViT-B-32:laion2b_s34b_b79k": 66.6,
    "ViT-L-14:datacomp_xl_s13b_b90k": 79.2,
}


@pytest.mark.parametrize(("name", "percent"), QUOTED.items())
def test_figures_of_the_cards_are_kept_with_their_source(name: str, percent: float) -> None:
    row = clip_hub.find_name(name)
    score = next(score for score in row.scores if score.dataset == "ImageNet-1k")
    assert score.value == pytest.approx(percent / 100)
    assert score.source != row.measured_by


def test_other_figures_of_the_cards_are_kept() -> None:
    def figures(name: str) -> dict[str, float]:
        return {score.dataset: score.value for score in clip_hub.find_name(name).scores}

    roberta = figures("roberta-ViT-B-32:laion2b_s12b_b32k")
    assert (roberta["MS COCO"], roberta["Flickr30k"]) == (0.63, 0.867)
    languages = figures("xlm-roberta-large-ViT-H-14:frozen_laion5b_s13b_b90k")
    found = [languages[f"ImageNet-1k in {language}"] for language in ("Italian", "Japanese", "Chinese")]
    assert found == [0.56, 0.53, 0.557]


# OpenCLIP's results on the 38 sets, as published: ImageNet and the mean.
PUBLISHED = {
    "ViT-H-14-378:dfn5b": (0.8437, 0.7079),
    "ViT-B-32:laion400m_e32": (0.6293, 0.5272),  # with the activation of the weights; 0.6024 without
    "RN50:yfcc15m": (0.3275, 0.2776),
    "EVA02-E-14-plus:laion2b_s9b_b144k": (0.8201, 0.6930),
    "ViT-B-32:commonpool_s_s13m_b4k": (0.027, 0.142),
}


@pytest.mark.parametrize(("name", "scores"), PUBLISHED.items())
def test_published_means_are_kept(name: str, scores: tuple[float, float]) -> None:
    row = clip_hub.find_name(name)
    assert (row.imagenet, row.average_38) == scores


def test_a_fact_about_a_row_that_is_not_there_is_a_mistake() -> None:
    table = rows([("ViT-B-32", "a", "b/c", None, 34, None, None)], licence="mit")
    assert table[0].samples_seen == 34_000_000_000
    score = Score(dataset="d", metric="m", value=0.5, source="s")
    assert with_facts(table, scores={"ViT-B-32:a": [score]})[0].scores == (score,)
    with pytest.raises(KeyError, match="ViT-B-32:other"):
        with_facts(table, notes={"ViT-B-32:other": "nothing"})
