"""What stands beside a record: what each query scored, whatever tensors a task wants kept, and the samples' lines.

Shapes: Q queries. What is not here: the pictures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from clip_core.errors import DataError
from clip_eval.tasks.result import Answer, Outcomes, SampleResult

__all__ = ["read_outcomes", "read_samples", "read_tensors", "write_outcomes", "write_tensors"]

_VALUES, _CLUSTERS, _OWNERS = "values/", "clusters/", "clusters"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors by name; copies them, since safetensors takes neither views nor shared memory.

    Raises:
        OSError: the file cannot be written, also where safetensors has an error of its own for it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        save_file(copies, path, metadata=dict(metadata or {"format": "pt"}))
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file; `DataError` where it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Run the evaluation again.") from error


def write_outcomes(path: Path, outcomes: Mapping[str, Outcomes]) -> None:
    """Writes values float32 (Q,) and clusters int64 (Q,) of each metric; equal clusters are written once."""
    tensors: dict[str, Tensor] = {}
    owners: dict[str, str] = {}
    for name, entry in outcomes.items():
        tensors[_VALUES + name] = entry.values.float()
        earlier = dict.fromkeys(owners.values())
        same = [owner for owner in earlier if torch.equal(tensors[_CLUSTERS + owner], entry.clusters)]
        owners[name] = same[0] if same else name
        tensors[_CLUSTERS + owners[name]] = entry.clusters
    # One entry: safetensors writes several in another order each time, and the file would have another hash.
    write_tensors(path, tensors, {_OWNERS: json.dumps(owners)})


def read_outcomes(path: Path) -> dict[str, Outcomes]:
    """What `write_outcomes` wrote; `DataError` for a damaged file."""
    from safetensors import safe_open

    tensors = read_tensors(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    try:
        owners = json.loads(metadata[_OWNERS]) if _OWNERS in metadata else metadata
        found = {
            name.removeprefix(_VALUES): Outcomes(values, tensors[_CLUSTERS + owners[name.removeprefix(_VALUES)]])
            for name, values in tensors.items()
            if name.startswith(_VALUES)
        }
    except KeyError as error:
        raise DataError(f"{path}: the image clusters of {error} are missing. Run the evaluation again.") from error
    for name, entry in found.items():
        if entry.values.shape != entry.clusters.shape or entry.values.ndim != 1:
            raise DataError(f"{path}: {name} has {tuple(entry.values.shape)} values for other clusters.")
    return found


def read_samples(path: Path) -> list[SampleResult]:
    """One entry for each line, so for each image; `DataError` where the file is missing or damaged."""
    samples = []
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                data = json.loads(line)
                answers = tuple(Answer(**answer) for answer in data.pop("answers"))
                sample = SampleResult(answers=answers, truth=tuple(data.pop("truth")), **data)
                if type(sample.index) is not int or sample.index < 0:
                    raise ValueError(f"index is {sample.index!r}, not a whole number from 0")
                for answer in sample.answers:
                    if type(answer.similarity) not in (int, float):
                        raise ValueError(f"similarity is {answer.similarity!r}, not a number")
                samples.append(sample)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: not the samples of a record ({error!r}). Run the evaluation again.") from error
    return samples
