"""Model soups: the average of several checkpoints of one model, piece by piece from their files into a bundle.

A uniform or weighted average of fine-tuned models (Wortsman et al., "Model soups", ICML 2022); the line between two of
them (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, known as WiSE-FT); the moving average that a
training checkpoint holds. Sums are in float32 and a few megabytes of them are in memory at a time. What this room
leaves out: choosing what goes in by a score, which is in `greedy`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from clip_core.building import DTYPES, Precision
from clip_core.convert.checkpoint import differences
from clip_core.errors import CheckpointMismatch, ConfigError, listed
from clip_core.folders import write_folder
from clip_core.mapping import MappedPages
from clip_core.storage import CONFIG_FILE, WEIGHTS_FILE, config_text
from clip_core.tokenizer import TOKENIZER_FILES
from clip_core.weights import read_weights
from clip_hub.__about__ import __version__
from clip_hub.hashes import sha256_of
from clip_hub.scrubbing import scrubbed_names
from clip_hub.sources import Source, open_source
from clip_hub.tensor_file import PIECE, Entry, write_tensors

__all__ = ["RECORD_FILE", "average", "check_same", "extract_ema", "interpolate", "soup"]

RECORD_FILE = "soup.json"
"""What a bundle that was made here says of how: the kind, and each checkpoint's name, weight and sha256.

Of a name that is a path only the last part stands there: the file may be published.
"""

_log = logging.getLogger(__name__)
_KEPT = ("logit_scale", "logit_bias")  # float32 in every bundle
_Name = str | os.PathLike[str]
_Kind = Literal["soup", "greedy soup", "interpolation", "moving average"]


def soup(
    names: Sequence[_Name],
    folder: _Name,
    *,
    weights: Sequence[float] | None = None,
    dtype: Precision | None = None,
    cache_dir: _Name | None = None,
    token: str | bool | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Write the average of the checkpoints `names` as a bundle.

    The scale of the logits is averaged as it is stored, in log space; so is its bias. Sums are in float32, in the order
    of `names`, and divided once. Of a count, such as that of the batches that a batch normalisation has seen, the
    largest is taken, and a warning says so; a normalisation's mean and variance are averaged as they are stored.

    Args:
        names: two or more of what `sources.open_source` takes, all of one architecture and preprocessing.
        folder: where the bundle goes, with `soup.json` in it.
        weights: one for each, 0 or more; only their ratios count. Default: all the same.
        dtype: of the result; default each tensor's in the first checkpoint. The scale and bias are always float32.
        cache_dir, token: as `clip_hub.load`.
        overwrite: replace a bundle that is there.
        progress: show a bar on stderr.

    Raises:
        ConfigError: an argument is not allowed, or the folder exists.
        CheckpointMismatch: they are of different models, or one does not fit its own configuration, or has integers
            that the others do not have, or values that are not finite; names which and where.
    """
    weights = [1.0] * len(names) if weights is None else list(weights)
    if len(names) < 2:
        raise ConfigError(f"{len(names)} checkpoints are no soup; give two or more.")
    if len(weights) != len(names):
        raise ConfigError(f"{len(weights)} weights for {len(names)} checkpoints; give one for each.")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights):
        raise ConfigError(f"weights are {weights}; allowed: finite numbers of 0 or more, not all 0.")
    sources = [open_source(name, cache_dir=cache_dir, token=token) for name in names]
    return average(sources, weights, folder, "soup", dtype=dtype, overwrite=overwrite, progress=progress)


def interpolate(
    first: _Name,
    second: _Name,
    folder: _Name,
    *,
    alphas: Sequence[float] = (0.5,),
    dtype: Precision | None = None,
    cache_dir: _Name | None = None,
    token: str | bool | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> list[Path]:
    """Write (1 - alpha) * first + alpha * second for each of `alphas`, 0 to 1, as bundles.

    One alpha gives a bundle in `folder`; several give `folder/alpha-0.25` and so on. The rest is as in `soup`.
    """
    if not alphas or len(set(alphas)) != len(alphas) or not all(0 <= alpha <= 1 for alpha in alphas):
        raise ConfigError(f"alpha is {list(alphas)}; allowed: numbers from 0 (the first) to 1 (the second), each once.")
    pair = [open_source(name, cache_dir=cache_dir, token=token) for name in (first, second)]
    several = len(alphas) > 1
    return [
        average(
            pair,
            [1 - alpha, alpha],
            Path(folder) / f"alpha-{alpha:g}" if several else folder,
            "interpolation",
            dtype=dtype,
            record={"alpha": alpha},
            overwrite=overwrite,
            progress=progress,
        )
        for alpha in alphas
    ]


def extract_ema(
    name: _Name,
    folder: _Name,
    *,
    dtype: Precision | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Write the moving average that a training checkpoint holds beside its weights as a bundle.

    Args:
        name: "model:path" of a file of OpenCLIP, timm or a script like theirs with `state_dict_ema`, `model_ema` ...
        folder, dtype, overwrite, progress: as `soup`.

    Raises:
        CheckpointMismatch: it holds none, or does not fit.
    """
    source = open_source(name, ema=True)
    return average([source], [1.0], folder, "moving average", dtype=dtype, overwrite=overwrite, progress=progress)


def average(
    sources: Sequence[Source],
    weights: Sequence[float],
    folder: _Name,
    kind: _Kind | None,
    *,
    dtype: Precision | None = None,
    record: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Write the weighted average of `sources` as a bundle, with a record of `kind` and `record` unless `kind` is None.

    Raises as `soup`.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; allowed: {', '.join(DTYPES)}.")
    check_same(sources)
    first = sources[0]
    vocabulary = first.tokenizer_files()
    size = sum(path.stat().st_size for path in first.weights_files())

    def write(scratch: Path) -> None:
        with tempfile.TemporaryDirectory(dir=scratch.parent, prefix=f"{scratch.name}.") as space:
            held = [_mapped(source, first, Path(space) / f"{i}.safetensors") for i, source in enumerate(sources)]
            _write(scratch / WEIGHTS_FILE, sources, held, weights, dtype, progress)
            counts = _counts(held)
            held.clear()
        (scratch / CONFIG_FILE).write_text(config_text(first.config), encoding="utf-8")
        for path in vocabulary:
            shutil.copyfile(path, scratch / path.name)
        if kind is not None:
            content = _record(kind, sources, weights, dtype, {**(record or {}), **counts})
            (scratch / RECORD_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    return write_folder(
        folder,
        write,
        what="bundle",
        mark=CONFIG_FILE,
        files={CONFIG_FILE, WEIGHTS_FILE, RECORD_FILE, *TOKENIZER_FILES},
        size=size,
        overwrite=overwrite,
    )


def _counts(held: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
    """Which single integers differ between the checkpoints, for the record; said aloud where there are any."""
    first = held[0]
    single = [key for key, value in first.items() if not value.is_floating_point() and not value.ndim]
    found = [key for key in single if any(int(other[key]) != int(first[key]) for other in held[1:])]
    if not found:
        return {}
    _log.warning("the largest is taken of %d counts that differ: %s", len(found), listed(found, 2))
    return {"largest_taken_of": found}


def check_same(sources: Sequence[Source]) -> None:
    """Raise `CheckpointMismatch`, naming the fields, unless all are of one architecture, preprocessing and tokenizer.

    What says how a model is trained or begins may differ: drop rates, the initial scale.
    """
    first = sources[0]
    for other in sources[1:]:
        different = differences(first.config, other.config)
        if different:
            fields = [f"{key} is {ours!r} and {theirs!r}" for key, (ours, theirs) in different.items()]
            raise CheckpointMismatch(
                f"{first.name} and {other.name} are different models, whose weights have no average: {listed(fields)}."
            )


def _mapped(source: Source, first: Source, spool: Path) -> dict[str, Tensor]:
    """The tensors of `source` under the names of `first`, all of them mapped from files.

    What had to be put together anew (transformers' query, key and value), or is of a format that cannot be mapped, goes
    to a file of its own, so that no two checkpoints of this kind are in memory together.
    """
    tensors = source.tensors(first.config)
    pages = MappedPages()
    loose = {key: value for key, value in tensors.items() if not pages.hold(value)}
    # Elsewhere nobody can tell what is mapped, and the system takes pages of files back by itself.
    if sys.platform == "linux" and sum(value.nbytes for value in loose.values()) > 4 * PIECE:
        entries = [Entry(key, value.dtype, tuple(value.shape)) for key, value in loose.items()]
        write_tensors(spool, entries, lambda entry: [loose[entry.name]])
        tensors |= read_weights(spool)
        loose.clear()
        pages.trim()
    return tensors


def _write(
    path: Path,
    sources: Sequence[Source],
    held: Sequence[Mapping[str, Tensor]],
    weights: Sequence[float],
    dtype: Precision | None,
    progress: bool,
) -> None:
    from tqdm.auto import tqdm

    entries = []
    for key, value in held[0].items():
        kind = value.dtype
        if value.is_floating_point():
            kind = torch.float32 if key in _KEPT else kind if dtype is None else DTYPES[dtype]
        entries.append(Entry(key, kind, tuple(value.shape)))
    total = sum(entry.nbytes for entry in entries)
    pages = MappedPages()
    with tqdm(total=total, desc="average", unit="B", unit_scale=True, disable=not progress) as bar:

        def pieces(entry: Entry) -> Iterator[Tensor]:
            values = [tensors[entry.name].reshape(-1) for tensors in held]
            for start in range(0, values[0].numel(), PIECE):
                parts = [value[start : start + PIECE] for value in values]
                mean = _mean(parts, weights) if entry.dtype.is_floating_point else _integers(parts, entry, sources)
                mean = mean.to(entry.dtype)
                if not mean.isfinite().all():
                    raise CheckpointMismatch(_not_finite(entry, parts, sources))
                yield mean
                pages.release(*parts)
                bar.update(mean.nbytes)

        write_tensors(path, entries, pieces)


def _mean(parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted mean of tensors of one shape, in float32; a weight of 0 leaves its tensor out."""
    total: Tensor | None = None
    for part, weight in zip(parts, weights, strict=True):
        if weight:
            share = part.float() if weight == 1 else part.float() * weight
            total = share if total is None else total + share  # never in place: it may be the file's own memory
    assert total is not None
    return total if (whole := sum(weights)) == 1 else total / whole


def _integers(parts: Sequence[Tensor], entry: Entry, sources: Sequence[Source]) -> Tensor:
    """What integers become: a count the largest, anything else must be the same everywhere."""
    if not entry.shape:
        return torch.stack(list(parts)).amax(dim=0)
    for part, source in zip(parts[1:], sources[1:], strict=True):
        if not torch.equal(part, parts[0]):
            raise CheckpointMismatch(
                f"{entry.name} holds integers, which have no average, and differs between {sources[0].name} and "
                f"{source.name}; make it equal in both, or leave one of them out."
            )
    return parts[0]


def _not_finite(entry: Entry, parts: Sequence[Tensor], sources: Sequence[Source]) -> str:
    for part, source in zip(parts, sources, strict=True):
        if not part.isfinite().all():
            return f"{entry.name} of {source.name} has values that are not finite: the file is damaged; leave it out."
    return f"{entry.name} of the result is beyond the range of {entry.dtype}; choose fp32 or bf16 as its dtype."


def _record(
    kind: _Kind, sources: Sequence[Source], weights: Sequence[float], dtype: Precision | None, more: Mapping[str, Any]
) -> dict[str, Any]:
    whole = sum(weights)
    names = scrubbed_names([source.name for source in sources])
    return {
        "kind": kind,
        "made_by": f"clip-hub {__version__}",
        "dtype": dtype or "of the first checkpoint",
        **more,
        "checkpoints": [
            {
                "name": names[source.name],
                "layout": source.checkpoint.layout,
                "weight": weight / whole,
                "sha256": {path.name: sha256_of(path) for path in source.weights_files()},
            }
            for source, weight in zip(sources, weights, strict=True)
        ],
    }
