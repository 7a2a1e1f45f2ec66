"""One split of a data set in a repository of the Hub, through clip-hub into huggingface_hub's cache.

All files are of one commit, verified by the hash that the Hub states.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path, PurePosixPath

from clip_core.errors import DataError, listed
from clip_eval.places.address import HubRepository
from clip_eval.places.facts import DatasetFacts, check_room, count_file, read_samples, shard_names, small_files
from clip_eval.wds.text_files import read_count
from clip_hub.contents import RepositoryContents, RepositoryFile, repository_files
from clip_hub.download import fetch
from clip_hub.transfer import Token

__all__ = ["HubSplit"]


class HubSplit:
    """One split in a repository of the Hub."""

    def __init__(self, place: HubRepository, split: str, cache_dir: str | PathLike[str] | None, token: Token) -> None:
        self._place, self._split, self._cache_dir, self._token = place, split, cache_dir, token
        self._contents = repository_files(
            place.repo, revision=place.revision, repo_type="dataset", cache_dir=cache_dir, token=token
        )
        self._files = {file.path: file for file in self._contents.files}
        captions = [name for name in self._files if name.startswith(self._name(f"{split}/captions/"))]
        small = [self._name(name) for name in (*small_files(split), count_file(split))]
        self._small = [*captions, *(name for name in small if name in self._files)]

    def fetch(self, progress: bool) -> Path:
        from tqdm.auto import tqdm

        folder = self._root()
        shards = self._shards(folder)
        missing = [file for file in shards if not file.cached]
        check_room(sum(file.size for file in missing), folder, self._place.repo)
        with _quiet_client(progress), tqdm(shards, self._place.repo, unit=" shards", disable=not progress) as bar:
            for file in bar:
                self._fetch(file.path)
        return folder

    def describe(self, told: str) -> DatasetFacts:
        with _quiet_client(False):
            folder = self._root()
        shards = self._shards(folder)
        small = [self._files[name] for name in self._small]
        cached = sum(file.size for file in shards if file.cached) + sum(file.size for file in small)
        return DatasetFacts(
            address=told,
            place="hub",
            revision=self._contents.commit,
            folder=folder if all(file.cached for file in shards) else None,
            shards=len(shards),
            files=len(shards) + len(small),
            bytes=sum(file.size for file in (*shards, *small)),
            bytes_cached=cached,
            samples=read_samples(folder / self._split),
        )

    def _root(self) -> Path:
        """The data set's folder in the cache, with its small files."""
        count = self._name(count_file(self._split))
        if count not in self._files:
            raise DataError(_no_split(self._place, self._split, self._contents))
        for name in self._small:
            path = self._fetch(name)
        return path.parents[len(PurePosixPath(self._split).parts)]

    def _shards(self, folder: Path) -> list[RepositoryFile]:
        names = shard_names(self._split, read_count(folder / count_file(self._split)))
        missing = [name for name in names if self._name(name) not in self._files]
        if missing:
            raise DataError(
                f"{self._place.repo} at {self._contents.commit}: nshards.txt says {len(names)} shard(s), and the "
                f"repository lacks {listed(missing)}."
            )
        return [self._files[self._name(name)] for name in names]

    def _name(self, name: str) -> str:
        return f"{self._place.folder}/{name}" if self._place.folder else name

    def _fetch(self, name: str) -> Path:
        return fetch(
            self._place.repo,
            [name],
            revision=self._contents.commit,
            repo_type="dataset",
            cache_dir=self._cache_dir,
            token=self._token,
        )


def _no_split(place: HubRepository, split: str, contents: RepositoryContents) -> str:
    paths = [PurePosixPath(file.path) for file in contents.files]
    base = PurePosixPath(place.folder)
    splits = sorted(
        str(path.parent.relative_to(base)) for path in paths if path.name == "nshards.txt" and path.is_relative_to(base)
    )
    there = f"Splits there: {', '.join(splits)}." if splits else "It holds no data set of this layout."
    return (
        f"{place.repo} at {contents.commit}: has no {count_file(split)}, so no split {split!r} that could be known "
        f"to be whole. {there}"
    )


@contextmanager
def _quiet_client(progress: bool) -> Iterator[None]:
    """huggingface_hub shows a bar for every file unless it is told not to."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if progress or are_progress_bars_disabled():
        yield
        return
    with warnings.catch_warnings():  # where its environment variable has the last word
        warnings.simplefilter("ignore")
        disable_progress_bars()
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            enable_progress_bars()
