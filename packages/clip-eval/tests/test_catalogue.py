"""The rows of `clip_eval.catalogue` against each other and against published averages."""

from __future__ import annotations

import re

import pytest

from clip_core.errors import ConfigError
from clip_eval.catalogue import compositional, entries, find, groups, lookup, multilingual, names, vtab_structured
from clip_eval.catalogue.entry import Entry
from clip_eval.catalogue.finding import _by_key

# The metrics that the tasks write, by kind.
_METRICS = {
    "classification": {"acc1", "mean_per_class_recall", "F1-macro_all", "acc_worst_region", "acc_top5_wg", "acc_wg"}
    | {"acc_gender_avg"},
    "multilabel": {"mean_average_precision"},
    "retrieval": {"mean_recall@1"},
    "caption_choice": {"text_acc", "acc"},
    "association": {"jaccard_score_10-12"},
}


@pytest.mark.parametrize("entry", entries(), ids=names())
def test_every_row_is_whole(entry: Entry) -> None:
    assert entry.main_metric in _METRICS[entry.kind]
    assert entry.test is None or entry.test > 0
    assert entry.chance is None or 0 < entry.chance <= 0.5001
    assert entry.languages
    assert len(set(entry.languages)) == len(entry.languages)
    assert entry.title
    assert entry.source
    assert all(re.fullmatch(r"[A-Z\d].*[.]", note) for note in entry.notes), entry.notes
    if entry.kind in ("classification", "multilabel") and not entry.objectives:
        assert entry.classes
        assert entry.classes > 1
    if entry.kind in ("retrieval", "caption_choice"):
        assert entry.captions
        assert entry.test
        assert entry.captions >= entry.test
        assert entry.classes is None
        assert not entry.prompts
    if entry.groups:
        assert entry.groups.by
        assert all(set(fields) <= set(entry.groups.fields) for fields in entry.groups.by)
        assert set(entry.groups.values) <= set(entry.groups.fields)


@pytest.mark.parametrize("entry", entries(), ids=names())
def test_a_row_is_found_by_every_name_that_people_use(entry: Entry) -> None:
    spellings = [entry.name, entry.name.upper(), f"wds/{entry.name}", entry.folder, f"{entry.folder}/", entry.title]
    spellings += [entry.datacomp, entry.hub, entry.mirror, *entry.aliases]
    for spelling in filter(None, spellings):
        assert find(spelling) is entry, spelling


def test_names_are_unique() -> None:
    assert len(set(names())) == len(names()) == len(entries())
    assert len({entry.title for entry in entries()}) == len(entries())
    assert set(_by_key().values()) == set(entries())


def test_an_unknown_name_says_what_is_near() -> None:
    with pytest.raises(ConfigError, match=r"'vtab/cifar1000'.*vtab/cifar100.*clip-eval list"):
        find("vtab/cifar1000")
    assert lookup("no such set") is None


def test_names_that_mean_another_set_in_clip_benchmark_are_refused() -> None:
    # There `caltech101` and `eurosat` are all images without a split.
    for name in ("caltech101", "eurosat", "vtab/sun397"):
        with pytest.raises(ConfigError):
            find(name)


def test_the_group_may_be_left_out() -> None:
    for short, name in {"pets": "vtab/pets", "fmow": "wilds/fmow", "geode": "fairness/geode"}.items():
        assert find(short).name == find(f"wds_{short}").name == name


def test_where_a_set_is_fetched() -> None:
    assert find("vtab/pets").address == "clip-benchmark/wds_vtab-pets"
    assert find("vtab/pets").mirror == "djghosh/wds_vtab-pets_test"
    assert find("food101").address == "djghosh/wds_food101_test"
    assert find("wilds/fmow").address == "djghosh/wds_wilds-fmow_test"
    assert find("fairness/geode").address == "djghosh/wds_geode_test"
    assert find("winogavil").mirror == "nlphuji/winogavil"
    assert find("winogavil").address is None
    assert find("mscoco_captions").mirror == "nlphuji/mscoco_2014_5k_test_image_text_retrieval"


def test_the_sizes_add_up_to_what_datacomp_evaluates() -> None:
    assert sum(entry.test or 0 for entry in entries() if entry.datacomp) == 732_026
    assert sum(entry.test or 0 for entry in entries() if entry.name.startswith("sugar_crepe/")) == 7_511


def test_languages() -> None:
    assert len(multilingual.CROSSMODAL) == 36
    assert len(multilingual.XTD10) == 11
    assert len(multilingual.FLORES) == 201
    assert all(re.fullmatch("[a-z]{3}_[A-Z][a-z]{3}", code) for code in multilingual.FLORES)


def test_what_guessing_scores_is_never_below_one_in_the_number_of_classes() -> None:
    # The guess follows the classes' frequencies; a uniform one is the least that this can give.
    for entry in entries():
        if entry.classes and entry.chance and entry.main_metric == "acc1":
            # ObjectNet's and others' labels are nearly balanced: the printed digits may round down.
            assert entry.chance >= 1 / entry.classes - 1e-6, entry.name


def test_families_hold_what_their_names_say() -> None:
    assert {entry.name.partition("/")[0] for entry in groups.ENTRIES} == {"wilds", "fairness"}
    assert len([entry for entry in compositional.ENTRIES if entry.kind == "caption_choice"]) == 8
    assert {entry.type for entry in vtab_structured.ENTRIES} == {"structured"}


@pytest.mark.parametrize(
    "name", ["vtab/pets", "vtab/svhn", "vtab/clevr_count_all", "fgvc_aircraft", "fairness/utkface"]
)
def test_a_licence_without_a_source_is_not_stated(name: str) -> None:
    assert find(name).licence is None
