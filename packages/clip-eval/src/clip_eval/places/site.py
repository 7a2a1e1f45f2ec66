"""One split of a data set at a URL, mirrored into a cache on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from clip_core.errors import DataError
from clip_eval.languages import stated_files
from clip_eval.places.address import Url
from clip_eval.places.facts import DatasetFacts, check_room, count_file, read_samples, shard_names, small_files
from clip_eval.places.mirror import Mirror
from clip_eval.places.stores import open_store
from clip_eval.wds.manifest import read_manifest
from clip_eval.wds.text_files import read_count
from clip_hub.download import DownloadError
from clip_hub.transfer import CannotFetch

__all__ = ["SiteSplit"]


class SiteSplit:
    """One split at a URL."""

    def __init__(self, place: Url, split: str, cache_dir: str | PathLike[str] | None) -> None:
        from huggingface_hub import constants

        self._split, self._url = split, place.url
        home = Path(cache_dir) if cache_dir is not None else Path(constants.HF_HOME) / "clip-eval"
        store = None if constants.HF_HUB_OFFLINE else lambda: open_store(place.url)
        self._mirror = Mirror(place.url, place.name, home.expanduser() / "datasets", store)

    def fetch(self, progress: bool) -> Path:
        from tqdm.auto import tqdm

        mirror, split = self._mirror, self._split
        with self._told(), mirror.locked():
            names = self._small_files()
            manifest = read_manifest(mirror.folder / split)
            sizes = [mirror.look(name) for name in names]
            check_room(sum(size or 0 for size, cached in sizes if not cached), mirror.folder, self._url)
            total = sum(size or 0 for size, _ in sizes)
            if manifest is not None and len(manifest.shards) != len(names):
                raise DataError(
                    f"{self._url}/{split}: nshards.txt says {len(names)} shard(s), its manifest {len(manifest.shards)}."
                )
            with tqdm(total=total, desc=self._url, unit="B", unit_scale=True, disable=not progress) as bar:
                for number, name in enumerate(names):
                    digest = manifest.shards[number].sha256 if manifest is not None else ""
                    if mirror.bring(name, sha256=digest, arrived=bar.update) is None:
                        raise DataError(
                            f"{self._url}/{name}: there is no such file, but nshards.txt says {len(names)} shard(s)."
                        )
            mirror.complete(split, [*self._small(), count_file(split), *names])
        return mirror.folder

    def describe(self, told: str) -> DatasetFacts:
        mirror, split = self._mirror, self._split
        with self._told(), mirror.locked():
            names = self._small_files()
            shards = [mirror.look(name) for name in names]
            small = [mirror.folder / name for name in (*self._small(), count_file(split))]
            sizes = [path.stat().st_size for path in small if path.is_file()]
            return DatasetFacts(
                address=told,
                place="url",
                revision="",
                folder=mirror.folder if all(cached for _, cached in shards) else None,
                shards=len(names),
                files=len(names) + len(sizes),
                bytes=sum(size or 0 for size, _ in shards) + sum(sizes),
                bytes_cached=sum(size or 0 for size, cached in shards if cached) + sum(sizes),
                samples=read_samples(mirror.folder / split),
            )

    def _small(self) -> list[str]:
        """Files that the data set may have, once `_small_files` has brought them."""
        return [*small_files(self._split), *stated_files(self._mirror.folder, self._split)]

    def _small_files(self) -> list[str]:
        """Brings the small files and gives the names of the shards."""
        mirror, split = self._mirror, self._split
        if mirror.bring(count_file(split)) is None:
            raise DataError(
                f"{self._url}/{count_file(split)}: there is no such file, so this is no data set with a split "
                f"{split!r}. It holds the number of shards; without it a lost shard goes unseen."
            )
        for name in small_files(split):
            mirror.bring(name)
        for name in stated_files(mirror.folder, split):
            mirror.bring(name)
        return shard_names(split, read_count(mirror.folder / count_file(split)))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except CannotFetch as error:  # the store cannot be opened at all
            raise DownloadError(f"Cannot fetch {self._url}: {error}.") from error
