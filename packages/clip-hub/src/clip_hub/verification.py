"""Whether a checkpoint is what it says it is: its bytes, its shapes, its values, and what it makes of a fixed input.

Everything is read from the files piece by piece but for the last step, which runs the model. What this room leaves out:
whether the model is a good one.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from clip_core import Bundle, CheckpointMismatch, UnknownModel
from clip_core.building import build
from clip_core.convert.reading import FILE_SUFFIXES
from clip_core.errors import listed
from clip_core.mapping import MappedPages
from clip_hub.hashes import is_pointer, sha256_of, stated_sha256
from clip_hub.probe import run_probe
from clip_hub.registry import find
from clip_hub.sources import Source, open_source
from clip_hub.tag import Tag
from clip_hub.tensor_file import PIECE

__all__ = ["Check", "Report", "verify"]

Result = Literal["ok", "note", "finding"]

_CLAMP = 100.0  # what CLIP's training keeps the scale below (Radford et al. 2021, 2.5)
_LARGEST_SCALE = 1000.0
_LARGEST_BIAS = 100.0
_UNMEASURED = (
    "no row of the registry states features or statistics of activations yet, which have to be measured on the real "
    "weights, so there is nothing to compare it with"
)
_TOLERANCE = 1e-3
"""Of a fingerprint's components, between machines and versions of torch."""


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    what: str
    result: Result
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What was found in a checkpoint."""

    name: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not any(check.result == "finding" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """This report as plain values."""
        return {"name": self.name, "ok": self.ok, "checks": [dataclasses.asdict(check) for check in self.checks]}


def verify(
    name: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    features: bool = True,
    ema: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Report:
    """Look at the checkpoint that `name` means: hash, shapes, values, scale, features.

    A finding is something that no good checkpoint has: bytes other than stated, tensors that do not fit the
    configuration, values that are not finite, a matrix of zeros, a scale that is none. A note is worth knowing.

    Args:
        name: what `sources.open_source` takes.
        sha256: what its file should have, where its author states it.
        features: also run the model, in float32 on the CPU.
        ema: for a file with weights and their moving average: True takes the average, False the others.
        cache_dir, token: as `clip_hub.load`.

    Raises:
        ConfigError, UnknownModel, DownloadError: there is no such checkpoint, or it does not state its model.
    """
    text = os.fspath(name)
    checks: list[Check] = list(_cached(text, cache_dir))
    try:
        source = open_source(text, ema=ema, cache_dir=cache_dir, token=token)
        checks += _bytes(source.weights_files(), sha256)
        tensors = source.tensors()
    except CheckpointMismatch as error:
        pointers = [path.name for path in _files(Path(text)) if is_pointer(path)]
        reason = (
            f"{listed(pointers)}: a pointer of Git LFS instead of the weights; fetch them with `git lfs pull`"
            if pointers
            else str(error)
        )
        return Report(text, (*checks, Check("tensors", "finding", reason)))
    count = sum(value.numel() for value in tensors.values())
    checks.append(Check("tensors", "ok", f"{len(tensors)}, {count / 1e6:.2f} M numbers, as the configuration states"))
    checks += _values(tensors)
    checks += _scale(tensors)
    del tensors
    if features and not any(check.result == "finding" for check in checks):
        checks += _features(source)
    return Report(text, tuple(checks))


def _cached(name: str, cache_dir: str | os.PathLike[str] | None) -> Iterator[Check]:
    """What is wrong with the cached file of a tag: opening it heals the cache, and nobody would hear of it."""
    from huggingface_hub import try_to_load_from_cache

    model, _, tag = name.partition(":")
    if not tag or Path(name).exists():
        return
    try:
        row = find(model, tag)
    except (UnknownModel, CheckpointMismatch):
        return  # a path behind the colon, or a mistake, of which opening it speaks
    cache = os.fspath(cache_dir) if cache_dir is not None else None
    for file in row.files:
        held = try_to_load_from_cache(row.repo, file, cache_dir=cache, revision=row.revision)
        if isinstance(held, str):
            stated = stated_sha256(Path(held))
            found = sha256_of(Path(held))
            if stated is not None and stated[0] != found:
                message = f"{file} in the cache had {found} and not {stated[0]}; it was thrown away and fetched again"
                yield Check("sha256", "finding", message)
            return


def _bytes(files: Sequence[Path], wanted: str | None) -> Iterator[Check]:
    for path in files:
        found, stated = sha256_of(path), stated_sha256(path)
        if wanted is not None and len(files) == 1:
            stated = (wanted.lower(), "what was asked for")
        if stated is None:
            yield Check("sha256", "note", f"{path.name} has {found}; nothing here says what it should be")
        elif stated[0] == found:
            yield Check("sha256", "ok", f"{path.name} has {found}, as {stated[1]} says")
        else:
            yield Check("sha256", "finding", f"{path.name} has {found}; {stated[1]} says {stated[0]}")


def _values(tensors: Mapping[str, Tensor]) -> Iterator[Check]:
    broken: list[str] = []
    dead: list[str] = []
    still: list[str] = []
    pages = MappedPages()
    for name, value in tensors.items():
        if not value.is_floating_point():
            continue
        flat, bad, live = value.reshape(-1), 0, False
        for start in range(0, flat.numel(), PIECE):
            piece = flat[start : start + PIECE]
            bad += int((~piece.isfinite()).sum())
            live = live or bool(piece.any())
            pages.release(piece)
        if bad:
            broken.append(f"{name} ({bad} of {flat.numel()})")
        if not live and not name.startswith("logit_"):
            (still if value.ndim == 1 and name.endswith(("bias", "running_mean")) else dead).append(name)
    if broken:
        yield Check("finite", "finding", f"NaN or infinite: {listed(broken)}")
    else:
        yield Check("finite", "ok", "every value is a finite number")
    if dead:
        yield Check("zeros", "finding", f"all zero, so that nothing comes through: {listed(dead)}")
    else:
        yield Check("zeros", "ok", "no weight is all zero")
    if still:
        yield Check("biases", "note", f"all zero, as before training: {listed(still)}")


def _scale(tensors: Mapping[str, Tensor]) -> Iterator[Check]:
    stored = float(tensors["logit_scale"])
    scale = math.exp(stored) if stored < 100 else math.inf
    message = f"{scale:.4g}, stored as its logarithm {stored:.4f}"
    if not 1 <= scale <= _LARGEST_SCALE:  # also NaN
        yield Check("scale", "finding", f"{message}; from 1 to {_LARGEST_SCALE:g} can be right")
    elif scale > _CLAMP * 1.001 and "logit_bias" not in tensors:
        yield Check("scale", "note", f"{message}; training with the softmax loss usually keeps it below {_CLAMP:g}")
    else:
        yield Check("scale", "ok", message)
    if "logit_bias" in tensors:
        bias = float(tensors["logit_bias"])
        good = abs(bias) <= _LARGEST_BIAS
        yield Check("bias", "ok" if good else "finding", f"{bias:.4f}" + ("" if good else ", which no training gives"))


def _features(source: Source) -> Iterator[Check]:
    found = run_probe(Bundle.of(build(source.config, source.checkpoint), source.vocabulary))
    for kind, values in (("image", found.image), ("text", found.text)):
        if values is None:
            yield Check(f"{kind} features", "note", "not looked at: the vocabulary of the tokenizer is not there")
        elif not values.isfinite().all():
            yield Check(f"{kind} features", "finding", f"not finite for fixed {kind}s")
        elif float((values - values[0]).abs().max()) <= 1e-6 * float(values.abs().max()):
            yield Check(f"{kind} features", "finding", f"the same for different {kind}s")
        else:
            unit = torch.nn.functional.normalize(values, dim=-1)
            close = float((unit @ unit.T).fill_diagonal_(-1).max())
            lengths = values.norm(dim=-1)
            message = f"lengths {float(lengths.min()):.3f} to {float(lengths.max()):.3f}, nearest cosine {close:.3f}"
            yield Check(f"{kind} features", "ok", message)
    if found.image.isfinite().all():
        yield _compared(found.fingerprint(), source.row)


def _compared(fingerprint: tuple[float, ...], row: Tag | None) -> Check:
    shown = " ".join(f"{value:.4f}" for value in fingerprint)
    if row is None or row.fingerprint is None:
        told = f"{shown}; {_UNMEASURED}" if row is not None else f"{shown}; the registry does not know these weights"
        return Check("fingerprint", "note", told)
    furthest = max(abs(ours - theirs) for ours, theirs in zip(fingerprint, row.fingerprint, strict=False))
    if furthest > _TOLERANCE:
        stated = " ".join(f"{value:.4f}" for value in row.fingerprint)
        return Check("fingerprint", "finding", f"{shown}; the registry has {stated}")
    return Check("fingerprint", "ok", f"{shown}, the registry's within {furthest:.1g}")


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(found for found in path.iterdir() if found.name.endswith(FILE_SUFFIXES)) if path.is_dir() else []
