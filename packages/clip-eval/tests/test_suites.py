"""`clip_eval.suites`: their sizes, their members in the catalogue, DataComp's averages."""

from __future__ import annotations

import pytest

from clip_core.errors import ConfigError
from clip_eval.catalogue import find
from clip_eval.suites import SUITES, suite

# Counted in CLIP_benchmark's collections and DataComp's task list.
_SIZES = {"vtab": 19, "vtab+": 36, "datacomp": 40, "retrieval": 3, "imagenet_robustness": 5}


@pytest.mark.parametrize(("name", "size"), _SIZES.items())
def test_sizes(name: str, size: int) -> None:
    datasets = suite(name).datasets
    assert len(datasets) == len(set(datasets)) == size


@pytest.mark.parametrize("name", [name for name, entry in SUITES.items() if not entry.built])
def test_members_are_in_the_catalogue(name: str) -> None:
    for dataset in SUITES[name].datasets:
        assert find(dataset).name == dataset
    for members in SUITES[name].aggregates.values():
        assert set(members) <= set(SUITES[name].datasets)


def test_datacomps_averages() -> None:
    sizes = {name: len(members) for name, members in suite("datacomp").aggregates.items()}
    assert sizes == {"ImageNet": 1, "ImageNet dist. shifts": 6, "VTAB": 13, "Retrieval": 3, "Average": 38}


def test_spelling_and_unknown_names() -> None:
    assert suite("VTAB_plus") is suite("vtab+")
    assert suite("imagenet-robustness").name == "imagenet_robustness"
    with pytest.raises(ConfigError, match=r"'vtabb'. Did you mean vtab\? Suites: vtab, vtab\+, datacomp"):
        suite("vtabb")
