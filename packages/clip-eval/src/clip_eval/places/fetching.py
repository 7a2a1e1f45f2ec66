"""From the address of a data set to a folder on this machine, and what that would cost.

Only what one split needs is fetched, shard by shard, with one policy for what is tried again (`clip_hub.retrying`).
A repository of the Hub comes through clip-hub into huggingface_hub's cache, verified by sha256, all files of one
commit. Anything else comes into a cache of our own, see `mirror`. `HF_HUB_OFFLINE=1` forbids the network to both.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path, PurePosixPath

from clip_core.errors import DataError
from clip_eval.places.address import Folder, HubRepository, Place, Url, resolve_root, take_apart, without_secrets
from clip_eval.places.facts import DatasetFacts, count_file, read_samples, shard_names, small_files
from clip_eval.places.hub import HubSplit
from clip_eval.places.site import SiteSplit
from clip_eval.wds.text_files import read_count
from clip_hub.transfer import Token

__all__ = ["DatasetFacts", "describe_dataset", "fetch_dataset", "origin_of"]


def fetch_dataset(
    address: str | PathLike[str],
    *,
    root: str | PathLike[str] | None = None,
    split: str = "test",
    cache_dir: str | PathLike[str] | None = None,
    revision: str | None = None,
    token: Token = None,
    progress: bool = False,
) -> Path:
    """The folder on this machine that holds one split of a data set whole; what is missing is fetched.

    Args:
        address: a folder, "org/name" of the Hub, "hf://datasets/org/name@revision", the address of its page, or any
            URL of a folder that fsspec or a web server knows.
        root: where data sets lie, if `address` is only the name of one; may have `{dataset_cleaned}` in it.
        split: which split; the others are not fetched.
        cache_dir: default huggingface_hub's for its repositories, and "clip-eval" in its `HF_HOME` for other addresses.
        revision: of the repository, instead of the one in the address.
        token: of the Hub; default the one of `hf auth login`, False for none.
        progress: show a bar on stderr.

    Raises:
        DataError: there is no such folder or split, or it is no data set.
        DownloadError: not found, no access, no network, or bytes that are not the promised ones.
        StorageError: there is not enough room for it.
    """
    place = _place(address, root, revision)
    if isinstance(place, Folder):
        if not place.path.is_dir():
            raise DataError(f"{place.path}: no such data set folder. Check the path.")
        return place.path
    if isinstance(place, HubRepository):
        return HubSplit(place, split, cache_dir, token).fetch(progress)
    return SiteSplit(place, split, cache_dir).fetch(progress)


def describe_dataset(
    address: str | PathLike[str],
    *,
    root: str | PathLike[str] | None = None,
    split: str = "test",
    cache_dir: str | PathLike[str] | None = None,
    revision: str | None = None,
    token: Token = None,
) -> DatasetFacts:
    """What `fetch_dataset` with these arguments would fetch; of the files themselves only small ones are read.

    Raises:
        DataError, DownloadError: as `fetch_dataset`.
    """
    place = _place(address, root, revision)
    told = str(address) if root is None else resolve_root(str(address), str(root))
    if isinstance(place, Folder):
        return _describe_folder(place.path, told, split)
    if isinstance(place, HubRepository):
        return HubSplit(place, split, cache_dir, token).describe(told)
    return SiteSplit(place, split, cache_dir).describe(told)


def origin_of(address: str | PathLike[str], folder: Path) -> dict[str, str | None]:
    """Where `folder`, which `fetch_dataset(address)` gave, was fetched from, for a record.

    "address" is without what may be secret in a URL: the user, the password and the query. "revision" is the commit of
    the Hub. Both are None for a folder of this machine.
    """
    place = take_apart(address)
    if isinstance(place, HubRepository):
        depth = len(PurePosixPath(place.folder).parts)
        snapshot = folder.parents[depth - 1] if depth else folder
        commit = snapshot.name if snapshot.parent.name == "snapshots" else None
        held = f"/{place.folder}" if place.folder else ""
        return {"address": f"hf://datasets/{place.repo}{held}", "revision": commit}
    if isinstance(place, Url):
        return {"address": without_secrets(place.url), "revision": None}
    return {"address": None, "revision": None}


def _place(address: str | PathLike[str], root: str | PathLike[str] | None, revision: str | None) -> Place:
    place = take_apart(address if root is None else resolve_root(str(address), str(root)))
    if revision is None:
        return place
    if not isinstance(place, HubRepository):
        raise DataError(f"{address}: only a repository of the Hub has revisions; leave revision={revision!r} out.")
    return HubRepository(place.repo, revision, place.folder)


def _describe_folder(folder: Path, told: str, split: str) -> DatasetFacts:
    if not (folder / split).is_dir():
        raise DataError(f"{folder}: no such data set folder, or no split {split!r} in it. Check the path.")
    names = shard_names(split, read_count(folder / count_file(split)))
    paths = [folder / name for name in (*small_files(split), count_file(split), *names)]
    sizes = [path.stat().st_size for path in paths if path.is_file()]
    return DatasetFacts(
        address=told,
        place="folder",
        revision="",
        folder=folder,
        shards=len(names),
        files=len(sizes),
        bytes=sum(sizes),
        bytes_cached=sum(sizes),
        samples=read_samples(folder / split),
    )
