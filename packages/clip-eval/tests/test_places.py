"""Data sets that lie elsewhere: found, fetched whole, continued, kept; and what is said where that cannot be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_core.errors import DataError
from clip_eval.places import describe_dataset, fetch_dataset, origin_of
from clip_eval.places.address import Folder, HubRepository, Url, resolve_root, take_apart
from clip_eval.wds import open_dataset
from clip_hub import DownloadError
from hub_server import HubServer

REPO = "someone/wds_vtab-pets"
COMMIT = "0123456789" * 4


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_hub.retrying.sleep", lambda _: None)


def is_whole(folder: Path, files: dict[str, bytes]) -> bool:
    return all((folder / name).read_bytes() == data for name, data in files.items())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        server.attract(monkeypatch, tmp_path / "huggingface")
        yield server
        import huggingface_hub

        getattr(huggingface_hub, "close_session", lambda: None)()


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert take_apart(tmp_path) == Folder(tmp_path)
    assert take_apart(tmp_path.as_uri()) == Folder(tmp_path)
    assert take_apart(REPO) == HubRepository(REPO)
    assert take_apart(f"{REPO}@v1") == HubRepository(REPO, "v1")
    assert take_apart(f"hf://datasets/{REPO}@refs/pr/3/a/b/") == HubRepository(REPO, "refs/pr/3", "a/b")
    assert take_apart(f"hf://datasets/{REPO}") == HubRepository(REPO)
    page = f"https://huggingface.co/datasets/{REPO}"
    assert take_apart(page) == HubRepository(REPO)
    assert take_apart(f"{page}/tree/main/") == HubRepository(REPO)
    assert take_apart(f"{page}/tree/refs%2Fpr%2F1/deep/er") == HubRepository(REPO, "refs/pr/1", "deep/er")
    assert take_apart("s3://bucket/some set/") == Url("s3://bucket/some set")
    assert (Url("s3://bucket/some set").name, Url("https://host/").name) == ("some_set", "host")
    for text in ("nowhere", "./no/where", "a/b/c", "hf://models/a/b", "https://huggingface.co/openai/clip"):
        with pytest.raises(DataError, match="no such data set folder|not the (address|page) of a data set"):
            take_apart(text)
    monkeypatch.chdir(tmp_path)
    (tmp_path / REPO).mkdir(parents=True)
    assert take_apart(REPO) == Folder(Path(REPO))


def test_names_below_a_root(tmp_path: Path) -> None:
    (tmp_path / "wds_vtab-pets").mkdir()
    (tmp_path / "vtab" / "pets").mkdir(parents=True)
    assert resolve_root("vtab/pets", str(tmp_path)) == str(tmp_path / "vtab/pets")
    (tmp_path / "vtab" / "pets").rmdir()
    assert resolve_root("vtab/pets", str(tmp_path)) == str(tmp_path / "wds_vtab-pets")
    pattern = "https://huggingface.co/datasets/clip-benchmark/wds_{dataset_cleaned}/tree/main"
    expected = "https://huggingface.co/datasets/clip-benchmark/wds_vtab-pets/tree/main"
    assert resolve_root("vtab/pets", pattern) == expected
    assert resolve_root("vtab/pets", "memory://sets/") == "memory://sets/vtab/pets"
    with pytest.raises(DataError, match="holds no data set 'cars'"):
        fetch_dataset("cars", root=tmp_path)


def test_a_folder_is_taken_as_it_is(make_classification, tmp_path: Path) -> None:
    folder = make_classification()
    assert fetch_dataset(folder) == folder
    assert fetch_dataset("animals", root=tmp_path) == folder
    facts = describe_dataset(folder)
    assert (facts.place, facts.folder, facts.shards, facts.files, facts.samples) == ("folder", folder, 1, 4, None)
    assert facts.bytes == facts.bytes_cached == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    with pytest.raises(DataError, match="no split 'train'"):
        describe_dataset(folder, split="train")
    with pytest.raises(DataError, match="only a repository of the Hub has revisions"):
        fetch_dataset(folder, revision="main")
    with pytest.raises(DataError, match="no such data set folder"):
        fetch_dataset("file:///no/where")


# The Hub


def put(hub: HubServer, files: dict[str, bytes], repo: str = REPO) -> None:
    for name, data in files.items():
        hub.files[f"datasets/{repo}", name] = data


def test_a_repository_of_the_hub(hub: HubServer, wds_files, tmp_path: Path) -> None:
    files = wds_files()
    put(hub, files | wds_files(1, "train") | {"README.md": b"hello"})
    before = describe_dataset(REPO)
    assert (before.place, before.folder, before.shards, before.files) == ("hub", None, 3, 6)
    assert before.bytes == sum(map(len, files.values()))
    assert before.bytes_cached == sum(len(data) for name, data in files.items() if not name.endswith(".tar"))
    assert not any("Signature" in request.path and ".tar" in request.path for request in hub.requests)
    folder = fetch_dataset(REPO)
    assert is_whole(folder, files)
    assert not (folder / "train").exists()
    dataset = open_dataset(folder)
    assert (dataset.name, dataset.classnames, len(dataset.samples)) == ("wds_vtab-pets", ("cat", "", "owl"), 6)
    after = describe_dataset(f"{hub.url}/datasets/{REPO}/tree/main")
    assert (after.folder, after.bytes_cached, after.revision) == (folder, after.bytes, folder.name)
    hub.requests.clear()
    assert fetch_dataset(f"hf://datasets/{REPO}", revision=folder.name) == folder
    assert not hub.requests  # a commit never changes
    assert fetch_dataset(REPO, split="train", cache_dir=tmp_path / "elsewhere").is_relative_to(tmp_path / "elsewhere")


def test_all_files_are_of_one_commit(hub: HubServer, wds_files, monkeypatch: pytest.MonkeyPatch) -> None:
    files = wds_files()
    put(hub, files)
    from clip_eval.places import hub as room

    real = room.fetch

    def changing(repo: str, names: list[str], **rest: Any) -> Path:
        put(hub, {"classnames.txt": b"other\n" * 3, "test/2.tar": b"other"})
        return real(repo, names, **rest)

    monkeypatch.setattr(room, "fetch", changing)
    assert is_whole(fetch_dataset(REPO), files)


def test_a_repository_offline(hub: HubServer, wds_files, monkeypatch: pytest.MonkeyPatch) -> None:
    files = wds_files()
    put(hub, files)
    folder = fetch_dataset(REPO)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert fetch_dataset(REPO) == folder
    assert not hub.requests
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        fetch_dataset("someone/other")


def test_a_repository_that_is_no_such_data_set(hub: HubServer, wds_files) -> None:
    put(hub, wds_files(split="train"))
    with pytest.raises(DataError, match=r"has no test/nshards\.txt, .* Splits there: train"):
        fetch_dataset(REPO)
    put(hub, {"README.md": b"hello"}, "someone/else")
    with pytest.raises(DataError, match="It holds no data set of this layout"):
        fetch_dataset("someone/else")
    put(hub, {"a/test/nshards.txt": b"2", "a/test/0.tar": b"x"}, "someone/less")
    with pytest.raises(DataError, match=r"says 2 shard\(s\), and the repository lacks test/1\.tar"):
        fetch_dataset("hf://datasets/someone/less/a")
    with pytest.raises(DownloadError, match="there is no such repository"):
        fetch_dataset("someone/nobody")


def test_a_damaged_shard_of_the_hub_is_fetched_again(hub: HubServer, wds_files) -> None:
    files = wds_files()
    put(hub, files)
    folder = fetch_dataset(REPO)
    path = (folder / "test" / "1.tar").resolve()
    time.sleep(0.03)
    path.write_bytes(path.read_bytes()[:-700] + bytes(700))
    assert is_whole(fetch_dataset(REPO), files)
    hub.fail("flip", "test/2.tar", times=1)
    (folder / "test" / "2.tar").resolve().unlink()
    assert is_whole(fetch_dataset(REPO), files)


def test_a_record_says_where_its_data_came_from_and_no_password(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / "datasets--org--name" / "snapshots" / ("0123abc" * 5)
    assert origin_of("org/name", snapshot) == {"address": "hf://datasets/org/name", "revision": "0123abc" * 5}
    assert origin_of("hf://datasets/org/name@v1/snapshots/a", snapshot / "snapshots/a") == {
        "address": "hf://datasets/org/name/snapshots/a",
        "revision": "0123abc" * 5,
    }
    assert origin_of("https://me:secret@host:8000/sets/a?token=secret", tmp_path) == {
        "address": "https://host:8000/sets/a",
        "revision": None,
    }
    assert origin_of("s3://bucket/a", tmp_path)["address"] == "s3://bucket/a"
    assert origin_of(tmp_path, tmp_path) == {"address": None, "revision": None}
