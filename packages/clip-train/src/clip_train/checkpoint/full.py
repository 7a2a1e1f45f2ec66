"""A checkpoint that one process writes: a bundle (clip_core.load reads it) with the rest of the state beside it.

    clip_config.json, model.safetensors, a tokenizer's files    the bundle
    state.json                                                  where the run stands, and the trees of its parts
    optimizer.safetensors, ...                                  the tensors of the parts that have any
    lora.safetensors, adapters/                                 with LoRA: what the bundle has the sum of, and for peft

What this room leaves out: when it is written, and the manifest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import clip_core
from clip_core.errors import CheckpointMismatch
from clip_core.storage import CONFIG_FILE, WEIGHTS_FILE, config_text
from clip_core.tokenizer import tokenizer_files
from clip_train import lora
from clip_train.checkpoint import disk
from clip_train.checkpoint.state import SCHEMA, Snapshot, whole

__all__ = [
    "LORA_FILE",
    "STATE",
    "bundle_weights",
    "collected",
    "read",
    "read_foreign",
    "read_header",
    "take_part",
    "write",
    "write_rest",
]

STATE = "state.json"
LORA_FILE = "lora.safetensors"


def collected(snapshot: Snapshot, *, copy: bool) -> Snapshot:
    """`snapshot` with every tensor whole, on the CPU and alone in its memory; `copy`: also what is so already.

    A collective where tensors are divided over the processes.
    """
    seen: set[int] = set()

    def alone(value: Tensor) -> Tensor:
        here = whole(value).detach().to("cpu").contiguous()
        memory = here.untyped_storage().data_ptr()
        # Two tensors that share memory, or a part of a larger one, are written as tensors of their own.
        shares = memory in seen or here.untyped_storage().nbytes() != here.nbytes
        seen.add(memory)
        return here.clone() if copy or shares else here

    return snapshot.map(alone)


def take_part(snapshot: Snapshot) -> None:
    """What the other processes do while one calls `collected`: hand over their pieces."""
    for value in snapshot.tensors().values():
        whole(value)


def bundle_weights(snapshot: Snapshot) -> dict[str, Tensor]:
    """The weights as a bundle has them, of a snapshot that `collected` gives: with LoRA, the sum."""
    given = snapshot.header["config"]["model"]
    if given.get("lora_rank") is None:
        return snapshot.model
    return lora.merged(snapshot.model, lora.scaling(given["lora_rank"], given["lora_alpha"]))


def write(folder: Path, snapshot: Snapshot, bundle: clip_core.Bundle) -> None:
    """Write `snapshot`, as `collected` gives it, into the empty `folder`; `OSError` where that fails."""
    disk.write_text(folder / CONFIG_FILE, config_text(bundle.config))
    if lora.has_adapters(bundle.model):
        disk.write_tensors(folder / LORA_FILE, lora.apart(snapshot.model))
        lora.save_adapters(bundle.model, snapshot.model, folder / "adapters")
    disk.write_tensors(folder / WEIGHTS_FILE, bundle_weights(snapshot))
    for path in tokenizer_files(bundle.tokenizer):
        disk.copy_file(Path(path), folder / Path(path).name)
    write_rest(folder, snapshot)
    for part, tensors in snapshot.parts.items():
        if tensors:
            disk.write_tensors(folder / f"{part}.safetensors", tensors)


def write_rest(folder: Path, snapshot: Snapshot) -> None:
    """Write what is no tensor."""
    header = {**snapshot.header, "foreign": sorted(snapshot.foreign)}
    disk.write_text(folder / STATE, json.dumps(header, allow_nan=False) + "\n")
    for part, state in snapshot.foreign.items():
        disk.write_pickle(folder / f"{part}.pt", state)


def read_header(folder: Path) -> dict[str, Any]:
    """Where the run of the checkpoint stood; raises `CheckpointMismatch`."""
    try:
        header = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointMismatch(f"{folder / STATE} cannot be read: {error}.") from error
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise CheckpointMismatch(
            f"{folder / STATE} is not of schema {SCHEMA}, which this clip-train reads; a newer checkpoint needs a "
            "newer clip-train."
        )
    return header


def read(folder: Path) -> Snapshot:
    """What `write` wrote, on the CPU; raises `CheckpointMismatch`."""
    header = read_header(folder)
    model = _tensors(folder / WEIGHTS_FILE)
    if (folder / LORA_FILE).exists():
        model = lora.rejoined(model, _tensors(folder / LORA_FILE))
    parts = {
        part: _tensors(path) if (path := folder / f"{part}.safetensors").exists() else {} for part in header["parts"]
    }
    return Snapshot(header, model, parts, read_foreign(folder, header))


def read_foreign(folder: Path, header: dict[str, Any]) -> dict[str, Any]:
    """The parts that neither JSON nor tensors could hold; no code of the files runs."""
    return {part: torch.load(folder / f"{part}.pt", weights_only=True) for part in header["foreign"]}


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointMismatch(f"{path} cannot be read: {error}.") from error
