"""Downloads from a Hub on this machine, sound and faulty: never a file with wrong bytes, always a cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from clip_hub import DownloadError
from clip_hub.download import fetch

REPO = "laion/some-model"
NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
BODY = bytes(range(256)) * 4000


def test_the_first_name_that_the_repository_has_is_taken(hub) -> None:
    hub.files[REPO, NAMES[1]] = BODY
    path = fetch(REPO, NAMES, cache_dir=hub.cache)
    assert path.name == NAMES[1]
    assert path.read_bytes() == BODY
    hub.files[REPO, NAMES[0]] = BODY + b"safe"
    assert fetch(REPO, NAMES, cache_dir=hub.cache).read_bytes() == BODY + b"safe"


def test_a_second_fetch_reads_the_cache(hub) -> None:
    hub.files[REPO, NAMES[0]] = BODY
    fetch(REPO, NAMES, cache_dir=hub.cache)
    hub.requests.clear()
    assert fetch(REPO, NAMES, cache_dir=hub.cache).read_bytes() == BODY
    assert "GET" not in [request.method for request in hub.requests if request.file == NAMES[0]]


def test_a_flipped_byte_in_the_cache_is_found_and_healed(hub, caplog) -> None:
    hub.files[REPO, NAMES[0]] = BODY
    path = fetch(REPO, NAMES, cache_dir=hub.cache)
    blob = path.resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"X" + BODY[1:])
    assert fetch(REPO, NAMES, cache_dir=hub.cache).read_bytes() == BODY
    assert "damaged in the cache" in caplog.text


def test_wrong_bytes_on_the_way_are_fetched_again_and_refused_the_second_time(hub) -> None:
    hub.files[REPO, NAMES[0]] = BODY
    hub.fail("flip", NAMES[0], times=1)
    assert fetch(REPO, NAMES, cache_dir=hub.cache).read_bytes() == BODY
    hub.files["laion/other", NAMES[0]] = BODY
    hub.fail("flip", NAMES[0])
    with pytest.raises(DownloadError, match="wrong hash twice and was thrown away"):
        fetch("laion/other", NAMES, cache_dir=hub.cache)
    hub.heal()
    assert fetch("laion/other", NAMES, cache_dir=hub.cache).read_bytes() == BODY


@pytest.mark.parametrize(
    ("fault", "message"),
    [("500", "Cannot fetch .* of laion/some-model at main: "), ("503", "Cannot fetch"), ("gated", "access is gated")],
)
def test_a_failing_hub_is_an_error_with_a_cause_and_leaves_no_file(hub, fault: str, message: str) -> None:
    hub.files[REPO, NAMES[0]] = BODY
    hub.fail(fault)
    with pytest.raises(DownloadError, match=message):
        fetch(REPO, NAMES, cache_dir=hub.cache)
    assert list(Path(hub.cache).rglob("snapshots/*/*")) == []


def test_a_body_cut_short_never_becomes_a_file(hub) -> None:
    hub.files[REPO, NAMES[0]] = BODY
    hub.fail("cut", NAMES[0])
    with pytest.raises(DownloadError):
        fetch(REPO, NAMES, cache_dir=hub.cache)
    hub.heal()
    assert fetch(REPO, NAMES, cache_dir=hub.cache).read_bytes() == BODY


def test_missing_repository_and_missing_files_are_told_apart(hub) -> None:
    hub.files[REPO, "README.md"] = b"hello"
    with pytest.raises(DownloadError, match="has none of open_clip_model.safetensors, open_clip_pytorch_model.bin"):
        fetch(REPO, NAMES, cache_dir=hub.cache)
    with pytest.raises(DownloadError, match="no such repository, or it is private"):
        fetch("laion/other", NAMES, cache_dir=hub.cache)


def test_a_cache_without_links_is_checked_against_the_hub(hub, caplog, monkeypatch) -> None:
    hub.files[REPO, NAMES[0]] = BODY
    path = fetch(REPO, NAMES, cache_dir=hub.cache)
    blob = path.resolve()
    path.unlink()
    path.write_bytes(b"X" + BODY[1:])  # what a file system without links would hold, with a byte flipped
    blob.unlink()
    assert fetch(REPO, NAMES, cache_dir=hub.cache).read_bytes() == BODY
    assert "damaged in the cache" in caplog.text
    path.unlink()
    path.write_bytes(BODY)
    hub.fail("500")
    assert fetch(REPO, NAMES, cache_dir=hub.cache).read_bytes() == BODY
    assert "cannot be checked" in caplog.text


def test_a_small_file_is_checked_by_its_git_hash(hub) -> None:
    hub.files[REPO, "config.json"] = b"small"
    path = fetch(REPO, ["config.json"], cache_dir=hub.cache)
    assert len(path.resolve().name) == 40
    path.resolve().write_bytes(b"smalL")
    assert fetch(REPO, ["config.json"], cache_dir=hub.cache).read_bytes() == b"small"


def test_offline_uses_the_cache_and_says_what_is_missing(hub, monkeypatch) -> None:
    from huggingface_hub import constants, utils

    hub.files[REPO, NAMES[1]] = BODY
    fetch(REPO, NAMES, cache_dir=hub.cache)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    getattr(utils, "reset_sessions", lambda: None)()  # see the fixture
    assert fetch(REPO, NAMES, cache_dir=hub.cache).read_bytes() == BODY
    with pytest.raises(DownloadError, match="not in the cache and HF_HUB_OFFLINE forbids the network"):
        fetch("laion/other", NAMES, cache_dir=hub.cache)
