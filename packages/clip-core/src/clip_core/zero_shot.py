"""Classification by text: class names and prompt templates become a (D, C) weight matrix, images are scored with it.

Names of data sets and their templates are in clip-eval. Shapes: B images, D features, C classes, T templates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.model import Clip

if TYPE_CHECKING:
    from clip_core.tokenizer import Tokenizer

__all__ = [
    "Template",
    "build_multilingual_classifiers",
    "build_zero_shot_classifier",
    "class_prompts",
    "encode_texts",
    "fill_template",
]

Template = str | Callable[[str], str]


def fill_template(template: Template, classname: str) -> str:
    """The prompt for one class: "{c}" or "{}" in a string is replaced by the name, a callable is called with it.

    Raises:
        ConfigError: a string template has neither, so it would give every class the same prompt.
    """
    if callable(template):
        return template(classname)
    if not isinstance(template, str) or not isinstance(classname, str):
        raise ConfigError(
            f"The template is {template!r} and the class {classname!r}; allowed: strings, or a callable as template."
        )
    place = next((place for place in ("{c}", "{}") if place in template), None)
    if place is None:
        raise ConfigError(f"The template {template!r} has no place for the class; write it as {{c}} or {{}}.")
    return template.replace(place, classname)


def class_prompts(
    classnames: Sequence[str] | Mapping[str, Sequence[str]], templates: Sequence[Template] | None = None
) -> list[list[str]]:
    """The prompts of each class: every template filled with its name, or those that a mapping of classes gives.

    Raises:
        ConfigError: no classes, no templates, one string instead of a list, a template without a place for the class,
            or both prompts and templates.
    """
    if isinstance(classnames, Mapping):
        if templates is not None:
            raise ConfigError("The classes bring their own prompts; leave out templates, or give a list of names.")
        _require_list("classnames", classnames)
        for name, prompts in classnames.items():
            _require_list(f"The prompts of class {name!r}", prompts)
        return [list(prompts) for prompts in classnames.values()]
    _require_list("classnames", classnames)
    _require_list("templates", templates)
    return [[fill_template(template, name) for template in templates or ()] for name in classnames]


@torch.no_grad()
def encode_texts(
    model: Clip, tokenizer: Tokenizer, texts: Sequence[str], *, batch_size: int = 256, progress: bool = False
) -> Tensor:
    """Normalised text features (len(texts), D) in float32 on the CPU, in the order of `texts`.

    Args:
        model: in evaluation mode, on any device.
        tokenizer: the model's own.
        texts: one or more strings.
        batch_size: texts encoded at once.
        progress: show a bar on stderr.
    """
    from tqdm import tqdm

    _require_list("texts", texts)
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; allowed: 1 or more.")
    # Texts that begin alike share that part of the work where they are in one batch (layers.reading).
    order = sorted(range(len(texts)), key=texts.__getitem__)
    parts = []
    for start in tqdm(range(0, len(texts), batch_size), desc="texts", unit="batch", disable=not progress):
        tokens = tokenizer([texts[row] for row in order[start : start + batch_size]])
        parts.append(F.normalize(model.encode_text(tokens).float(), dim=-1).cpu())
    return torch.cat(parts)[torch.tensor(order).argsort()]


def build_zero_shot_classifier(
    model: Clip,
    tokenizer: Tokenizer,
    classnames: Sequence[str] | Mapping[str, Sequence[str]],
    templates: Sequence[Template] | None = None,
    *,
    batch_size: int = 256,
    progress: bool = False,
) -> Tensor:
    """Classifier weights (D, C) in float32 on the CPU, columns of length 1.

    A class is the mean of its normalised prompts, normalised again (Radford et al. 2021, section 3.1.4). Scores are
    `logit_scale * image_features @ weights`. Each distinct prompt is encoded once.

    Args:
        model: in evaluation mode, on any device.
        tokenizer: the model's own.
        classnames: names for the templates, or the prompts of each class in full, {"tench": ["a photo of a fish"]}.
        templates: strings with "{c}" or "{}", or callables; None with prompts in full.
        batch_size: prompts encoded at once.
        progress: show a bar on stderr.

    Raises:
        ConfigError: as `class_prompts`.
    """
    (weights,) = _classifiers(model, tokenizer, [class_prompts(classnames, templates)], batch_size, progress)
    return weights


def build_multilingual_classifiers(
    model: Clip,
    tokenizer: Tokenizer,
    languages: Mapping[str, tuple[Sequence[str], Sequence[Template]]],
    *,
    batch_size: int = 256,
    progress: bool = False,
) -> dict[str, Tensor]:
    """One matrix of `build_zero_shot_classifier` for each language, (D, C) each, {"en": ..., "de": ...}.

    `languages` gives the class names and the templates of each. A prompt that several of them have is encoded once.

    Raises:
        ConfigError: no languages, different numbers of classes, or as `class_prompts`.
    """
    _require_list("languages", languages)
    prompts = [class_prompts(names, templates) for names, templates in languages.values()]
    counts = {language: len(classes) for language, classes in zip(languages, prompts, strict=True)}
    if len(set(counts.values())) > 1:
        raise ConfigError(f"The languages name different numbers of classes ({counts}); give each the same ones.")
    return dict(zip(languages, _classifiers(model, tokenizer, prompts, batch_size, progress), strict=True))


def _classifiers(
    model: Clip, tokenizer: Tokenizer, sets: Sequence[list[list[str]]], batch_size: int, progress: bool
) -> list[Tensor]:
    """A (D, C) matrix for each set of classes, a class being its prompts."""
    distinct = {prompt: 0 for classes in sets for prompts in classes for prompt in prompts}
    rows = {prompt: row for row, prompt in enumerate(distinct)}
    features = encode_texts(model, tokenizer, list(rows), batch_size=batch_size, progress=progress)
    matrices = []
    for classes in sets:
        means = [features[[rows[prompt] for prompt in prompts]].mean(dim=0) for prompts in classes]
        matrices.append(F.normalize(torch.stack(means), dim=-1).T.contiguous())
    return matrices


def _require_list(title: str, values: object) -> None:
    if isinstance(values, str) or not values:
        raise ConfigError(f"{title} is {values!r}; allowed: a list of one or more.")
