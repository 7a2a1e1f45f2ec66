"""Reads webdataset shards: an index of the samples in a tar, and the `wds_*` folder layout of benchmark sets.

A shard is indexed by its tar headers only: no image is decoded and no payload is read, so a later reader can seek
straight to the bytes it wants and can resume, shuffle or split without streaming. What is not here: network access,
streaming, writing (`clip_eval.datasets` writes with webdataset itself), multilabel sets.
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Literal

from clip_core.errors import DataError

__all__ = [
    "IMAGE_EXTENSIONS",
    "Association",
    "Kind",
    "Sample",
    "WdsDataset",
    "check_class_names",
    "image_extension",
    "image_name",
    "index_shard",
    "open_dataset",
    "read_image_bytes",
    "read_member",
]

IMAGE_EXTENSIONS: tuple[str, ...] = ("jpg", "png", "jpeg", "webp")

# webdataset's rule: the key is the path up to the first dot of the basename, the extension is everything after it.
# A basename that begins with a dot (".DS_Store") has no key and belongs to no sample.
_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)
# Its rule for data about the shard instead of a sample: "__meta__", "__meta__/a.txt", not "__a.txt".
_META = re.compile(r"__[^/]*__(?:$|/)")
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Sample:
    """One webdataset sample: where its members lie. Nothing is decoded and nothing is read."""

    shard: str
    """Path of the tar."""
    key: str
    """Name that the members share, for example `s0000012`; may hold folders."""
    members: Mapping[str, tuple[int, int]] = field(hash=False)
    """Extension in lower case ("png", "txt", "cls") -> (offset, size) in bytes of the data inside the tar."""


def index_shard(path: str | PathLike[str]) -> list[Sample]:
    """The samples of one uncompressed tar, in the order in which their first members stand in it.

    Only headers are read. Members of one sample need not be neighbours. Raises `DataError`, naming the file and the
    reason, for a file that is missing, is no tar, is cut short or damaged, or holds a member of a sample twice.
    """
    shard = str(path)
    found: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            while (member := tar.next()) is not None:
                # tarfile keeps every header that it has seen; a shard of 10,000 samples does not need them.
                tar.members.clear()  # type: ignore[attr-defined]
                if not member.isreg() or member.issparse():
                    continue
                match = _KEY_AND_EXTENSION.fullmatch(member.name)
                if match is None or _META.match(member.name):
                    continue
                key, extension = match[1], match[2].lower()
                members = found.setdefault(key, {})
                if extension in members:
                    raise DataError(
                        f"{shard}: the sample {key!r} holds two members .{extension}. Write the shard again."
                    )
                members[extension] = (member.offset_data, member.size)
            end = tar.offset
        _check_end_marker(shard, end)
    except FileNotFoundError:
        raise DataError(f"{shard}: no such file. Check the path and the number of shards.") from None
    except (tarfile.TarError, EOFError) as error:
        raise DataError(
            f"{shard}: not a readable tar ({error}). It is cut short, compressed, or no tar at all."
        ) from error
    except OSError as error:
        raise DataError(f"{shard}: cannot be read ({error.strerror or error}).") from error
    return [Sample(shard, key, members) for key, members in found.items()]


def _check_end_marker(shard: str, offset: int) -> None:
    """A tar ends with a block of zeros; tarfile itself stops silently at a missing or damaged header."""
    with open(shard, "rb") as file:
        file.seek(offset)
        block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        raise DataError(f"{shard}: cut short: the tar ends at byte {offset + len(block)} without its end marker.")
    if any(block):
        raise DataError(f"{shard}: damaged tar: the header at byte {offset} is not one.")


def read_member(sample: Sample, extension: str) -> bytes:
    """The bytes of one member. Raises `DataError` when the sample lacks it or the shard has become shorter."""
    try:
        offset, size = sample.members[extension]
    except KeyError:
        held = ", ".join(f".{name}" for name in sample.members) or "nothing"
        raise DataError(f"{sample.shard}: the sample {sample.key!r} has no .{extension}; it holds {held}.") from None
    try:
        with open(sample.shard, "rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise DataError(f"{sample.shard}: cannot be read ({error.strerror or error}).") from error
    if len(data) != size:
        raise DataError(
            f"{sample.shard}: short read: {sample.key}.{extension} has {len(data)} bytes instead of {size}. "
            "The shard was changed or cut after it was indexed."
        )
    return data


def image_extension(sample: Sample) -> str:
    """The extension of the sample's image, the first of `IMAGE_EXTENSIONS` that it has; `DataError` when none."""
    for extension in IMAGE_EXTENSIONS:
        if extension in sample.members:
            return extension
    held = ", ".join(f".{name}" for name in sample.members) or "nothing"
    raise DataError(
        f"{sample.shard}: the sample {sample.key!r} has no image; it holds {held}, "
        f"and an image is one of .{', .'.join(IMAGE_EXTENSIONS)}."
    )


def image_name(sample: Sample) -> str:
    """A name for messages, `shard.tar:key.png`."""
    return f"{sample.shard}:{sample.key}.{image_extension(sample)}"


def read_image_bytes(sample: Sample) -> tuple[bytes, str]:
    """The still encoded image and its name for messages."""
    return read_member(sample, image_extension(sample)), image_name(sample)


Kind = Literal["classification", "multilabel", "retrieval", "caption_choice", "association"]
"""What is asked of a data set, as `dataset_type.txt` says it; the last two are ours."""


@dataclass(frozen=True, slots=True)
class Association:
    """One riddle of WinoGAViL: a cue word, and which of the candidate images people associate with it."""

    cue: str
    candidates: tuple[int, ...]
    """Places of images in the data set."""
    right: tuple[int, ...]
    """Those of the candidates that belong to the cue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WdsDataset:
    """One split of a benchmark set on disk: all labels and captions, and where each image lies."""

    name: str
    """Name of the folder."""
    folder: Path
    split: str
    kind: Kind
    samples: tuple[Sample, ...]
    """N samples, one image each, in the order of the shards."""
    classnames: tuple[str, ...] = ()
    """C names; the position is the label, and an empty name is a name. Empty for retrieval."""
    templates: tuple[str, ...] = ()
    """Prompts with the placeholder `{c}`. Empty for retrieval."""
    labels: tuple[int, ...] = ()
    """N labels in [0, C); classification only."""
    present: tuple[tuple[int, ...], ...] = ()
    """N tuples of the labels that an image has, possibly none; multilabel only."""
    captions: tuple[tuple[str, ...], ...] = ()
    """N tuples of at least one caption each; retrieval and caption choice."""
    metadata: tuple[tuple[float, ...], ...] = ()
    """N rows of F values beside the label, as WILDS and the fairness sets have them (`.npy`); or empty."""
    right_captions: tuple[int, ...] = ()
    """N places in the image's own `captions` of the one that describes it; caption choice only."""
    examples: tuple[str, ...] = ()
    """N names of the example that an image belongs to (Winoground has two images in each); caption choice only."""
    associations: tuple[Association, ...] = ()
    """Cues with their candidate images; association only."""


def open_dataset(
    folder: str | PathLike[str], split: str = "test", *, allow_duplicate_classnames: bool = False
) -> WdsDataset:
    """Opens a folder in the layout of the `wds_*` benchmark sets (CLIP_benchmark's webdataset_builder writes it).

    The whole index, the labels and the captions are read and checked here, images are not. Raises `DataError` for
    whatever is missing or does not fit: no `nshards.txt`, a shard more or fewer than it says, a label without a class
    name, a class named twice (ImageNet's own list names two classes twice: `allow_duplicate_classnames`), a template
    without `{c}`, a sample without image, label or caption, a multilabel set.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such data set folder. Build one with `clip-eval build`, or check the path.")
    kind = _read_kind(root)
    samples = tuple(sample for path in _shard_paths(root, split) for sample in index_shard(path))
    if not samples:
        raise DataError(f"{root / split}: the shards hold no sample.")
    for sample in samples:
        image_extension(sample)
    name = root.resolve().name
    if kind == "retrieval":
        captions = tuple(_parse_captions(sample) for sample in samples)
        return WdsDataset(name=name, folder=root, split=split, kind=kind, samples=samples, captions=captions)
    classnames = tuple(line.strip() for line in _read_lines(root / "classnames.txt"))
    check_class_names(classnames, str(root / "classnames.txt"), allow_duplicates=allow_duplicate_classnames)
    labels = tuple(_parse_label(sample, len(classnames)) for sample in samples)
    return WdsDataset(
        name=name,
        folder=root,
        split=split,
        kind=kind,
        samples=samples,
        classnames=classnames,
        templates=_read_templates(root / "zeroshot_classification_templates.txt"),
        labels=labels,
    )


def check_class_names(classnames: Sequence[str], source: str, *, allow_duplicates: bool = False) -> None:
    """Raises `DataError` when there is no class, or when two share a name: their prompts could not be told apart."""
    if not classnames:
        raise DataError(f"{source}: holds no class name.")
    if allow_duplicates:
        return
    twice = [name for name, count in Counter(classnames).items() if count > 1]
    if twice:
        shown = ", ".join(repr(name) for name in twice[:5]) + (", ..." if len(twice) > 5 else "")
        raise DataError(
            f"{source}: {len(twice)} class name(s) occur more than once ({shown}), so their prompts are equal and no "
            "model can tell the classes apart. Rename them, or allow duplicate class names and read the tie bounds."
        )


def _read_kind(root: Path) -> Kind:
    path = root / "dataset_type.txt"
    if not path.exists():
        return "classification"
    word = _read_text(path).strip().lower()
    if word == "classification":
        return "classification"
    if word == "retrieval":
        return "retrieval"
    if word == "multilabel":
        raise DataError(f"{path}: multilabel sets are not supported yet; allowed: classification, retrieval.")
    raise DataError(f"{path}: unknown data set type {word!r}; allowed: classification, retrieval.")


def _shard_paths(root: Path, split: str) -> list[Path]:
    base = root / split
    if not base.is_dir():
        there = ", ".join(sorted(entry.name for entry in root.iterdir() if entry.is_dir())) or "none"
        raise DataError(f"{base}: the data set has no split {split!r}. Splits here: {there}.")
    count_file = base / "nshards.txt"
    if not count_file.exists():
        raise DataError(f"{count_file}: missing. It holds the number of shards; without it a lost shard goes unseen.")
    text = _read_text(count_file).strip()
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        raise DataError(f"{count_file}: must hold one whole number above 0, the number of shards, not {text!r}.")
    expected = {f"{number}.tar" for number in range(int(text))}
    held = {path.name for path in base.glob("*.tar")}
    if held != expected:
        missing = ", ".join(sorted(expected - held)[:5]) or "none"
        extra = ", ".join(sorted(held - expected)[:5]) or "none"
        raise DataError(
            f"{base}: nshards.txt says {text} shard(s), the folder holds {len(held)} "
            f"(missing: {missing}; not expected: {extra}). Fetch or build the data set again."
        )
    return [base / f"{number}.tar" for number in range(int(text))]


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; the data set folder is not complete.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}).") from error


def _read_lines(path: Path) -> list[str]:
    """Lines end at a line feed only, the last line feed ends a line and begins none, and a blank line is a line."""
    text = _read_text(path)
    return text.removesuffix("\n").split("\n") if text else []


def _read_templates(path: Path) -> tuple[str, ...]:
    templates = tuple(line.strip() for line in _read_lines(path))
    for number, template in enumerate(templates, 1):
        if "{c}" not in template:
            raise DataError(f"{path}: line {number}, {template!r}, has no placeholder {{c}} for the class name.")
    if not templates:
        raise DataError(f"{path}: holds no template.")
    return templates


def _parse_label(sample: Sample, classes: int) -> int:
    text = read_member(sample, "cls").decode("ascii", errors="replace").strip()
    if not (text.isascii() and text.isdigit()):
        raise DataError(f"{sample.shard}: {sample.key}.cls must hold one whole number, the label, not {text!r}.")
    label = int(text)
    if label >= classes:
        raise DataError(
            f"{sample.shard}: {sample.key}.cls holds the label {label}, but classnames.txt names {classes} classes "
            f"(0 to {classes - 1}). Images and class names belong to different sets, or a blank name was dropped."
        )
    return label


def _parse_captions(sample: Sample) -> tuple[str, ...]:
    """Captions are joined by a line feed and by nothing else: U+2028 and its like stand inside captions.

    Line ends after the last caption begin no other one. A blank line before it is an error: as a caption it would be
    a query that no image answers.

    The layout writes a line break inside a caption as backslash and n and its readers keep these two characters, so
    published numbers include them; they are kept here too.
    """
    try:
        text = read_member(sample, "txt").decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{sample.shard}: {sample.key}.txt is not UTF-8 ({error}).") from error
    if not text.strip():
        raise DataError(f"{sample.shard}: the sample {sample.key!r} has no caption; {sample.key}.txt is blank.")
    captions = tuple(text.rstrip("\r\n").split("\n"))
    for number, caption in enumerate(captions, 1):
        if not caption.strip():
            raise DataError(
                f"{sample.shard}: {sample.key}.txt: the caption in line {number} of {len(captions)} is blank. Every "
                "line is a caption; remove the blank ones and write the shard again."
            )
    return captions
