"""A checkpoint of which every process writes its share, by torch.distributed.checkpoint, into a folder of its own.

    clip_config.json, a tokenizer's files    which model it is of; `export` makes a bundle of it
    state.json                               where the run stands, and the trees of its parts
    shards/                                  torch's: .metadata (a pickle) and the files of each process

Any number of processes reads it, one too. What this room leaves out: when it is written, and what a manifest is.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

import clip_core
from clip_core.errors import CheckpointMismatch
from clip_core.storage import CONFIG_FILE, WEIGHTS_FILE, config_text
from clip_core.tokenizer import tokenizer_files
from clip_train.checkpoint import disk, full
from clip_train.checkpoint.manifest import scratch_folder
from clip_train.checkpoint.state import Snapshot, is_divided
from clip_train.trainer import Running
from clip_train.world import World

__all__ = ["SHARDS", "Hashes", "Writer", "export", "read"]

SHARDS = "shards"

Hashes = dict[str, dict[str, Any]]


class _Publish(Protocol):
    def __call__(self, folder: Path, hashes: Hashes, /) -> None: ...


class Writer:
    """Writes shards, with a group of its own, so that it can do so in the background."""

    def __init__(self, world: World) -> None:
        """Every process makes one at the same point."""
        self._world = world
        self._group: Any = dist.new_group(backend="gloo") if world.size > 1 else None

    def collected(self, snapshot: Snapshot, *, copy: bool) -> Snapshot:
        """`snapshot`, on the CPU and apart from the run where `copy` is asked for."""
        return snapshot.map(lambda value: value.detach().to("cpu", copy=True)) if copy else snapshot

    def write(
        self, root: Path, snapshot: Snapshot, step: int, bundle: clip_core.Bundle, publish: _Publish
    ) -> str | None:
        """Write `snapshot` into a new folder in `root` and have the first process publish it; gives what was wrong.

        Every process calls it, and all get the same answer.
        """
        names = self._gather(scratch_folder(root, step).name if self._world.is_first else None)
        folder = root / str(names[0])
        wrong = self._each(lambda: self._begin(folder, snapshot, bundle) if self._world.is_first else None)
        wrong = wrong or self._each(lambda: self._save(folder, snapshot))
        if wrong is None:
            own: Hashes = {}
            wrong = self._each(lambda: own.update(_hashes(folder, self._world)))
            found = {name: value for part in self._gather(own) for name, value in part.items()}
            if wrong is None:
                wrong = self._each(lambda: publish(folder, found) if self._world.is_first else None)
        if wrong is not None and self._world.is_first:
            shutil.rmtree(folder, ignore_errors=True)
        return wrong

    def _begin(self, folder: Path, snapshot: Snapshot, bundle: clip_core.Bundle) -> None:
        disk.make_folder(folder)
        disk.make_folder(folder / SHARDS)
        disk.write_text(folder / CONFIG_FILE, config_text(bundle.config))
        for path in tokenizer_files(bundle.tokenizer):
            disk.copy_file(Path(path), folder / Path(path).name)
        full.write_rest(folder, snapshot)

    def _save(self, folder: Path, snapshot: Snapshot) -> None:
        from torch.distributed.checkpoint.filesystem import FileSystemWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of its own older interfaces
            save(
                snapshot.tensors(),
                storage_writer=FileSystemWriter(folder / SHARDS, sync_files=True, overwrite=False),
                process_group=self._group,
                no_dist=self._group is None,
            )

    def _gather(self, value: Any) -> list[Any]:
        if self._group is None:
            return [value]
        found: list[Any] = [None] * self._world.size
        dist.all_gather_object(found, value, group=self._group)
        return found

    def _each(self, work: Callable[[], object]) -> str | None:
        """What was wrong with `work` on the first process on which it failed; the same on every process."""
        from torch.distributed.checkpoint.api import CheckpointException

        word: str | None = None
        try:
            work()
        except OSError as error:
            word = str(error)
        except CheckpointException as error:
            word = "; ".join(str(failure[0]) for failure in error.failures.values())
        except RuntimeError as error:
            # Torch's writer says so of a disk that is full.
            if "write" not in str(error).lower():
                raise
            word = str(error)
        return next((found for found in self._gather(word) if found is not None), None)


def _hashes(folder: Path, world: World) -> Hashes:
    """Of the files that this process wrote."""
    own = [path for path in (folder / SHARDS).iterdir() if path.name.startswith(f"__{world.rank}_")]
    if world.is_first:
        own += [folder / SHARDS / ".metadata", *(path for path in folder.iterdir() if path.is_file())]
    return {path.relative_to(folder).as_posix(): disk.hash_file(path) for path in own}


def read(folder: Path, running: Running | None = None) -> Snapshot:
    """What was written; tensors that `running` holds in pieces come in pieces, the others whole on the CPU.

    Every process of `running` calls it; None: this process alone reads everything. Raises `CheckpointMismatch`.
    """
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    header = full.read_header(folder)
    reader = FileSystemReader(folder / SHARDS)
    try:
        held = reader.read_metadata().state_dict_metadata
    except (OSError, EOFError, ValueError) as error:
        raise CheckpointMismatch(f"{folder / SHARDS} cannot be read: {error}.") from error
    tensors: dict[str, Tensor] = {}
    for name, about in held.items():
        assert isinstance(about, TensorStorageMetadata)  # we save nothing else
        like, dtype = _like(name, running), about.properties.dtype
        if like is not None and is_divided(like) and like.shape == about.size:
            tensors[name] = torch.empty_like(like, dtype=dtype)
        else:
            tensors[name] = torch.empty(about.size, dtype=dtype)
    group = None if running is None else running.plan.world.control
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(tensors, storage_reader=reader, process_group=group, no_dist=group is None)
    parts: dict[str, dict[str, Tensor]] = {"model": {}, **{part: {} for part in header["parts"]}}
    for name, value in tensors.items():
        part, _, place = name.partition("/")
        parts[part][place] = value
    return Snapshot(header, parts.pop("model"), parts, full.read_foreign(folder, header))


def export(folder: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Make of the checkpoint in `folder`, full or sharded, a bundle in `target`, which must not exist.

    Raises `CheckpointMismatch` for a checkpoint that cannot be read.
    """
    folder, target = Path(folder), Path(target)
    state = read(folder) if (folder / SHARDS).is_dir() else full.read(folder)
    scratch = target.with_name(f".{target.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    disk.make_folder(scratch)
    disk.write_tensors(scratch / WEIGHTS_FILE, full.bundle_weights(full.collected(state, copy=False)))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    parts = {
        full.STATE,
        full.LORA_FILE,
        "manifest.json",
        *(f"{part}.safetensors" for part in state.parts),
        WEIGHTS_FILE,
    }
    for name in manifest["files"]:
        if "/" not in name and name not in parts and not name.endswith(".pt"):
            disk.copy_file(folder / name, scratch / name)
    disk.publish(scratch, target)
    return target


def _like(name: str, running: Running | None) -> Tensor | None:
    """What `running` holds, or would hold, in the place of the tensor called `name`."""
    if running is None or running.plan.world.size == 1:
        return None
    part, _, place = name.partition("/")
    if part == "model":
        return running.plan.bundle.model.state_dict().get(place)
    if part == "average" and running.average is not None:
        held = running.average.state_dict().get(place)
        return held if isinstance(held, Tensor) else None
    words = place.split(".")
    if part == "optimizer" and words[0] == "state":
        parameters = [parameter for group in running.optimizer.param_groups for parameter in group["params"]]
        number = int(words[1])
        return parameters[number] if number < len(parameters) else None
    return None
