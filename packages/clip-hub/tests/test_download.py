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


def test_a_file_is_hashed_once_and_again_when_it_was_touched_or_asked_for(hub, monkeypatch) -> None:
    from clip_hub.cache import RepositoryCache

    hashed: list[str] = []
    sound = RepositoryCache.is_sound

    def counted(self: RepositoryCache, path: Path, digest: str) -> bool:
        hashed.append(path.name)
        return sound(self, path, digest)

    monkeypatch.setattr(RepositoryCache, "is_sound", counted)
    hub.files[REPO, NAMES[0]] = BODY
    path = fetch(REPO, NAMES, cache_dir=hub.cache)
    assert fetch(REPO, NAMES, cache_dir=hub.cache) == path
    assert len(hashed) == 1
    assert fetch(REPO, NAMES, cache_dir=hub.cache, recheck=True) == path
    assert len(hashed) == 2
    path.resolve().touch()
    fetch(REPO, NAMES, cache_dir=hub.cache)
    fetch(REPO, NAMES, cache_dir=hub.cache)
    assert len(hashed) == 3


def test_revisions_are_kept_apart_and_a_branch_is_followed(hub) -> None:
    hub.files[REPO, NAMES[0]] = BODY
    first = hub.repositories[REPO].refs["main"].id
    hub.repositories[REPO].refs["trial/x"] = hub.repositories[REPO].refs["main"]
    assert fetch(REPO, NAMES, cache_dir=hub.cache).read_bytes() == BODY
    hub.files[REPO, NAMES[0]] = BODY[::-1]
    for revision, body in (("main", BODY[::-1]), (first, BODY), ("trial/x", BODY)):
        assert fetch(REPO, NAMES, revision=revision, cache_dir=hub.cache).read_bytes() == body
    hub.requests.clear()
    fetch(REPO, NAMES, revision=first, cache_dir=hub.cache)
    assert hub.requests == []  # what a commit holds never changes
    with pytest.raises(DownloadError, match="at v2: there is no such revision"):
        fetch(REPO, NAMES, revision="v2", cache_dir=hub.cache)


def test_private_and_gated_repositories_need_a_token(hub) -> None:
    hub.files[REPO, NAMES[0]] = BODY
    hub.repositories[REPO].private = True
    with pytest.raises(DownloadError, match="or it is private; check the name, or log in with `hf auth login`"):
        fetch(REPO, NAMES, cache_dir=hub.cache)
    assert fetch(REPO, NAMES, cache_dir=hub.cache, token=hub.token).read_bytes() == BODY
    hub.files["someone/gated", NAMES[0]] = BODY
    hub.repositories["someone/gated"].gated = True
    with pytest.raises(DownloadError, match="access is gated; accept its terms on the Hub and log in"):
        fetch("someone/gated", NAMES, cache_dir=hub.cache)
    assert fetch("someone/gated", NAMES, cache_dir=hub.cache, token=hub.token).read_bytes() == BODY


def test_a_busy_hub_is_given_the_time_it_asks_for(hub, monkeypatch, caplog) -> None:
    import clip_hub.retrying

    pytest.importorskip("huggingface_hub", minversion="1.0")  # clients before answer a 429 to HEAD by themselves
    pauses: list[float] = []
    monkeypatch.setattr(clip_hub.retrying, "sleep", pauses.append)
    hub.files[REPO, NAMES[0]] = BODY
    hub.fail("429", NAMES[0], method="HEAD", times=2, retry_after=17)
    hub.fail("503", NAMES[0], method="GET", times=1)
    assert fetch(REPO, NAMES, cache_dir=hub.cache).read_bytes() == BODY
    assert pauses == [17, 17, 1]
    assert "the Hub answered 429 (it asks to wait); trying again in 17 s" in caplog.text
    hub.fail("429", retry_after=3600)
    with pytest.raises(DownloadError, match="it asks to wait., for 3600 s; check the network, try later"):
        fetch(REPO, ["other.bin"], cache_dir=hub.cache)


def test_damage_found_offline_is_said_and_healed_later(hub, monkeypatch) -> None:
    from huggingface_hub import constants

    hub.files[REPO, NAMES[0]] = BODY
    fetch(REPO, NAMES, cache_dir=hub.cache).resolve().write_bytes(BODY[:-1] + b"X")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match=r"what is in the cache is damaged .*; fetch it again with the network on"):
        fetch(REPO, NAMES, cache_dir=hub.cache)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert fetch(REPO, NAMES, cache_dir=hub.cache).read_bytes() == BODY


def test_another_process_obeys_the_environment_and_shows_how_far_it_is(hub, tmp_path: Path) -> None:
    import subprocess
    import sys

    hub.files[REPO, NAMES[0]] = BODY
    code = f"from clip_hub.download import fetch; print(fetch({REPO!r}, {list(NAMES)!r}))"
    # The client shows a bar to a person; "TQDM_POSITION=-1" tells it that one may be behind a pipe.
    environment = hub.environment(tmp_path / "home") | {"TQDM_POSITION": "-1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "home" / "hub")
    assert f"{NAMES[0]}: 100%" in done.stderr
    offline = environment | {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1"}
    again = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True)
    assert (again.stdout, again.returncode) == (done.stdout, 0)


def test_names_and_repositories_that_cannot_be_are_refused(hub) -> None:
    with pytest.raises(DownloadError, match="leads out of it"):
        fetch(REPO, ["../../.bashrc"], cache_dir=hub.cache)
    with pytest.raises(DownloadError, match="Cannot fetch a.bin of a/b/c at main"):
        fetch("a/b/c", ["a.bin"], cache_dir=hub.cache)
    hub.cache.parent.mkdir(parents=True, exist_ok=True)
    hub.cache.write_text("a file where the cache should be")
    hub.files[REPO, NAMES[0]] = BODY
    with pytest.raises(DownloadError, match="cannot be used .*; change that, or pass another cache_dir"):
        fetch(REPO, NAMES, cache_dir=hub.cache)
