"""The files of features on disk: rows are appended, and a run that was killed at any moment goes on where it was.

For `features.npy` there are, while it is made, `features.npy.partial` (a NumPy file whose header says 0 rows) and
`features.npy.journal`: a line with the settings, then a line for each batch whose rows are safely on disk. Rows that
the journal does not have are cut off when the run goes on. The results get their names only when they are complete:
`features.npy.names.txt` (row by row), `features.npy.broken.jsonl` (where images were broken), `features.npy` and, last
of all, `features.npy.json`, the provenance. What this room leaves out: what the rows mean.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from clip_core.errors import ConfigError, DataError, StorageError
from clip_core.schema import JSON

__all__ = ["HEADER_BYTES", "Store", "Writer"]

HEADER_BYTES = 128
"""Of a NumPy file, version 1.0; a fixed number, so that the count of rows can be written when it is known."""

Writer = Callable[[Path, Path, Sequence[str], JSON], None]
"""(NumPy file, file to write, names of the rows, provenance): makes another format of the same rows."""


class Store:
    """Features (rows, width) of float32 on their way into `target`.

    Attributes:
        items: how many images have been dealt with, broken ones included.
        rows: how many rows are on disk.
        broken: (index of the image, reason) of those without a row.
        complete: whether the results were there already; nothing can be appended then.
    """

    def __init__(self, target: str | os.PathLike[str], width: int, total: int, settings: JSON) -> None:
        """Begin, or go on where a run with the same `settings` stopped.

        Args:
            target: the file to make.
            width: numbers in a row.
            total: how many images there are.
            settings: what decides the rows, as JSON; results made with others are never mixed or replaced.

        Raises:
            ConfigError: the target exists and was made with other settings or by something else.
            DataError: the partial files are damaged.
            StorageError: nothing can be written there, or another process is writing.
        """
        self.target = Path(target)
        self.width = width
        self.total = total
        self.settings: JSON = json.loads(json.dumps(settings))
        self.items = self.rows = 0
        self.broken: list[tuple[int, str]] = []
        self.names_file = self._beside("names.txt")
        self.broken_file = self._beside("broken.jsonl")
        self.provenance_file = self._beside("json")
        self._partial = self._beside("partial")
        self._journal_file = self._beside("journal")
        self.complete = self._find_complete()
        if self.complete:
            self._remove_partial()
            return
        if self.target.exists() and not self._journal_file.exists():
            raise ConfigError(f"{self.target} exists and has no {self.provenance_file.name} beside it; choose another.")
        with _writing(self.target):
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._journal: IO[bytes] = open(self._journal_file, "a+b")  # noqa: SIM115  (for the life of this object)
            try:
                _lock(self._journal)
                self._go_on()
            except BaseException:
                self._journal.close()
                raise

    def append(self, items: int, features: npt.NDArray[np.float32], broken: Sequence[tuple[int, str]]) -> None:
        """Add the next `items` images: the rows of the good ones, and the others with reasons.

        The rows are on disk before the journal says so; it never says what is not there.
        """
        if features.shape != (items - len(broken), self.width):
            raise ValueError(f"{items} images, {len(broken)} of them broken, have features {features.shape}")
        with _writing(self.target):
            if len(features):
                self._file.write(np.ascontiguousarray(features, dtype="<f4").tobytes())
                _to_disk(self._file)
            self.items += items
            self.rows += len(features)
            self.broken += broken
            self._note({"items": self.items, "rows": self.rows, "broken": list(broken)})

    def finish(self, names: Sequence[str], provenance: JSON, writer: Writer | None = None) -> None:
        """Give the results their names. `names` are those of all images, in the order in which they came.

        Args:
            provenance: what stands in the JSON file beside the settings and the counts.
            writer: makes the target out of a NumPy file; default the NumPy file is the target. It is given the rows'
                names as well, and then there is no file of names.
        """
        gone = dict(self.broken)
        kept = [name for index, name in enumerate(names) if index not in gone]
        if len(names) != self.items or len(kept) != self.rows:
            raise ValueError(f"{len(names)} names for {self.items} images and {self.rows} rows")
        counts = {"rows": self.rows, "dimensions": self.width, "dtype": "float32", "broken": len(self.broken)}
        record = {**counts, **provenance, "settings": self.settings}
        with _writing(self.target):
            if self._partial.exists():
                self._file.seek(0)
                self._file.write(_header(self.rows, self.width))
                _to_disk(self._file)
            self._file.close()
            if writer is None:
                _write(self.names_file, "".join(f"{name}\n" for name in kept))
            if gone:
                _write(self.broken_file, "".join(_line({"name": names[i], "reason": why}) for i, why in self.broken))
            if writer is None:
                if self._partial.exists():
                    os.replace(self._partial, self.target)
            else:
                scratch = self._beside("writing")
                writer(self._partial, scratch, kept, record)
                os.replace(scratch, self.target)
            _write(self.provenance_file, json.dumps(record, indent=2) + "\n")
            self._journal.close()
            self._remove_partial()

    def close(self) -> None:
        """Let go of the files; what was appended is safe."""
        if not self.complete:
            self._journal.close()
            self._file.close()

    def _beside(self, ending: str) -> Path:
        return self.target.with_name(f"{self.target.name}.{ending}")

    def _find_complete(self) -> bool:
        """Whether the results are there and made with these settings; notes their counts."""
        if not self.provenance_file.exists():
            return False
        try:
            record = json.loads(self.provenance_file.read_text(encoding="utf-8"))
            there = record["settings"]
            self.rows, self.items = int(record["rows"]), int(record["rows"]) + int(record["broken"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.provenance_file} exists and is not of this command; choose another name."
            ) from error
        self._same(there, "exists")
        if not self.target.exists():
            raise ConfigError(f"{self.provenance_file} exists, {self.target.name} does not; remove it to begin again.")
        return True

    def _same(self, there: JSON, what: str) -> None:
        """Raises `ConfigError` unless the settings `there` are the ones asked for."""
        if there != self.settings:
            keys = [key for key in {**there, **self.settings} if there.get(key) != self.settings.get(key)]
            values = ", ".join(
                f"{key} ({_short(there.get(key))} there, {_short(self.settings.get(key))} asked)" for key in keys
            )
            raise ConfigError(
                f"{self.target} {what} with other settings: {values}. Choose another name, or remove it and the files "
                "beside it."
            )

    def _go_on(self) -> None:
        """Read the journal, cut off what it does not vouch for, and open the file of rows at its end."""
        self._journal.seek(0)
        good = 0
        for number, line in enumerate(self._journal):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                entry = None
            if entry is None:
                break
            good += len(line)
            if number == 0:
                self._same(entry, "was begun")
            else:
                self.items, self.rows = entry["items"], entry["rows"]
                self.broken += [(index, reason) for index, reason in entry["broken"]]
        self._journal.truncate(good)
        self._journal.seek(0, os.SEEK_END)
        if not good:
            self._note(self.settings)
        if self.items == self.total and self.target.exists() and not self._partial.exists():
            # Killed between its last steps: the rows have their name already, and only the provenance is missing.
            self._file: IO[bytes] = open(self.target, "rb")  # noqa: SIM115
            return
        if self.rows and not self._partial.exists():
            raise DataError(f"{self._partial} is missing; remove {self._journal_file} too to begin again.")
        self._file = open(self._partial, "r+b" if self._partial.exists() else "w+b")  # noqa: SIM115
        wanted = HEADER_BYTES + self.rows * self.width * 4
        held = self._file.seek(0, os.SEEK_END)
        if self.rows and held < wanted:
            self._file.close()
            raise DataError(
                f"{self._partial} has {held} bytes and its journal speaks of {wanted}: it is damaged. Remove both to "
                "begin again."
            )
        self._file.seek(0)
        self._file.write(_header(0, self.width))
        self._file.truncate(wanted)
        self._file.seek(wanted)

    def _note(self, entry: JSON) -> None:
        self._journal.write(_line(entry).encode())
        _to_disk(self._journal)

    def _remove_partial(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._journal_file.unlink(missing_ok=True)


def _header(rows: int, width: int) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}"
    size = HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + size.to_bytes(2, "little") + text.ljust(size - 1).encode() + b"\n"


def _line(entry: Any) -> str:
    return json.dumps(entry) + "\n"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:36]} ..."


def _write(path: Path, text: str) -> None:
    """Write `path` whole or not at all."""
    scratch = path.with_name(path.name + ".writing")
    with open(scratch, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        _to_disk(file)
    os.replace(scratch, path)


def _to_disk(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _lock(file: IO[bytes]) -> None:
    """Keep other processes out until `file` is closed or this process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StorageError(f"Another process is writing {file.name}; wait for it, or choose another name.") from error


@contextlib.contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(
            f"Cannot write {target}: {error}. What was written before is safe; make room and run the command again."
        ) from error
