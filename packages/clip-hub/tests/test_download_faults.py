"""Hundreds of downloads that go wrong at random: never a wrong file, never a corrupt cache, always a way back."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import clip_core
import clip_hub
from clip_core.errors import ClipError
from clip_hub import DownloadError
from clip_hub.cache import RepositoryCache
from clip_hub.download import fetch
from hub_client import Client

REPO, NAME, SMALL = "someone/model", "model.safetensors", "config.json"
KINDS = ("401", "403", "404", "408", "429", "500", "502", "503", "504", "gated", "drop")
BODIES = ("cut", "cut", "flip", "short", "empty", "no range", "slow")
needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="clients are forked")


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client writes what it has in pieces of 10 MiB; with small files they have to be smaller to be kept."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 512)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 2)


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def check_cache(cache: Path, files: dict[tuple[str, str], bytes]) -> None:
    """Every blob has the hash that it is called by, and every file of a snapshot the bytes of the Hub."""
    for blob in cache.glob("models--*/blobs/*"):
        if blob.suffix == ".incomplete":
            continue
        data = blob.read_bytes()
        assert blob.name in (hashlib.sha256(data).hexdigest(), git_hash(data)), blob
    for path in cache.glob("models--*/snapshots/*/*"):
        repo = path.parents[2].name.removeprefix("models--").replace("--", "/")
        assert path.read_bytes() == files[repo, path.name], path


def try_to_fetch(name: str, cache: Path, files: dict[tuple[str, str], bytes]) -> bool:
    """Whether it came; what comes is right."""
    try:
        path = fetch(REPO, [name], cache_dir=cache)
    except DownloadError as error:
        told = str(error)
    else:
        assert path.read_bytes() == files[REPO, name]
        return True
    assert REPO in told
    assert name in told
    return False


def spoil(random_: random.Random, cache: Path) -> None:
    """What happens to a cache: a flipped byte, a lost link, a lost blob, an old part with right or wrong bytes."""
    blobs = sorted(path for path in cache.glob("models--*/blobs/*") if path.suffix != ".incomplete")
    if not blobs:
        return
    blob = random_.choice(blobs)
    data = bytearray(blob.read_bytes())
    what = random_.choice(["flip", "links", "blob", "part", "wrong part", "truncate", "marks"])
    if what == "flip":
        data[random_.randrange(len(data))] ^= 1
        blob.write_bytes(data)
    elif what == "truncate":
        blob.write_bytes(data[: len(data) // 2])
    elif what == "links":
        for path in cache.glob("models--*/snapshots/*/*"):
            path.unlink()
    elif what == "marks":
        for path in cache.glob("models--*/.verified/*"):
            path.write_text("{}")
    else:
        blob.unlink()
        if what != "blob":
            half = data[: random_.randrange(1, len(data))]
            if what == "wrong part":
                half[random_.randrange(len(half))] ^= 1
            blob.with_name(f"{blob.name}.incomplete").write_bytes(half)


@pytest.mark.parametrize(("runs", "locks"), [(200, True), (60, False)], ids=["locks", "no locks"])
def test_random_faults_never_give_a_wrong_file(hub, tmp_path: Path, caplog, monkeypatch, runs, locks) -> None:
    caplog.set_level("CRITICAL")
    if not locks:  # as on a file system of a cluster whose locks hold on one machine only
        monkeypatch.setattr(RepositoryCache, "lock", lambda *_: contextlib.nullcontext())
    random_ = random.Random(0)
    came = refused = 0
    for run in range(runs):
        cache = tmp_path / f"cache{run // 10}"  # some histories are long
        if run % 7 == 0:
            hub.files[REPO, NAME] = random_.randbytes(random_.randrange(1, 9000))
            hub.files[REPO, SMALL] = random_.randbytes(random_.randrange(1, 2000))
            shutil.rmtree(cache, ignore_errors=True)
        for _ in range(random_.randrange(1, 4)):
            body = random_.random() < 0.6
            hub.fail(
                random_.choice(BODIES if body else KINDS),
                random_.choice([NAME, SMALL, "*"]),
                times=random_.choice([1, 1, 2, 7, None]),
                at=random_.choice([None, random_.randrange(9000)]) if body else None,
                seconds=0.001,
            )
        results: list[bool] = []

        def client(name: str, cache: Path = cache, results: list[bool] = results) -> None:
            results.append(try_to_fetch(name, cache, hub.files))

        both = [threading.Thread(target=client, args=(random_.choice([NAME, NAME, SMALL]),)) for _ in range(2)]
        clients = both if run % 3 == 0 else both[:1]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        assert len(results) == len(clients), "a client ended by another error"
        came += sum(results)
        refused += len(results) - sum(results)
        check_cache(cache, hub.files)
        hub.heal()
        if random_.random() < 0.5:
            spoil(random_, cache)
        assert try_to_fetch(NAME, cache, hub.files), "nothing is wrong any more"
        assert try_to_fetch(SMALL, cache, hub.files)
    assert min(came, refused) > runs / 5, "the faults should neither always nor never matter"


@needs_fork
def test_a_killed_download_leaves_no_file_and_is_continued(hub) -> None:
    random_ = random.Random(1)
    home = hub.cache.parent
    continued = 0
    for run in range(25):
        name = f"{run}.safetensors"
        hub.files[REPO, name] = random_.randbytes(100_000)
        hub.fail("slow", name, times=1, seconds=0.01)
        client = Client(hub.url, home, REPO, name)
        until = time.monotonic() + 20
        while not any(request.file == name and "Signature" in request.path for request in hub.requests):
            assert time.monotonic() < until, "the client asked for nothing"
            time.sleep(0.001)
        time.sleep(random_.random() * 0.1)
        client.kill()
        check_cache(hub.cache, hub.files)
        before = len(hub.requests)
        assert try_to_fetch(name, hub.cache, hub.files)
        continued += any(request.range not in ("", "bytes=0-") for request in hub.requests[before:])
        assert not list(hub.cache.glob("models--*/blobs/*.incomplete"))
    assert continued > 5


@needs_fork
def test_two_processes_at_once_download_once(hub) -> None:
    hub.files[REPO, NAME] = bytes(range(256)) * 1000
    hub.fail("slow", NAME, seconds=0.02)
    clients = [Client(hub.url, hub.cache.parent, REPO, NAME) for _ in range(3)]
    paths = {client.answer() for client in clients}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == hub.files[REPO, NAME]
    assert sum("Signature" in request.path for request in hub.requests) == 1


@needs_fork
def test_a_full_disk_is_an_error_that_says_so_and_keeps_what_arrived(hub) -> None:
    hub.files[REPO, NAME] = bytes(range(256)) * 1000
    told = Client(hub.url, hub.cache.parent, REPO, NAME, room=100_000).answer()
    assert "error: Cannot fetch model.safetensors of someone/model at main: the disk is full; free some space" in told
    assert not list(hub.cache.glob("models--*/snapshots/*/*"))
    hub.requests.clear()
    assert try_to_fetch(NAME, hub.cache, hub.files)
    assert [request.range for request in hub.requests if "Signature" in request.path] == ["bytes=100000-"]


def test_random_faults_never_give_a_wrong_model(hub, tmp_path: Path, caplog) -> None:
    caplog.set_level("CRITICAL")
    torch.manual_seed(0)
    bundle = clip_core.create("tiny")
    hub.add(REPO, clip_core.save(bundle, tmp_path / "bundle"))
    expected = bundle.model.state_dict()
    random_ = random.Random(2)
    came = 0
    for run in range(8):
        hub.heal()
        for _ in range(2):
            hub.fail(random_.choice(KINDS + BODIES), "*.safetensors", times=random_.choice([1, 2, None]), seconds=0.001)
        with contextlib.suppress(ClipError):
            loaded = clip_hub.load(REPO, cache_dir=tmp_path / f"cache{run}").model.state_dict()
            assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
            came += 1
    assert 0 < came < 8
