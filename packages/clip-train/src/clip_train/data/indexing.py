"""From the address of a shard to what is trained on of it: found in an index, or scanned and written down.

An index is built once, by any process that needs it, and used by all. A damaged shard keeps the samples that can be
read; where it was indexed while it was whole, the numbers of all samples stay as they were, and so does the order.
What this room leaves out: the samples of all shards together (`shards`).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import logging
import multiprocessing
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from clip_train.cores import own_cores
from clip_train.data.addresses import is_remote
from clip_train.data.fetching import ShardCache
from clip_train.data.rows import Rows, Selection, load_rows, save_rows, select
from clip_train.data.scan import scan_tar
from clip_train.data.source import Progress
from clip_train.data.table import Identity, ShardTable, index_places, load_table, local_identity, save_table

__all__ = ["Indexed", "Indexer"]

_log = logging.getLogger(__name__)
# Fewer shards are not worth starting processes for.
_FEW = 8
_FETCHES = 8
# Seconds between two lines of the log that say how far it is.
_SAID = 60.0


@dataclasses.dataclass
class Indexed:
    """One shard."""

    identity: Identity
    digest: str
    extensions: tuple[str, ...]
    rows: Rows
    damage: tuple[str, ...]
    lost: int | None
    """Samples that are lost to damage; None where nobody knows how many there were."""
    built: bool
    """Whether the shard was scanned for it."""


@dataclasses.dataclass(frozen=True)
class Indexer:
    """What is asked of each shard, and where things are kept. Pickles."""

    selection: Selection
    cache: ShardCache | None
    """Where shards that lie elsewhere are brought."""
    folder: Path | None
    """Where an index goes that cannot lie beside its shard."""

    def all(
        self, addresses: Sequence[str], *, rank: int = 0, ranks: int = 1, progress: Progress = lambda done, total: None
    ) -> list[Indexed]:
        """All shards, several at a time; `progress` is told how many of how many are done.

        Each of `ranks` processes begins elsewhere, so that together they scan each shard about once. Raises
        `DataError` for the first shard that cannot be used.
        """
        before = time.monotonic()
        turn = len(addresses) * rank // ranks
        order = [*range(turn, len(addresses)), *range(turn)]
        work = [addresses[number] for number in order]
        found: dict[int, Indexed] = {}
        said = before
        for number, each in zip(order, self._several(work, ranks), strict=True):
            found[number] = each
            progress(len(found), len(work))
            if time.monotonic() - said > _SAID:
                said = time.monotonic()
                _log.info("indexed %d of %d shards so far", len(found), len(work))
        result = [found[number] for number in range(len(addresses))]
        built = sum(each.built for each in result)
        if built:
            _log.info("indexed %d of %d shards in %.1f s", built, len(addresses), time.monotonic() - before)
        return result

    def _several(self, addresses: Sequence[str], ranks: int) -> Iterator[Indexed]:
        if any(map(is_remote, addresses)):
            with concurrent.futures.ThreadPoolExecutor(min(_FETCHES, len(addresses))) as threads:
                yield from threads.map(self.one, addresses)
            return
        processes = min(own_cores() // ranks, len(addresses) // _FEW)
        if processes < 2:
            yield from map(self.one, addresses)
            return
        # As in `loader`: forked where that is safe; what runs there takes no lock of another thread.
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This process .* is multi-threaded", category=DeprecationWarning)
            with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
                yield from pool.map(self.one, addresses, chunksize=4)

    def one(self, address: str) -> Indexed:
        """One shard. Raises `DataError` when it cannot be read, or is none."""
        places = index_places(address, self.folder)
        tables = [(place, table) for place in places if (table := load_table(place)) is not None]
        identity = self._identity(address)
        for place, table in tables:
            if _is_current(table.identity, identity):
                return self._selected(address, place, table, built=False)
        before = max((table for _, table in tables), key=len, default=None)
        table = self._scan(address, identity)
        if table.damage and before is not None and _is_same_shard(table, before):
            table = table.keep_numbers_of(before)
        kept = next((place for place in places if save_table(table, place)), None)
        if kept is None:
            _log.warning("%s: its index can be kept nowhere, so it is built at every start; see --data-cache", address)
        return self._selected(address, kept, table, built=True)

    def _identity(self, address: str) -> Identity | None:
        if not is_remote(address):
            return local_identity(address)
        return self._shards.ask(address)

    @property
    def _shards(self) -> ShardCache:
        assert self.cache is not None, "a shard that lies elsewhere needs a folder to be brought to"
        return self.cache

    def _scan(self, address: str, identity: Identity | None) -> ShardTable:
        if not is_remote(address):
            assert identity is not None
            return ShardTable.of(address, identity, scan_tar(address))
        path, arrived = self._shards.fetch(address)
        scan = scan_tar(path)
        if scan.damage:
            # It may have been damaged on its way.
            _log.warning("%s: damaged (%s); fetching it again", address, scan.damage[0])
            self._shards.forget(address, arrived)
            path, arrived = self._shards.fetch(address)
            scan = scan_tar(path)
        return ShardTable.of(address, arrived, scan)

    def _selected(self, address: str, place: Path | None, table: ShardTable, *, built: bool) -> Indexed:
        rows = load_rows(place, table, self.selection) if place is not None else None
        if rows is None:
            path = address
            if is_remote(address):
                path = str(self._shards.get(address, table.identity)) if self.selection.filter is not None else ""
            rows = select(table, self.selection, path)
            if place is not None:
                save_rows(place, table, self.selection, rows)
        unreadable = rows.mark_lost(table)
        return Indexed(
            identity=table.identity,
            digest=table.digest,
            extensions=table.extensions,
            rows=rows,
            damage=table.damage,
            lost=_count_lost(address, table, rows, unreadable) if table.damage else 0,
            built=built,
        )


def _is_current(held: Identity, found: Identity | None) -> bool:
    # Nothing can be asked about what a command writes; its bytes are compared when it is run.
    return found is None or (held.size, held.version) == (found.size, found.version)


def _is_same_shard(table: ShardTable, before: ShardTable) -> bool:
    known = {before.key(number) for number in range(len(before))}
    shared = sum(table.key(number) in known for number in range(len(table)))
    return 2 * shared >= len(table) and len(before) >= len(table)


def _count_lost(address: str, table: ShardTable, rows: Rows, unreadable: int) -> int | None:
    """How many samples damage has cost: by an earlier index, or by the count that the writer of the shard left."""
    if table.lost:
        return unreadable
    stated = None if is_remote(address) else _stated_count(Path(address))
    complete = len(rows) + sum(rows.filtered.values())
    return None if stated is None or stated < complete else stated - complete


def _stated_count(path: Path) -> int | None:
    """From sizes.json, as open_clip reads it, or 00000_stats.json, as img2dataset writes it."""
    for name, key in (("sizes.json", path.name), (f"{path.stem}_stats.json", "successes")):
        try:
            return int(json.loads((path.parent / name).read_text(encoding="utf-8"))[key])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None
