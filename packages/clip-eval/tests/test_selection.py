"""From words to data sets: suites, names, folders, addresses, files of words."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_core.errors import ConfigError
from clip_eval.selection import select
from clip_eval.suites import suite


def test_a_suite_is_its_data_sets_once_each() -> None:
    found = select(["imagenet_robustness", "imagenet-a"])
    assert [entry.name for entry in found] == list(suite("imagenet_robustness").datasets)
    assert found[0].address.startswith("hf://datasets/")


def test_names_of_clip_benchmark_are_known_and_lie_in_the_root(tmp_path: Path) -> None:
    (tmp_path / "wds_vtab-cifar10").mkdir()
    (found,) = select(["wds/vtab/cifar10"], root=str(tmp_path))
    assert (found.name, found.address) == ("vtab/cifar10", str(tmp_path / "wds_vtab-cifar10"))
    assert found.entry is not None
    assert found.entry.size == 10_000


def test_a_root_may_be_the_address_of_each() -> None:
    root = "https://huggingface.co/datasets/clip-benchmark/wds_{dataset_cleaned}/tree/main"
    (found,) = select(["wds/vtab/cifar10"], root=root)
    assert found.address == "https://huggingface.co/datasets/clip-benchmark/wds_vtab-cifar10/tree/main"
    with pytest.raises(ConfigError, match="allowed: {dataset} and {dataset_cleaned}"):
        select(["wds/vtab/cifar10"], root="{name}")


def test_folders_addresses_and_repositories_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    found = select([str(tmp_path / "mine"), "s3://bucket/other", "hf://datasets/org/third@v1", "org/fourth"])
    assert [entry.name for entry in found] == ["mine", "other", "third", "fourth"]
    assert [entry.entry for entry in found] == [None] * 4
    assert found[3].address == "hf://datasets/org/fourth"


def test_a_file_holds_words(tmp_path: Path) -> None:
    words = tmp_path / "sets.txt"
    words.write_text("# the small ones\nvtab/cifar10\n\nmnist  # digits\n", encoding="utf-8")
    assert [entry.name for entry in select([str(words)])] == ["vtab/cifar10", "mnist"]


@pytest.mark.parametrize("word", ["nowhere", "./nowhere", "vtab/cifar11"])
def test_what_is_nothing_is_said_to_be_nothing(word: str) -> None:
    with pytest.raises(ConfigError, match="no such data set folder"):
        select([word])


def test_a_set_without_a_public_copy_has_to_be_built() -> None:
    with pytest.raises(ConfigError, match=r"winoground is not on this machine.*clip-eval build"):
        select(["winoground"])


@pytest.mark.parametrize("name", ["pets", "coco", "CIFAR-10", "flickr"])
def test_a_folder_of_ones_own_is_not_a_known_set_by_a_nickname(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (found,) = select([str(tmp_path / name)])
    assert (found.name, found.entry) == (name, None)


@pytest.mark.parametrize(
    "name", ["wds_vtab-pets", "vtab-pets", "wds_vtab-pets_test", "wds_pets_test", "mscoco_captions"]
)
def test_a_folder_that_is_called_as_published_is_the_known_set(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (found,) = select([str(tmp_path / name)])
    assert found.name in ("vtab/pets", "mscoco_captions")


def test_suites_are_found_as_clip_benchmark_spells_them() -> None:
    assert [entry.name for entry in select(["VTAB_plus"])] == list(suite("vtab+").datasets)
    assert len(suite("sugar_crepe").datasets) == 7


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("sftp://bob:secret@host/data/x", "x"),
        ("sftp://bob:secret@host", "host"),
        ("https://example.org/mydigits?sig=secret", "mydigits"),
        ("https://example.org/a/wds_vtab-cifar10/?sig=secret/more", "vtab/cifar10"),
        ("hf://datasets/org/third@v1/folder", "folder"),
        ("https://huggingface.co/datasets/org/third/tree/main", "third"),
        ("s3://bucket/set@2", "set_2"),
    ],
)
def test_the_name_of_an_address_has_no_secrets_of_it(address: str, name: str) -> None:
    (found,) = select([address])
    assert (found.name, found.address) == (name, address)


@pytest.mark.parametrize("root", ["s3://bucket/sets", "s3://bucket/sets/"])
def test_a_root_may_be_the_address_of_the_folder_of_all(root: str) -> None:
    found = select(["vtab/cifar10", "mine", "gs://other/third"], root=root)
    assert [one.address for one in found] == [
        "s3://bucket/sets/wds_vtab-cifar10",
        "s3://bucket/sets/mine",
        "gs://other/third",
    ]


def test_a_root_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder to look for data sets in"):
        select(["vtab/cifar10"], root=str(tmp_path / "absent"))


def test_a_pattern_is_filled_with_the_word_as_typed(tmp_path: Path) -> None:
    root = str(tmp_path / "wds_{dataset_cleaned}")
    (tmp_path / "wds_vtab-cifar10").mkdir()
    (found,) = select(["wds/cifar10"], root=root)
    assert (found.name, found.word, found.address) == (
        "vtab/cifar10",
        "wds/cifar10",
        str(tmp_path / "wds_vtab-cifar10"),
    )
    (tmp_path / "wds_cifar10").mkdir()
    (found,) = select(["wds/cifar10"], root=root)
    assert (found.name, found.address) == ("vtab/cifar10", str(tmp_path / "wds_cifar10"))
    (found,) = select(["cifar10"], root="s3://bucket/{dataset}")
    assert found.address == "s3://bucket/cifar10"
    (found,) = select(
        ["cifar10"], root="https://huggingface.co/datasets/clip-benchmark/wds_{dataset_cleaned}/tree/main"
    )
    assert found.address == "https://huggingface.co/datasets/clip-benchmark/wds_vtab-cifar10/tree/main"
