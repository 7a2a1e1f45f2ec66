"""Writes a data set folder in the `wds_*` layout, whole or not at all; see `clip_eval.wds.opening` for what lies where.

Shards end at 10,000 samples or a billion bytes, keys are s0000000 and so on, members of a sample stand in the order of
their extensions: what CLIP_benchmark's webdataset_builder writes. Beside that each split gets a manifest. The bytes
depend on the examples only.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_core.errors import ConfigError, DataError, StorageError
from clip_eval.building.pictures import ImageFormat, sample_members
from clip_eval.building.shards import ShardWriter
from clip_eval.building.source import Source
from clip_eval.wds import KINDS, Association, Manifest, ShardFacts, check_class_names, open_dataset
from clip_eval.wds.manifest import MANIFEST
from clip_eval.wds.text_files import read_about, read_kind, read_names

__all__ = ["DEFAULT_TEMPLATES", "MAX_COUNT", "MAX_SIZE", "write_dataset"]

DEFAULT_TEMPLATES = ("a photo of a {c}.",)
MAX_COUNT = 10_000
MAX_SIZE = 1_000_000_000
_NAMES, _TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"


def write_dataset(
    folder: str | os.PathLike[str],
    source: Source,
    *,
    split: str = "test",
    about: Mapping[str, Any] | None = None,
    max_count: int = MAX_COUNT,
    max_size: int = MAX_SIZE,
    image_format: ImageFormat = "webp",
    allow_duplicate_classnames: bool = False,
    progress: bool = False,
) -> Path:
    """Writes `source` as a split of the data set `folder`, reads it back, and gives the folder.

    Everything is written beside its place first: after a kill or a full disk there is no split of that name.

    Args:
        folder: a new or empty one, or a data set of the same kind, names and templates that lacks this split.
        split: its name; may lie deeper, as "test/easy".
        about: facts for `about.json`: title, description, source, licence, a list of notes.
        max_count, max_size: a shard ends at so many samples, or bytes of members.
        image_format: "webp" or "png", for pictures that are not in a JPEG, PNG or WebP file already; both lossless.
        allow_duplicate_classnames: ImageNet's own list names two classes twice.

    Raises:
        ConfigError: the split is there already, or an argument is out of its range.
        DataError: the source does not fit its kind, has no example, or is not the data set that is there.
        ImageError: an image is none.
        StorageError: the folder cannot be written.
    """
    target = Path(folder)
    _check(source, split, max_count, max_size, image_format, allow_duplicate_classnames)
    texts = _texts(source, about)
    exists = target.exists() and (not target.is_dir() or any(target.iterdir()))
    if exists:
        _check_same(target, split, source, texts)
    scratch = target.absolute().with_name(f".{target.absolute().name}.{secrets.token_hex(4)}.building")
    try:
        base = scratch / split
        base.mkdir(parents=True)
        for name, data in texts.items():
            (scratch / name).write_bytes(data)
        keys, shards = _write_shards(base, source, max_count, max_size, image_format, progress)
        if source.kind == "association":
            lines = "".join(_riddle(riddle, keys) for riddle in source.associations)
            (base / "associations.jsonl").write_text(lines, encoding="utf-8")
        manifest = Manifest(samples=len(keys), shards=tuple(shards), classes=len(source.classnames) or None)
        (base / MANIFEST).write_text(json.dumps(manifest.to_json(), indent=1) + "\n", encoding="utf-8")
        (base / "nshards.txt").write_bytes(f"{len(shards)}\n".encode())
        open_dataset(scratch, split, allow_duplicate_classnames=allow_duplicate_classnames, verify=False)
        _put(scratch, target, split, whole=not exists)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"{target}: the data set cannot be written ({error.strerror or error}). Nothing was left there; make room "
            "or choose another folder."
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def _check(
    source: Source, split: str, max_count: int, max_size: int, image_format: str, allow_duplicates: bool
) -> None:
    parts = split.split("/")
    if not all(parts) or any(part.startswith(".") for part in parts) or "\\" in split:
        raise ConfigError(f"{split!r} is no name of a split; use letters and digits, such as test.")
    if max_count < 1 or max_size < 1:
        raise ConfigError(f"{max_count=}, {max_size=}: both must be 1 or more.")
    if image_format not in ("webp", "png"):
        raise ConfigError(f"image_format={image_format!r}; allowed: webp, png.")
    if source.kind not in KINDS:
        raise ConfigError(f"kind={source.kind!r}; allowed: {', '.join(KINDS)}.")
    if source.kind in ("classification", "multilabel"):
        check_class_names(_lines(source.classnames, "class name"), "The source", allow_duplicates=allow_duplicates)
        for template in source.templates:
            if "{c}" not in template:
                raise ConfigError(f"The template {template!r} has no placeholder {{c}} for the class name.")


def _texts(source: Source, about: Mapping[str, Any] | None) -> dict[str, bytes]:
    """The files that all splits share."""
    texts: dict[str, bytes] = {}
    if source.kind in ("classification", "multilabel"):
        texts[_NAMES] = _joined(_lines(source.classnames, "class name"))
        texts[_TEMPLATES] = _joined(_lines(source.templates or DEFAULT_TEMPLATES, "template"))
    if source.kind != "classification":
        texts["dataset_type.txt"] = f"{source.kind}\n".encode()
    facts = dict(about or {})
    if source.metadata_fields:
        facts["metadata_fields"] = list(source.metadata_fields)
    if facts:
        texts["about.json"] = (json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    return texts


def _lines(texts: Sequence[str], what: str) -> list[str]:
    for text in texts:
        if "\n" in text or "\r" in text:
            raise ConfigError(f"The {what} {text!r} has a line break; each is one line of a file.")
    return [text.strip() for text in texts]


def _joined(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _check_same(target: Path, split: str, source: Source, texts: Mapping[str, bytes]) -> None:
    """A second split joins a data set only if its labels stand for the same classes."""
    if not target.is_dir():
        raise ConfigError(f"{target}: is a file. Choose a folder.")
    if (target / split).exists():
        raise ConfigError(f"{target / split} already exists. Remove it, or choose another folder or split.")
    if next(target.rglob("nshards.txt"), None) is None:
        raise ConfigError(f"{target}: holds something that is no data set. Choose a new or empty folder.")
    if read_kind(target) != source.kind:
        raise DataError(f"{target}: is a data set of {read_kind(target)}, not of {source.kind}.")
    for name in (_NAMES, _TEMPLATES):
        if name not in texts:
            continue
        there = read_names(target / name)
        new = tuple(texts[name].decode().removesuffix("\n").split("\n"))
        if there != new:
            what = next((pair for pair in zip(there, new, strict=False) if pair[0] != pair[1]), None)
            told = f"{what[0]!r} there, {what[1]!r} here" if what else f"{len(there)} lines there, {len(new)} here"
            raise DataError(f"{target / name}: differs from that of the new split: {told}.")
    has, gets = (about.get("metadata_fields") or [] for about in (read_about(target), _about(texts)))
    if has != gets:
        raise DataError(
            f"{target / 'about.json'}: the columns of its metadata are {has}, those of the new split {gets}. Give both "
            "the same."
        )


def _about(texts: Mapping[str, bytes]) -> dict[str, Any]:
    return dict(json.loads(texts.get("about.json", b"{}")))


def _write_shards(
    base: Path, source: Source, max_count: int, max_size: int, form: ImageFormat, progress: bool
) -> tuple[list[str], list[ShardFacts]]:
    """The keys of all samples, and what each shard holds."""
    from tqdm.auto import tqdm

    keys: list[str] = []
    examples = tqdm(source.examples, "building", total=source.count, unit=" samples", disable=not progress)
    with ShardWriter(base, max_count, max_size) as shards:
        for example in examples:
            keys.append(f"s{len(keys):07d}")
            shards.add(keys[-1], sample_members(example, source.kind, len(source.classnames), form))
    if not keys:
        raise DataError("The source has no example, so there is nothing to write.")
    return keys, shards.facts


def _riddle(riddle: Association, keys: Sequence[str]) -> str:
    line = {
        "cue": riddle.cue,
        "candidates": [keys[place] for place in riddle.candidates],
        "right": [keys[place] for place in riddle.right],
    }
    return json.dumps(line, ensure_ascii=False) + "\n"


def _put(scratch: Path, target: Path, split: str, *, whole: bool) -> None:
    """Under its name at once: the whole folder, or the split in the folder that is there."""
    if whole:
        if target.exists():
            target.rmdir()  # it is empty
        scratch.rename(target)
        return
    (target / split).parent.mkdir(parents=True, exist_ok=True)
    (scratch / split).rename(target / split)
