"""The folder of a run, `<logs>/<name>/`: config.json first, then out.log, metrics.jsonl, checkpoints/, summary.json and
bundle/.

A folder that holds a run is written into again only by that run, when it goes on (`--resume`), and by one program at a
time.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_core.errors import ConfigError, StorageError
from clip_train.config import TrainConfig

__all__ = ["RunFolder", "default_name", "early_log", "log_level"]

_HELD = ("config.json", "metrics.jsonl", "out.log", "summary.json", "bundle", "checkpoints")
_log = logging.getLogger(__name__)
_PACKAGES = ("clip_core", "clip_hub", "clip_eval", "clip_train")


def default_name(config: TrainConfig) -> str:
    """Date and main settings as open_clip writes them: "2026_11_21-06_00_00-model_tiny-lr_0.001-b_256-j_2-p_fp32"."""
    model = config.model.model.replace("/", "-")
    return "-".join(
        (
            time.strftime("%Y_%m_%d-%H_%M_%S"),
            f"model_{model}",
            f"lr_{config.optim.lr:g}",
            f"b_{config.optim.batch_size}",
            f"j_{config.data.workers}",
            f"p_{config.run.precision}",
        )
    )


class RunFolder:
    """The paths of one run. `create` makes the folder; nothing else does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.log = path / "out.log"
        self.summary = path / "summary.json"
        self.bundle = path / "bundle"
        self.checkpoints = path / "checkpoints"

    @classmethod
    def check(cls, config: TrainConfig, *, bytes_needed: int = 0, again: bool = False) -> None:
        """Find out early, and without writing, what would make `create` or the end of the run fail.

        Raises `ConfigError` when the named folder already holds a run, `StorageError` when the disk has less room
        than `bytes_needed`. `again`: the folder may hold a run, which goes on.
        """
        if config.run.name is not None and not again:
            folder = cls(Path(config.run.logs) / config.run.name)
            if folder._is_held():
                raise ConfigError(folder._held_message())
        place = Path(config.run.logs).absolute()
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if free < bytes_needed:
            raise StorageError(
                f"--logs {config.run.logs} has room for {free / 1e6:.0f} MB, and the weights alone need "
                f"{bytes_needed / 1e6:.0f} MB. Make room or choose another folder."
            )

    def _is_held(self) -> bool:
        return any((self.path / name).exists() for name in _HELD)

    def _held_message(self) -> str:
        return (
            f"{self.path} already holds a run, which is never overwritten. Choose another --name, leave it out for "
            "a name with the date, or move the folder away."
        )

    @classmethod
    def create(cls, config: TrainConfig, *, again: bool = False) -> tuple[RunFolder, TrainConfig]:
        """Make the folder and write config.json; returns the configuration with the name that was chosen.

        `again`: a folder that holds a run is left as it is, for the run to go on.

        Raises `ConfigError` when the named folder already holds a run, is no folder, or cannot be made.
        """
        names = [config.run.name] if config.run.name is not None else _names(default_name(config))
        for name in names:
            folder = cls(Path(config.run.logs) / name)
            resolved = config.replace(name=name)
            if again and folder._is_held():
                return folder, resolved
            try:
                folder._claim(resolved)
            except FileExistsError:
                continue
            except OSError as error:
                raise ConfigError(
                    f"The run folder {folder.path} cannot be written: {error.strerror or error}."
                ) from error
            return folder, resolved
        if not folder.path.is_dir():
            raise ConfigError(f"{folder.path} is there already and is no folder. Choose another --name or --logs.")
        raise ConfigError(folder._held_message())

    def _claim(self, config: TrainConfig) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        if self._is_held():
            raise FileExistsError(self.path)
        # Of two runs that start at once, one creates the file and the other gets FileExistsError.
        with self.config.open("x", encoding="utf-8") as file:
            file.write(json.dumps(config.to_json(), indent=2, allow_nan=False) + "\n")

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other programs out of the folder; the system lets go when this process ends, however it ends.

        Raises `ConfigError` where another program holds it.
        """
        if sys.platform == "win32":
            yield
            return
        import fcntl

        with self.log.open("a") as file:
            try:
                # A lock of this kind is not handed on to data workers, which may outlive a process that is killed. It
                # is gone when this process closes the file, so nothing here opens out.log but to write on to its end.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise ConfigError(
                    f"Another program is training in {self.path}. Wait until it has ended, or end it, and try again."
                ) from error
            except OSError as error:
                _log.debug("%s cannot be locked: %s", self.path, error)
            yield

    def rewrite_config(self, config: TrainConfig) -> None:
        """State what the run is from here on, and take away what was said when it ended before."""
        text = json.dumps(config.to_json(), indent=2, allow_nan=False) + "\n"
        scratch = self.config.with_name(".config.json")
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(self.config)
        self.summary.unlink(missing_ok=True)

    def copy_code(self) -> None:
        """Put the source of the four packages, as it is installed, into code/."""
        for name in _PACKAGES:
            source = Path(str(importlib.import_module(name).__file__)).parent
            skipped = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source, self.path / "code" / name, ignore=skipped, dirs_exist_ok=True)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json."""
        self.summary.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")

    @contextlib.contextmanager
    def logging(self, *, debug: bool, rank: int = 0) -> Iterator[None]:
        """Everything that the four packages log goes to out.log too, from INFO (or DEBUG) on; see `--log-local`."""
        # On another host the folder may be another one.
        self.path.mkdir(parents=True, exist_ok=True)
        path = self.log if rank == 0 else self.log.with_name(f"out-{rank}.log")
        handler = logging.FileHandler(path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d,%H:%M:%S"))
        with log_level(logging.DEBUG if debug else logging.INFO):
            loggers = [logging.getLogger(name) for name in _PACKAGES]
            for early in loggers[0].handlers:
                if isinstance(early, _Early):
                    early.hand_over(handler)
            for logger in loggers:
                logger.addHandler(handler)
            try:
                yield
            finally:
                for logger in loggers:
                    logger.removeHandler(handler)
                handler.close()


@contextlib.contextmanager
def early_log() -> Iterator[None]:
    """What the four packages log before there is a folder is kept, and comes first in its out.log."""
    early = _Early()
    loggers = [logging.getLogger(name) for name in _PACKAGES]
    for logger in loggers:
        logger.addHandler(early)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(early)


class _Early(logging.Handler):
    """Keeps records until somebody takes them."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[logging.LogRecord] | None = []

    def emit(self, record: logging.LogRecord) -> None:
        if self._records is not None:
            self._records.append(record)

    def hand_over(self, handler: logging.Handler) -> None:
        for record in self._records or ():
            handler.handle(record)
        self._records = None


@contextlib.contextmanager
def log_level(level: int) -> Iterator[None]:
    """The four packages log from `level` on, for a while."""
    loggers = [logging.getLogger(name) for name in _PACKAGES]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, old in zip(loggers, before, strict=True):
            logger.setLevel(old)


def _names(name: str) -> Iterator[str]:
    yield name
    for number in range(2, 1000):
        yield f"{name}-{number}"
