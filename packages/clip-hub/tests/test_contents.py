"""What a repository holds, of a model or of a data set, is listed before it is fetched, and known without the Hub."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from clip_hub import DownloadError, RepositoryFile, fetch, repository_files
from clip_hub.hashes import git_hash

REPO = "someone/shards"
SHARD = bytes(range(256)) * 400
NAME = "test/0.tar.gz"


@pytest.fixture
def dataset(hub):
    """A Hub with a data set of one large and one small file, and a model of the same name."""
    hub.files[f"datasets/{REPO}", NAME] = SHARD
    hub.files[f"datasets/{REPO}", "classnames.txt"] = b"cat\ndog\n"
    hub.files[REPO, "config.json"] = b"{}"
    return hub


def commit_of(hub, repo: str) -> str:
    return hub.repositories[repo].refs["main"].id


def listed(**options) -> tuple[str, ...]:
    return tuple(file.path for file in repository_files(REPO, **options).files)


def test_files_are_listed_with_size_and_hash_and_whether_the_cache_has_them(dataset) -> None:
    found = repository_files(REPO, repo_type="dataset")
    assert found.commit == commit_of(dataset, f"datasets/{REPO}")
    assert found.files == (
        RepositoryFile("classnames.txt", 8, git_hash(b"cat\ndog\n"), cached=False),
        RepositoryFile(NAME, len(SHARD), hashlib.sha256(SHARD).hexdigest(), cached=False),
    )
    assert listed() == ("config.json",)  # the model
    fetch(REPO, [NAME], repo_type="dataset", revision=found.commit)
    held = {file.path: file.cached for file in repository_files(REPO, repo_type="dataset").files}
    assert held == {NAME: True, "classnames.txt": False}
    assert not any(request.method == "GET" and request.file == "classnames.txt" for request in dataset.requests)


def test_a_file_of_a_data_set_is_fetched_verified_and_healed_where_huggingface_hub_looks(dataset) -> None:
    import huggingface_hub

    dataset.fail("cut", NAME, times=1)
    path = fetch(REPO, [NAME], repo_type="dataset")
    assert path.read_bytes() == SHARD
    assert path.is_relative_to(dataset.cache / "datasets--someone--shards")
    assert Path(huggingface_hub.hf_hub_download(REPO, NAME, repo_type="dataset")) == path
    path.resolve().write_bytes(SHARD[:-1] + b"X")
    dataset.fail("flip", NAME, times=1)
    assert fetch(REPO, [NAME], repo_type="dataset").read_bytes() == SHARD
    with pytest.raises(DownloadError, match="Cannot fetch x.tar of the data set someone/nothing at main: there is no"):
        fetch("someone/nothing", ["x.tar"], repo_type="dataset")
    with pytest.raises(DownloadError, match="repo_type='space'; allowed: model, dataset"):
        fetch(REPO, [NAME], repo_type="space")


def test_the_list_of_a_commit_is_asked_for_once(dataset) -> None:
    first = commit_of(dataset, f"datasets/{REPO}")
    options = {"repo_type": "dataset", "revision": first}
    assert listed(**options) == ("classnames.txt", NAME)
    dataset.files[f"datasets/{REPO}", "test/1.tar.gz"] = SHARD
    dataset.requests.clear()
    assert listed(**options) == ("classnames.txt", NAME)
    assert dataset.requests == []
    assert listed(repo_type="dataset") == ("classnames.txt", NAME, "test/1.tar.gz")


def test_without_the_network_the_last_list_counts_and_without_a_list_the_cause_is_told(
    dataset, monkeypatch, caplog
) -> None:
    from huggingface_hub import constants

    listed(repo_type="dataset")
    dataset.fail("503")
    assert listed(repo_type="dataset") == ("classnames.txt", NAME)
    assert "using the list in the cache" in caplog.text
    with pytest.raises(
        DownloadError, match="Cannot list the files of someone/shards at main: .* answered 503 .*5 times"
    ):
        repository_files(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert listed(repo_type="dataset") == ("classnames.txt", NAME)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE forbids the network; list them once with the network on"):
        repository_files(REPO)


def test_refusals_name_the_data_set_and_the_cause(dataset) -> None:
    dataset.repositories[f"datasets/{REPO}"].private = True
    with pytest.raises(DownloadError, match="of the data set someone/shards at main: .*or it is private"):
        repository_files(REPO, repo_type="dataset")
    assert repository_files(REPO, repo_type="dataset", token=dataset.token).files
    with pytest.raises(DownloadError, match="there is no such revision"):
        repository_files(REPO, revision="v9")
    dataset.fail("503", "*/tree/*")
    with pytest.raises(DownloadError, match="the client has tried it again several times"):
        repository_files(REPO)


def test_a_name_that_leads_out_is_listed_and_never_fetched(dataset) -> None:
    dataset.files[f"datasets/{REPO}", "../../x"] = b"out"
    found = {file.path: file.cached for file in repository_files(REPO, repo_type="dataset").files}
    assert found["../../x"] is False
    with pytest.raises(DownloadError, match="leads out of it"):
        fetch(REPO, ["../../x"], repo_type="dataset")


def test_a_list_that_was_damaged_in_the_cache_is_asked_for_again(dataset) -> None:
    commit = repository_files(REPO).commit
    kept = dataset.cache / "models--someone--shards" / ".contents" / commit
    kept.write_text("{")
    assert listed(revision=commit) == ("config.json",)
