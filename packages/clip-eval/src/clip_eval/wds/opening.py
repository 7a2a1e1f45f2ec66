"""Opens a folder in the layout of the `wds_*` benchmark sets, checks that it is whole, and gives what it holds.

    classnames.txt                          one name per line; the line is the label
    zeroshot_classification_templates.txt   one prompt per line, with {c}
    dataset_type.txt                        a `Kind`; without it classification
    about.json                              ours: title, source, licence, names of the metadata's columns
    <split>/nshards.txt                     number of shards
    <split>/0.tar ... N-1.tar               images and what stands beside them, see `annotations`
    <split>/manifest.json                   ours: see `manifest`
    <split>/associations.jsonl              ours: see `annotations`
    <split>/captions/                       ours: captions in further languages, see `clip_eval.languages`

What is not here: getting it from elsewhere (`clip_eval.places`), writing it (`clip_eval.building`).
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from clip_core.errors import DataError, listed
from clip_eval.wds.annotations import (
    read_associations,
    read_captions,
    read_choices,
    read_labels,
    read_present,
    read_vectors,
)
from clip_eval.wds.dataset import Association, WdsDataset
from clip_eval.wds.manifest import read_manifest
from clip_eval.wds.tars import Sample, image_extension, index_shard
from clip_eval.wds.text_files import (
    check_class_names,
    choose_objective,
    read_about,
    read_count,
    read_kind,
    read_names,
    read_templates,
)

__all__ = ["check_size", "open_dataset"]


def open_dataset(
    folder: str | PathLike[str],
    split: str = "test",
    *,
    name: str | None = None,
    objective: str = "",
    classnames: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    metadata_fields: Sequence[str] = (),
    allow_duplicate_classnames: bool = False,
    verify: bool = True,
) -> WdsDataset:
    """Opens one split of a data set folder, such as CLIP_benchmark's webdataset_builder or `clip-eval build` writes.

    The whole index, the labels and the captions are read and checked here, images are not.

    Args:
        folder: the one that holds `classnames.txt`, `dataset_type.txt` and the splits.
        split: its name; may lie deeper, as "test/easy".
        name: what to call the set; default the folder's name, or that of the repository of the Hub.
        objective: which question to ask of a set that has several, "race" or "age" of FairFace and UTKFace. The labels
            are then the metadata's column of this name.
        classnames, templates: instead of the set's own files, which need not be there then.
        metadata_fields: names of the metadata's columns; default what `about.json` says under "metadata_fields".
        allow_duplicate_classnames: ImageNet's own list names two classes twice.
        verify: compare the shards' hashes with the manifest, where there is one; sizes and counts are always compared.

    Raises:
        DataError: whatever is missing or does not fit: no `nshards.txt`, a shard or sample more or fewer than it and
            the manifest say, a label without a class name, a class named twice, a template without `{c}`, a sample
            without image, label or caption.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such data set folder. Build one with `clip-eval build`, or check the path.")
    kind = read_kind(root)
    paths = _shard_paths(root, split)
    samples = tuple(sample for path in paths for sample in index_shard(path))
    if not samples:
        raise DataError(f"{root / split}: the shards hold no sample.")
    for sample in samples:
        image_extension(sample)
    manifest = read_manifest(root / split)
    if manifest is not None:
        manifest.check(root / split, paths, samples, hashes=verify)
    name = _name(root) if name is None else name
    if kind in ("retrieval", "caption_choice", "association"):
        captions = read_captions(samples) if kind != "association" else ()
        right, examples, categories = read_choices(samples, captions) if kind == "caption_choice" else ((), (), ())
        riddles: tuple[Association, ...] = ()
        if kind == "association":
            riddles = read_associations(root / split / "associations.jsonl", samples)
        return WdsDataset(
            name=name,
            folder=root,
            split=split,
            kind=kind,
            samples=samples,
            captions=captions,
            right_captions=right,
            examples=examples,
            categories=categories,
            associations=riddles,
        )
    names = tuple(classnames) if classnames is not None else read_names(root / "classnames.txt")
    if manifest is not None and manifest.classes not in (None, len(names)):
        raise DataError(
            f"{root}: {len(names)} class names, its manifest says {manifest.classes}. A name was added or lost, so "
            "labels would stand for other classes."
        )
    prompts = tuple(templates) if templates is not None else None
    if prompts is None:
        prompts = read_templates(root / "zeroshot_classification_templates.txt")
    if classnames is None and templates is None:
        names, prompts = choose_objective(names, prompts, objective, str(root))
    check_class_names(names, str(root / "classnames.txt"), allow_duplicates=allow_duplicate_classnames)
    metadata, fields = _metadata(root, samples, metadata_fields) if kind == "classification" else ((), ())
    labels: tuple[int, ...] = ()
    if objective:
        labels = _labels_of(objective, metadata, fields, len(names), str(root))
    elif kind == "classification":
        labels = read_labels(samples, len(names))
    return WdsDataset(
        name=name,
        folder=root,
        split=split,
        kind=kind,
        samples=samples,
        classnames=names,
        templates=prompts,
        objective=objective,
        labels=labels,
        present=read_present(samples, len(names)) if kind == "multilabel" else (),
        metadata=metadata,
        metadata_fields=fields,
    )


def check_size(dataset: WdsDataset, expected: int, *, classes: int | None = None) -> None:
    """Raises `DataError` when `dataset` has not as many samples, or classes, as are expected of it.

    Counted is what one asks of it: examples of caption choice (Winoground has two images in each), riddles of
    association, and images of everything else.
    """
    counts = {"caption_choice": len(set(dataset.examples)), "association": len(dataset.associations)}
    found = counts.get(dataset.kind, len(dataset.samples))
    if found != expected:
        raise DataError(
            f"{dataset.folder / dataset.split}: {dataset.name} has {found} samples here and {expected} where its "
            "scores were published. Fetch it again; if it is a part of it on purpose, say --any-size; if it is another "
            "data set, call its folder otherwise."
        )
    if classes is not None and len(dataset.classnames) != classes:
        raise DataError(
            f"{dataset.folder}: {dataset.name} has {len(dataset.classnames)} class names here and {classes} where its "
            "scores were published. A blank line of classnames.txt is a name too."
        )


def _name(root: Path) -> str:
    """The folder's name; huggingface_hub's cache calls a folder by its commit, and the repository stands above it."""
    resolved = root.resolve()
    repository = resolved.parent.parent.name
    if resolved.parent.name == "snapshots" and "--" in repository:
        return repository.rpartition("--")[2]
    return resolved.name


def _shard_paths(root: Path, split: str) -> list[Path]:
    base = root / split
    if not base.is_dir():
        there = ", ".join(sorted(entry.name for entry in root.iterdir() if entry.is_dir())) or "none"
        raise DataError(f"{base}: the data set has no split {split!r}. Splits here: {there}.")
    count = read_count(base / "nshards.txt")
    expected = {f"{number}.tar" for number in range(count)}
    held = {path.name for path in base.glob("*.tar")}
    if held != expected:
        missing = listed(sorted(expected - held)) or "none"
        extra = listed(sorted(held - expected)) or "none"
        raise DataError(
            f"{base}: nshards.txt says {count} shard(s), the folder holds {len(held)} "
            f"(missing: {missing}; not expected: {extra}). Fetch or build the data set again."
        )
    return [base / f"{number}.tar" for number in range(count)]


def _metadata(
    root: Path, samples: Sequence[Sample], fields: Sequence[str]
) -> tuple[tuple[tuple[float, ...], ...], tuple[str, ...]]:
    """The rows of numbers about the images and the names of their columns; a set has them everywhere or nowhere."""
    if not any("npy" in sample.members for sample in samples):
        return (), ()
    rows = read_vectors(samples)
    stated = fields or read_about(root).get("metadata_fields", ())
    if not isinstance(stated, (list, tuple)) or not all(isinstance(field, str) for field in stated):
        raise DataError(f"{root / 'about.json'}: 'metadata_fields' is a list of names, not {stated!r}.")
    if stated and len(stated) != len(rows[0]):
        raise DataError(
            f"{root}: the metadata has {len(rows[0])} columns, and {len(stated)} names are given for them: "
            f"{', '.join(stated)}."
        )
    return rows, tuple(stated)


def _labels_of(
    objective: str, metadata: Sequence[Sequence[float]], fields: Sequence[str], classes: int, source: str
) -> tuple[int, ...]:
    if objective not in fields:
        told = ", ".join(fields) or 'nobody has named; pass metadata_fields=("age", "gender", ...)'
        raise DataError(
            f"{source}: nothing says the right answers of the objective {objective!r}: they would be a column of the "
            f"metadata, whose columns are {told}."
        )
    values = [row[fields.index(objective)] for row in metadata]
    wrong = next((value for value in values if value != int(value) or not 0 <= value < classes), None)
    if wrong is not None:
        raise DataError(
            f"{source}: the metadata's column {objective!r} holds {wrong:g}, but there are {classes} classes of this "
            f"objective (0 to {classes - 1})."
        )
    return tuple(int(value) for value in values)
