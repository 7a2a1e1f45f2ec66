"""Which checkpoint a run goes on from (`--resume`), what of its configuration follows from that, and going on from it.

The global batch, the seed and the data are those of the checkpoint: samples come in the order in which they would have
come, and the number of processes may be any that the global batch can be divided among. What this room leaves out:
checkpoints of open_clip (`foreign`).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_core.errors import CheckpointMismatch, ConfigError, StorageError
from clip_train.checkpoint import disk, full, ledger, sharded
from clip_train.checkpoint.foreign import ForeignOrigin
from clip_train.checkpoint.manifest import MANIFEST, newest, published, sweep, verify
from clip_train.checkpoint.state import fingerprint, restore
from clip_train.config import TrainConfig
from clip_train.plan import Plan
from clip_train.run_folder import RunFolder
from clip_train.trainer import Running
from clip_train.world import World

__all__ = ["CHECKPOINTS", "Origin", "find_origin", "is_continued", "take_up"]

_log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
"""The folder in a run's folder that holds its checkpoints."""

_MEANINGLESS = frozenset(
    {"resume", "name", "logs", "debug", "log_every_n_steps", "batch_size", "accum_freq", "naflex_batch_sizes"}
)


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """A good checkpoint of ours that a run goes on from."""

    folder: Path
    header: dict[str, Any]

    @property
    def step(self) -> int:
        """How many optimiser steps it has behind it."""
        return int(self.header["step"])

    @property
    def run_folder(self) -> Path | None:
        """The folder of the run that saved it, if it still lies in one."""
        return self.folder.parent.parent if self.folder.parent.name == CHECKPOINTS else None

    def adopt(self, config: TrainConfig, world: World) -> TrainConfig:
        """`config` with the batch per process that makes the checkpoint's global batch.

        Raises `ConfigError` where the processes cannot divide it, or where the seed is another.
        """
        drawn = self.header.get("batching")
        if (drawn is not None) != config.naflex.use_naflex:
            raise ConfigError(
                f"{self.folder} was trained with{'out' if drawn is None else ''} --use-naflex; which samples a step "
                "has follows from it. Leave it as it was, or begin a new run with --pretrained."
            )
        whole, accumulated = int(self.header["global_batch"]), config.optim.accum_freq
        shares = world.size * accumulated
        wholes, least = ([whole], 2) if drawn is None else (drawn["sizes"], 1)

        def divide(shares: int) -> bool:
            return all(whole % shares == 0 and whole // shares >= least for whole in wholes)

        if not divide(shares):
            fitting = [count for count in range(1, whole // least + 1) if divide(count * accumulated)]
            lower = max((count for count in fitting if count < world.size), default=None)
            upper = min((count for count in fitting if count > world.size), default=None)
            nearest = " or ".join(str(count) for count in (lower, upper) if count is not None)
            raise ConfigError(
                f"{self.folder} was trained with {' or '.join(map(str, sorted(wholes)))} samples per step, which "
                f"{world.size} processes with "
                f"--accum-freq {accumulated} cannot divide equally."
                + (f" The nearest numbers of processes that can: {nearest}." if nearest else " Use --accum-freq 1.")
            )
        if config.run.seed != self.header["seed"]:
            raise ConfigError(
                f"{self.folder} was trained with --seed {self.header['seed']}, not {config.run.seed}; the order of the "
                "samples follows from it. Leave it as it was, or begin a new run with --pretrained."
            )
        if drawn is not None:
            return self._adopt_sizes(config, tuple(whole // shares for whole in wholes), shares)
        share = whole // shares
        if share != config.optim.batch_size:
            _log.info(
                "--batch-size is %d in place of %s: %d samples per step, as in the checkpoint, on %d processes%s",
                share,
                config.optim.batch_size,
                whole,
                world.size,
                f" with --accum-freq {accumulated}" if accumulated > 1 else "",
            )
            config = config.replace(batch_size=share)
        return config

    def _adopt_sizes(self, config: TrainConfig, sizes: tuple[int, ...], shares: int) -> TrainConfig:
        """`config` with these samples of a process in a micro-batch, for each length that was drawn from.

        shares: processes times micro-batches. The loss may be scaled by the samples of a micro-batch: what it is
        scaled by is then to stay, too.
        """
        if len(sizes) == len(config.naflex.lengths) and sizes != config.naflex.batch_sizes:
            _log.info("--naflex-batch-sizes is %s: the same steps as in the checkpoint", " ".join(map(str, sizes)))
            config = config.replace(naflex_batch_sizes=sizes)
        if config.naflex.naflex_loss_scale != "none":
            before = self.header["config"]["optim"]
            whole = before["batch_size"] * before["accum_freq"] * self.header["processes"]
            if whole % shares or whole // shares < 2:
                raise ConfigError(
                    f"{self.folder} scaled its losses by {whole} samples per step (--batch-size), which {shares} "
                    "micro-batches cannot divide equally. Use another number of processes, or another --accum-freq."
                )
            config = config.replace(batch_size=whole // shares)
        return config

    def check(self, plan: Plan) -> None:
        """Raises `ConfigError` where the data is another, or comes in another order."""
        data, header = fingerprint(plan.source), self.header
        if data != header["data"]:
            raise ConfigError(
                f"{self.folder} was trained on other data (fingerprint {header['data'][:12]}, not {data[:12]}): which "
                "sample comes next cannot be told. Give the same --train-data, or begin a new run with --pretrained."
            )
        # Checkpoints of schema 1 may lack it.
        wrong = _other_order(header["order"], plan.decoder.order.fingerprint) if "order" in header else None
        if wrong is not None:
            raise ConfigError(
                f"{self.folder} was trained with the samples in another order: {wrong}. Leave it as it was, or begin a "
                "new run with --pretrained."
            )

        drawn, ours = header.get("batching"), plan.batching.fingerprint
        for name, value in (ours or {}).items():
            if drawn is not None and drawn[name] != value:
                flag = "--naflex-batch-sizes" if name == "sizes" else f"--naflex-{name.replace('_', '-')}"
                raise ConfigError(
                    f"{self.folder} was trained with other steps: {flag} made them {drawn[name]}, and makes them "
                    f"{value}. Leave it as it was, or begin a new run with --pretrained."
                )

    def restore(self, running: Running) -> None:
        """Put the checkpoint into `running`; every process calls it.

        Raises `CheckpointMismatch` for another model or optimiser.
        """
        plan, header = running.plan, self.header
        is_sharded = (self.folder / sharded.SHARDS).is_dir()
        held = sharded.read(self.folder, running) if is_sharded else full.read(self.folder)
        restore(running, held, self.folder)
        if plan.world.is_first:
            for line in _differences(header["config"], plan.config.to_json()):
                _log.info("other than in the checkpoint: %s", line)
            if header["processes"] != plan.world.size:
                _log.info(
                    "processes: %d, and %d in the checkpoint; global batches are the same, sums may differ in their "
                    "last bits",
                    plan.world.size,
                    header["processes"],
                )
            _log.info("going on after step %d of %d from %s", self.step, plan.total_steps, self.folder)


def find_origin(config: TrainConfig) -> Origin | ForeignOrigin | None:
    """The checkpoint that `config` names; None: begin at the beginning. Raises `ConfigError`."""
    asked = config.checkpoint.resume
    if asked is None:
        return None
    if asked == "latest":
        if config.run.name is None:
            raise ConfigError("--resume latest looks into the folder of a run: give its --name, too.")
        root = Path(config.run.logs) / config.run.name / CHECKPOINTS
        if not published(root):
            _log.info("--resume latest: no checkpoint in %s, the run begins", root)
            return None
        return _newest(root)
    path = Path(asked)
    if (path / MANIFEST).is_file():
        wrong = verify(path)
        if wrong is not None:
            raise CheckpointMismatch(f"The checkpoint {path} is damaged: {wrong}. Choose another one.")
        return Origin(path, full.read_header(path))
    for root in (path / CHECKPOINTS, path):
        if published(root):
            return _newest(root)
    if path.is_file() and path.suffix == ".pt":
        return ForeignOrigin(path)
    if not path.exists():
        raise ConfigError(f"--resume {path}: there is no such file or folder.")
    raise ConfigError(
        f"--resume {path} is no checkpoint, and no folder of a run with one. Weights alone are for --pretrained."
    )


def is_continued(config: TrainConfig, origin: Origin | ForeignOrigin | None) -> bool:
    """Whether the run goes on in the folder that `config` names, rather than in one of its own."""
    if config.run.name is None:
        return False
    own = Path(config.run.logs) / config.run.name
    if origin is not None and origin.run_folder is not None:
        return own.exists() and own.samefile(origin.run_folder)
    return config.checkpoint.resume == "latest"


def take_up(folder: RunFolder, config: TrainConfig, origin: Origin | ForeignOrigin | None) -> None:
    """Bring the folder of a run to where `origin` (None: the beginning) stands; the first process calls it.

    Checkpoints that are newer than `origin` are set aside, records after it are cut off. Raises `StorageError`.
    """
    step = 0 if origin is None else origin.step
    try:
        sweep(folder.checkpoints)
        own = origin is not None and origin.folder.resolve().parent == folder.checkpoints.resolve()
        entries = [entry.path.name for entry in published(folder.checkpoints)]
        for name in reversed(entries[entries.index(origin.folder.name) + 1 :] if own and origin else entries):
            disk.set_aside(folder.checkpoints / name)
            _log.warning("set aside as %s/aside-%s: the run goes on from step %d", folder.checkpoints, name, step)
        folder.rewrite_config(config)
        if origin is None or own:
            ledger.cut(folder.metrics, step)
        elif origin.run_folder is not None:
            ledger.carry_over(origin.run_folder / folder.metrics.name, folder.metrics, step)
    except OSError as error:
        raise StorageError(f"The run in {folder.path} cannot be taken up: {error}.") from error


def _newest(root: Path) -> Origin:
    found = newest(root)
    if found is None:
        raise CheckpointMismatch(
            f"All {len(published(root))} checkpoints in {root} are damaged. To begin the run again, move them away."
        )
    return Origin(found, full.read_header(found))


def _other_order(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """What makes two orders of the same data differ, in words that name the flag; None where they are the same."""
    if before["kind"] != after["kind"]:
        return f"--dataset-resampled was {'on' if before['kind'] == 'drawn' else 'off'}"
    if ("streams" in before) != ("streams" in after):
        return f"--train-data was {'fetched in streams' if 'streams' in before else 'on this machine'}"
    for name, flag in (("streams", "--order-streams"), ("window", "--shuffle-window"), ("seed", "--seed")):
        if before.get(name) != after.get(name):
            return f"{flag} made it {before.get(name)}, and makes it {after.get(name)}"
    ours, theirs = ("::".join(f"{f:g}" for f in order.get("factors", ())) or "none" for order in (after, before))
    if ours != theirs or before["count"] != after["count"]:
        return f"--train-data-upsampling-factors was {theirs}, and is {ours}"
    return None


def _differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    for group, fields in after.items():
        for name, value in fields.items():
            old = before.get(group, {}).get(name)
            if old != value and name not in _MEANINGLESS:
                yield f"{name} is {value!r}, was {old!r}"
