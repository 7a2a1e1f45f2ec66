"""The words that come with the package, and how a data set and a language find theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from clip_core.errors import ConfigError
from clip_eval.catalogue import Entry, lookup
from clip_eval.prompts.files import Templates, read_classnames, read_templates

__all__ = ["MissingWords", "Prompts", "languages_for", "prompts_for"]

_LANGUAGES = ("en", "it", "jp", "cn", "ar")
_SAME = {"zh": "cn", "ja": "jp"}
"""CLIP_benchmark's documents say `zh`, its files `cn`."""
_IMAGENET = "imagenet1k"


class MissingWords(ConfigError):
    """There are no class names or templates for a data set in a language."""


class Prompts(NamedTuple):
    """The words of one data set in one language; None: take the data set's own."""

    classnames: tuple[str, ...] | None
    """C names in the order of the labels; an empty or doubled one is as in the benchmark."""
    templates: Templates | None
    """With the placeholder `{c}`; or the full prompts of each class, by its name."""


def languages_for(name: str) -> tuple[str, ...]:
    """The languages in which words for a data set come with the package; none for sets outside the catalogue."""
    entry = lookup(name)
    if entry is None:
        return ()
    return tuple(language for language in _LANGUAGES if _packaged(entry, language) is not None)


def prompts_for(name: str, language: str = "en", *, folder: str | PathLike[str] | None = None) -> Prompts:
    """The class names and templates of a data set in a language.

    name: as `clip_eval.catalogue.find` takes it, or that of a set of your own. language: `zh` means `cn`, `ja` means
    `jp`. folder: your own words, `{language}_classnames.json` and `{language}_zeroshot_classification_templates.json`
    as CLIP_benchmark has them; either file may be missing. They go before those of the package, and work for any
    language and any data set.

    In English a set for which there are no words gives None for them, because its own are English. In another language
    that is an error, as is a language with class names but no templates for a set: the templates of ImageNet do not
    step in, and English ones do not either. Raises `MissingWords`, which names the languages that there are.
    """
    language = language.strip().lower()
    entry = lookup(name)
    found = Prompts(None, None)
    if entry is not None:
        if entry.kind not in ("classification", "multilabel"):
            captions = ", ".join(entry.languages[:8]) + (", ..." if len(entry.languages) > 8 else "")
            raise ConfigError(f"{name}: has captions, no classes. Languages of its captions: {captions}.")
        found = _packaged(entry, _SAME.get(language, language)) or found
    if folder is not None:
        own = _own(Path(folder), language, _keys(name, entry))
        found = Prompts(own.classnames or found.classnames, own.templates or found.templates)
    if language != "en" and (found.classnames is None or found.templates is None):
        missing = " and ".join(
            what for what, words in (("class names", found.classnames), ("templates", found.templates)) if words is None
        )
        there = ", ".join(languages_for(name)) or "none"
        files = f"{language}_classnames.json and {language}_zeroshot_classification_templates.json"
        raise MissingWords(
            f"{name}: there are no {missing} in {language!r}. Languages that come with the package: {there}. "
            f"For others give a folder with {files}."
        )
    return found


def _packaged(entry: Entry, language: str) -> Prompts | None:
    """None where the package has no words at all for a set in a language."""
    if language not in _LANGUAGES:
        return None
    words = _words(language)
    names, templates = _names(words, entry.names), words["templates"].get(entry.prompts)
    if names is None and templates is None:
        return None
    # In another language both or neither: an English name in an Italian sentence would be nobody's benchmark.
    if language != "en" and (names is None or templates is None):
        return None
    return Prompts(names, templates)


def _names(words: Mapping[str, Any], names: str) -> tuple[str, ...] | None:
    if places := _subsets().get(names):
        every = words["classnames"][_IMAGENET]
        return tuple(every[place] for place in places)
    found: tuple[str, ...] | None = words["classnames"].get(names)
    return found


@cache
def _words(language: str) -> dict[str, dict[str, tuple[str, ...]]]:
    data = _read(f"{language}.json")
    words = {part: {name: tuple(lines) for name, lines in entries.items()} for part, entries in data.items()}
    if language == "en":
        from clip_hub.drop_in.imagenet import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

        words["classnames"][_IMAGENET] = IMAGENET_CLASSNAMES
        words["templates"][_IMAGENET] = tuple(template("{c}") for template in OPENAI_IMAGENET_TEMPLATES)
    return words


@cache
def _subsets() -> dict[str, list[int]]:
    """Of ImageNet's 200-class variants, the places of their classes among the 1000."""
    subsets: dict[str, list[int]] = _read("imagenet_subsets.json")
    return subsets


def _read(name: str) -> Any:
    return json.loads((resources.files(__package__) / name).read_text(encoding="utf-8"))


def _keys(name: str, entry: Entry | None) -> tuple[str, ...]:
    """Names under which a file of words may have a set: CLIP_benchmark looks for it with and without its prefix."""
    plain = name.removeprefix("wds/")
    keys = [name, plain]
    if entry is not None:
        keys += [entry.name, entry.name.rpartition("/")[2], entry.prompts]
    return tuple(dict.fromkeys(filter(None, keys)))


def _own(folder: Path, language: str, keys: tuple[str, ...]) -> Prompts:
    spellings = [language, *(code for pair in _SAME.items() for code in pair if language in pair and code != language)]
    names: tuple[str, ...] | None = None
    templates: Templates | None = None
    for spelling in spellings:
        path = folder / f"{spelling}_classnames.json"
        if names is None and path.exists():
            names = read_classnames(path, *keys, required=False)
        path = folder / f"{spelling}_zeroshot_classification_templates.json"
        if templates is None and path.exists():
            templates = read_templates(path, *keys, required=False)
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of class names and templates.")
    return Prompts(names, templates)
