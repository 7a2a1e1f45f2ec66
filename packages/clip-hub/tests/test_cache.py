"""Our way with huggingface_hub's cache: the client and we find each other's files, and marks tell what was touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clip_core.errors import ConfigError
from clip_hub.cache import RepositoryCache, is_commit, is_hash
from clip_hub.download import fetch
from clip_hub.hashes import sha256_of

REPO = "someone/model"
BODY = bytes(range(256)) * 100


def test_the_client_finds_what_we_fetched_and_we_what_it_fetched(hub, monkeypatch) -> None:
    from huggingface_hub import constants, hf_hub_download, scan_cache_dir

    hub.files[REPO, "a.safetensors"] = BODY
    hub.files[REPO, "deep/b.json"] = b"{}"
    ours = [fetch(REPO, [name], cache_dir=hub.cache) for name in ("a.safetensors", "deep/b.json")]
    hub.requests.clear()
    theirs = [Path(hf_hub_download(REPO, name, cache_dir=hub.cache)) for name in ("a.safetensors", "deep/b.json")]
    assert ours == theirs
    assert {request.method for request in hub.requests} == {"HEAD"}
    found = scan_cache_dir(hub.cache)
    assert not found.warnings
    (repository,) = found.repos
    assert {file.file_name for revision in repository.revisions for file in revision.files} == {
        "a.safetensors",
        "b.json",
    }
    hub.files["someone/other", "c.bin"] = BODY
    path = Path(hf_hub_download("someone/other", "c.bin", cache_dir=hub.cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("someone/other", ["c.bin"], cache_dir=hub.cache) == path


def test_marks_hold_until_the_file_is_touched(tmp_path: Path) -> None:
    cache = RepositoryCache(REPO, tmp_path)
    blob = cache.blob("f" * 64)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(BODY)
    path = cache.link("c" * 40, "sub/a.bin", blob)
    assert path.read_bytes() == BODY
    assert not cache.is_marked(path)
    cache.mark(path, "f" * 64)
    assert cache.is_marked(path)
    assert cache.is_marked(blob)
    before = blob.stat()
    blob.write_bytes(BODY[:-1] + b"X")
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))  # who sets the clock back is seen as well
    assert not cache.is_marked(path)
    cache.mark(path, "f" * 64)
    (tmp_path / "models--someone--model" / ".verified" / ("f" * 64)).write_text("[1")
    assert not cache.is_marked(path)
    cache.discard(path)
    assert not path.is_symlink()
    assert not blob.exists()


def test_revisions_and_missing_files_are_remembered(tmp_path: Path) -> None:
    cache = RepositoryCache(REPO, tmp_path)
    assert cache.commit("main") == "main"
    cache.remember("main", "a" * 40)
    cache.remember("refs/pr/1", "b" * 40)
    assert (cache.commit("main"), cache.commit("refs/pr/1")) == ("a" * 40, "b" * 40)
    assert not cache.known_missing("x.bin", "main")
    cache.remember_missing("a" * 40, "x.bin")
    assert cache.known_missing("x.bin", "main")
    assert not cache.known_missing("x.bin", "refs/pr/1")


def test_names_that_lead_out_of_a_repository_are_refused(tmp_path: Path) -> None:
    cache = RepositoryCache(REPO, tmp_path)
    for name in ("../../x", "/etc/passwd", "a/../../b", "..\\x", "C:x", ""):
        with pytest.raises(ConfigError, match="no name inside a repository"):
            cache.find(name, "main")
        with pytest.raises(ConfigError, match="no name inside a repository"):
            cache.link("c" * 40, name, tmp_path)
    assert cache.blob("../../x").parent == tmp_path / "models--someone--model" / "blobs"


def test_hashes_are_told_from_other_etags(tmp_path: Path) -> None:
    assert is_hash("a" * 64)
    assert is_hash("0" * 40)
    assert not is_hash('W/"abc"')
    assert is_commit("0" * 40)
    assert not is_commit("main")
    (tmp_path / "x").write_bytes(b"")
    assert sha256_of(tmp_path / "x") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    cache = RepositoryCache(REPO, tmp_path)
    assert cache.is_sound(tmp_path / "x", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391")  # git's empty blob


def test_without_links_the_bytes_lie_in_the_snapshot(hub, monkeypatch, caplog) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    hub.files[REPO, "a.safetensors"] = BODY
    monkeypatch.setattr(os, "symlink", refused)
    path = fetch(REPO, ["a.safetensors"], cache_dir=hub.cache)
    assert not path.is_symlink()
    assert fetch(REPO, ["a.safetensors"], cache_dir=hub.cache) == path
    path.write_bytes(BODY[:-1] + b"X")
    assert fetch(REPO, ["a.safetensors"], cache_dir=hub.cache).read_bytes() == BODY
    assert "damaged in the cache" in caplog.text
