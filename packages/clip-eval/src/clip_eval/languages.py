"""Captions of one set of images in many languages: text files beside the shards, so that images are encoded once.

    <root>/<split>/captions/de.txt      one line per image, in the order of the shards: its caption
    <root>/<split>/captions/ja.jsonl    the same, each line a JSON list of any number of captions

The name of the file is the language, spelled as the source spells it. XTD10's and XTD200's files are of the first kind
as they come. A blank line, or an empty list, is an image without a caption in this language: it asks for none and
stays in the gallery. `about.json` may name the language of the captions inside the shards, {"language": "en"}, and must
name the others where the set is fetched from a URL, {"languages": ["de", "ja"]}: a web server does not list its files.
"""

from __future__ import annotations

import json
import re
from os import PathLike
from pathlib import Path

from clip_core.errors import DataError, listed
from clip_eval.prompts import MissingWords, prompts_for
from clip_eval.wds import WdsDataset
from clip_eval.wds.text_files import read_about, read_lines

__all__ = ["captions_in", "languages_of", "missing_language", "stated_files"]

_ENDINGS = (".txt", ".jsonl")


def languages_of(dataset: WdsDataset) -> tuple[str, ...]:
    """The languages that `captions_in` can be asked for, in alphabetical order."""
    folder = dataset.folder / dataset.split / "captions"
    files = folder.iterdir() if folder.is_dir() else ()
    found = {path.name.removesuffix(path.suffix) for path in files if path.suffix in _ENDINGS}
    return tuple(sorted(found | {_own_language(dataset)} - {""}))


def missing_language(dataset: WdsDataset, language: str | None, *, words: str | PathLike[str] | None = None) -> str:
    """What to say of a data set that has nothing in `language`, neither captions nor class names and templates.

    Empty where it has, or where no language is asked for. words: a folder of one's own, see `prompts_for`.
    """
    if language is None:
        return ""
    if dataset.kind not in ("classification", "multilabel"):
        return _missing_captions(dataset, language)
    try:
        prompts_for(dataset.name, language, folder=words)
    except MissingWords as error:
        return str(error)
    return ""


def captions_in(dataset: WdsDataset, language: str | None = None) -> tuple[tuple[str, ...], ...]:
    """N tuples of captions in `language`, possibly empty ones; None is what stands in the shards.

    Raises:
        DataError: there are none in that language, or not one line for each image.
    """
    if language is None:
        return dataset.captions
    if missing := _missing_captions(dataset, language):
        raise DataError(missing)
    folder = dataset.folder / dataset.split / "captions"
    there = [path for path in (folder / f"{language}{ending}" for ending in _ENDINGS) if path.exists()]
    if len(there) == 2:
        raise DataError(f"{folder}: holds both {there[0].name} and {there[1].name}. Remove one of them.")
    if not there:
        return dataset.captions
    lines = read_lines(there[0])
    if len(lines) != len(dataset.samples):
        raise DataError(
            f"{there[0]}: holds {len(lines)} lines for {len(dataset.samples)} images; line by line it must follow the "
            "order of the shards, and a blank line stands for an image without a caption."
        )
    captions: tuple[tuple[str, ...], ...]
    if there[0].suffix == ".txt":
        captions = tuple((line.removesuffix("\r"),) if line.strip() else () for line in lines)
    else:
        captions = tuple(_read_list(line, f"{there[0]}: line {number}") for number, line in enumerate(lines, 1))
    if not any(captions):
        raise DataError(f"{there[0]}: holds no caption.")
    return captions


def _missing_captions(dataset: WdsDataset, language: str) -> str:
    there = languages_of(dataset)
    if language in there:
        return ""
    return (
        f"{dataset.folder}: has no captions in {language!r}; allowed: {listed(there) or 'none'}, or no language at all "
        "for the captions in the shards."
    )


def stated_files(folder: Path, split: str) -> list[str]:
    """The files of captions that a data set may have in the languages that its `about.json` names, from its root."""
    stated = read_about(folder).get("languages", [])
    names = stated if isinstance(stated, list) else [stated]
    wrong = [name for name in names if not isinstance(name, str) or re.fullmatch(r"[\w-]+", name) is None]
    if not isinstance(stated, list) or wrong:
        raise DataError(f"{folder / 'about.json'}: 'languages' is a list of their names, not {stated!r}.")
    return [f"{split}/captions/{name}{ending}" for name in names for ending in _ENDINGS]


def _own_language(dataset: WdsDataset) -> str:
    own = read_about(dataset.folder).get("language", "")
    if not isinstance(own, str):
        raise DataError(f"{dataset.folder / 'about.json'}: 'language' is a text, not {own!r}.")
    return own


def _read_list(line: str, name: str) -> tuple[str, ...]:
    try:
        captions = json.loads(line)
    except ValueError as error:
        raise DataError(f"{name}: not valid JSON ({error}).") from error
    if not isinstance(captions, list) or not all(isinstance(text, str) and text.strip() for text in captions):
        raise DataError(f"{name}: must be a list of captions, none of them blank, not {line[:60]!r}.")
    return tuple(captions)
