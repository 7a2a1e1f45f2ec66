"""Data sets that torchvision or Hugging Face's `datasets` read.

Where the library gives access to the image's file its bytes are kept, otherwise the decoded picture is stored without
loss. Nothing is downloaded unless it is asked for.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_core.errors import ConfigError, DataError, UnknownModel
from clip_eval.building.pictures import Example
from clip_eval.building.source import Source

__all__ = ["huggingface_dataset", "torchvision_dataset"]


def torchvision_dataset(
    name: str,
    root: str | os.PathLike[str],
    *,
    split: str = "test",
    download: bool = False,
    options: Mapping[str, Any] | None = None,
    classnames: Sequence[str] = (),
    templates: Sequence[str] = (),
) -> Source:
    """A classification set of `torchvision.datasets`.

    Args:
        name: of the class, "CIFAR10".
        root: where its files lie.
        split: handed on as `split`, or as `train=` "train" or not, as the class has it.
        download: let torchvision fetch what is missing.
        options: further arguments of the class.
        classnames: default its `classes`.

    Raises:
        ConfigError: no such class, or arguments that it does not take.
        DataError: its files are missing, or it does not name its classes.
    """
    from torchvision import datasets

    kind = getattr(datasets, name, None)
    if name not in datasets.__all__ or not isinstance(kind, type):
        raise ConfigError(str(UnknownModel.among("data set of torchvision", name, datasets.__all__, "")).strip())
    known = inspect.signature(kind).parameters
    given: dict[str, Any] = dict(options or {})
    if "root" in known:
        given.setdefault("root", os.fspath(root))
    if "split" in known:
        given.setdefault("split", split)
    elif "train" in known:
        given.setdefault("train", split == "train")
    if "download" in known:
        given.setdefault("download", download)
    try:
        dataset = kind(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"torchvision's {name} does not take {given}: {error}") from error
    except (RuntimeError, OSError) as error:
        raise DataError(f"torchvision's {name} cannot be read from {root}: {error}") from error
    names = tuple(classnames) or tuple(_joined(each) for each in getattr(dataset, "classes", ()))
    if not names:
        raise DataError(f"torchvision's {name} does not name its classes. Give the class names in their order.")
    return Source(
        kind="classification",
        examples=_torchvision_examples(dataset, name),
        classnames=names,
        templates=tuple(templates),
        count=len(dataset),
    )


def huggingface_dataset(
    path: str | os.PathLike[str],
    *,
    split: str = "test",
    config: str | None = None,
    revision: str | None = None,
    image: str | None = None,
    label: str | None = None,
    captions: Sequence[str] = (),
    classnames: Sequence[str] = (),
    templates: Sequence[str] = (),
) -> Source:
    """A split of a data set of Hugging Face's `datasets`: on disk (`save_to_disk`), a folder of files, or on the Hub.

    Args:
        config, revision: which configuration and commit, of a set that is not on disk.
        image: column of images; default the only one.
        label: column of one label or several; default the only one that names its classes, if no captions are given.
        captions: columns of captions, each a text or a list.
        classnames: default those of the column.

    Raises:
        ConfigError: no such split or column, or `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("This needs Hugging Face's datasets: pip install 'clip-eval[huggingface]'.") from error
    try:
        if (Path(path) / "state.json").is_file() or (Path(path) / "dataset_dict.json").is_file():
            found = datasets.load_from_disk(os.fspath(path))
            if isinstance(found, datasets.DatasetDict):
                if split not in found:
                    raise ConfigError(f"{path}: has no split {split!r}; its splits: {', '.join(found)}.")
                found = found[split]
        else:
            found = datasets.load_dataset(os.fspath(path), config, split=split, revision=revision)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: datasets cannot read it: {error}") from error
    features = found.features
    image = image or _only(features, lambda kind: isinstance(kind, datasets.Image), "image", path)
    for column in (image, label, *captions):
        if column is not None and column not in features:
            raise ConfigError(f"{path}: has no column {column!r}; its columns: {', '.join(features)}.")
    found = found.cast_column(image, datasets.Image(decode=False))
    if captions:
        examples = (Example(image=_file(row[image], path), captions=_texts(row, captions)) for row in found)
        return Source(kind="retrieval", examples=examples, count=len(found))
    label = label or _only(features, lambda kind: _classes(kind) is not None, "label", path)
    known = _classes(features[label])
    names = tuple(classnames) or tuple(known or ())
    if not names:
        raise ConfigError(
            f"{path}: the column {label!r} does not name its classes. Give the class names in their order."
        )
    several = isinstance(features[label], list) or hasattr(features[label], "feature")
    return Source(
        kind="multilabel" if several else "classification",
        examples=_labelled(found, image, label, several, path),
        classnames=names,
        templates=tuple(templates),
        count=len(found),
    )


def _torchvision_examples(dataset: Any, name: str) -> Iterator[Example]:
    """Of an ImageFolder and its kin by path, of the others as PIL images."""
    files = getattr(dataset, "samples", None)
    for index in range(len(dataset)):
        if isinstance(files, list) and isinstance(files[index], tuple) and isinstance(files[index][0], str):
            image, label = files[index][0], files[index][1]
        else:
            image, label = dataset[index]
        if not isinstance(label, int) and not hasattr(label, "__index__"):
            raise DataError(f"torchvision's {name} gives {type(label).__name__} as a label; only one class fits here.")
        yield Example(image=image, label=int(label))


def _joined(name: object) -> str:
    """ImageNet has several words for a class, the first of which is the usual one."""
    return str(name[0]) if isinstance(name, tuple) else str(name)


def _only(features: Mapping[str, Any], fits: Any, what: str, path: object) -> str:
    found = [name for name, kind in features.items() if fits(kind)]
    if len(found) != 1:
        told = ", ".join(found or features)
        raise ConfigError(f"{path}: has {len(found)} columns that could be the {what}; name one of {told}.")
    return found[0]


def _classes(kind: Any) -> list[str] | None:
    """The names of a ClassLabel, or of a list of them."""
    inner = kind[0] if isinstance(kind, list) else getattr(kind, "feature", kind)
    names = getattr(inner, "names", None)
    return list(names) if names is not None else None


def _labelled(found: Any, image: str, label: str, several: bool, path: object) -> Iterator[Example]:
    for number, row in enumerate(found):
        value = row[label]
        if value is None or (not several and value < 0):
            raise DataError(f"{path}: row {number} has no label; the split may be one whose labels are kept secret.")
        picture = _file(row[image], path)
        yield Example(image=picture, present=value) if several else Example(image=picture, label=value)


def _file(value: Any, path: object) -> bytes | str:
    if value is None:
        raise DataError(f"{path}: a row has no image.")
    return value["bytes"] if value["bytes"] is not None else str(value["path"])


def _texts(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    found: list[str] = []
    for column in columns:
        value = row[column]
        found.extend([value] if isinstance(value, str) else value or ())
    return found
