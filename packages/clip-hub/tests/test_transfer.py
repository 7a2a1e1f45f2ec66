"""What the client says, in our words: causes, cures, and which of them another try may help."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from clip_hub.retrying import Broken, retrying
from clip_hub.transfer import CannotFetch, Missing, ask, is_full_disk, receive

REPO, NAME = "someone/model", "model.safetensors"
BODY = bytes(range(256)) * 4000


def test_the_hub_promises_address_hash_commit_and_size(hub) -> None:
    hub.files[REPO, NAME] = BODY
    promise = ask(REPO, NAME, "main", None)
    stored = hub.repositories[REPO].refs["main"]
    assert (promise.etag, promise.commit, promise.size) == (stored.files[NAME].sha256, stored.id, len(BODY))
    assert promise.url.startswith(hub.cdn)
    assert not promise.xet


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("401", CannotFetch, "does not know the token"),
        ("403", CannotFetch, "ask its owner for access"),
        ("gated", CannotFetch, "accept its terms"),
        ("429", Broken, "429 .it asks to wait"),
        ("503", Broken, "503 .it has trouble"),
        ("drop", Broken, "no connection that holds"),
    ],
)
def test_causes_of_a_refusal(hub, fault, kind, words) -> None:
    hub.files[REPO, NAME] = BODY
    hub.fail(fault, NAME, retry_after=9)
    with pytest.raises(kind, match=words) as caught:
        ask(REPO, NAME, "main", None)
    if fault == "429":
        assert caught.value.after == 9


def test_what_is_not_there(hub) -> None:
    hub.files[REPO, NAME] = BODY
    with pytest.raises(Missing) as caught:
        ask(REPO, "other", "main", None)
    assert caught.value.commit == hub.repositories[REPO].refs["main"].id
    with pytest.raises(CannotFetch, match="no such repository"):
        ask("someone/other", NAME, "main", None)
    with pytest.raises(CannotFetch, match="no such revision"):
        ask(REPO, NAME, "v2", None)
    with pytest.raises(CannotFetch, match="write org/name"):
        ask("a/b/c", NAME, "main", None)


def test_bytes_are_appended_from_where_they_stopped(hub, tmp_path: Path) -> None:
    hub.files[REPO, NAME] = BODY
    promise = ask(REPO, NAME, "main", None)
    part = tmp_path / "part"
    part.write_bytes(BODY[:1000])
    receive(REPO, NAME, promise, part, hub.token)
    assert part.read_bytes() == BODY
    last = hub.requests[-1]
    assert (last.range, last.token) == ("bytes=1000-", "")
    part.write_bytes(BODY + b"more")
    receive(REPO, NAME, promise, part, None)
    assert part.read_bytes() == BODY


def test_a_server_that_knows_no_ranges_starts_again(hub, tmp_path: Path) -> None:
    hub.files[REPO, NAME] = BODY
    hub.fail("no range", NAME)
    part = tmp_path / "part"
    part.write_bytes(BODY[:1000])
    promise = ask(REPO, NAME, "main", None)
    # Before 1.0 the client appended the whole to what was there; the next try notices.
    retrying(lambda: receive(REPO, NAME, promise, part, None), NAME)
    assert part.read_bytes() == BODY


@pytest.mark.parametrize(("fault", "words"), [("short", "bytes arrived"), ("empty", "0 of 1024000"), ("503", "503")])
def test_a_body_that_is_not_whole_may_be_tried_again(hub, tmp_path: Path, fault, words) -> None:
    hub.files[REPO, NAME] = BODY
    promise = ask(REPO, NAME, "main", None)
    hub.fail(fault, NAME)
    with pytest.raises(Broken, match=words):
        receive(REPO, NAME, promise, tmp_path / "part", None)


def test_full_disks_are_known_by_their_number() -> None:
    assert all(is_full_disk(OSError(number, "")) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    assert not is_full_disk(OSError(errno.EACCES, ""))
