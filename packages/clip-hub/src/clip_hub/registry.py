"""Published weights as rows of facts: which file on the Hub, how its images and activations must be, what it scored.

The rows are in `tags/`, one file per family of architectures. A row is found by model and tag; the "-quickgelu" name
of a model finds the same row where the weights have that activation. What this room leaves out: downloading.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

from clip_core import UnknownModel, get_config
from clip_core.config import Activation, ClipConfig
from clip_core.errors import CheckpointMismatch
from clip_core.presets import QUICK_GELU_SUFFIX, split_name
from clip_core.presets.parts import OPENAI_MEAN, OPENAI_STD

__all__ = ["Tag", "all_tags", "find", "list_pretrained"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tag:
    """One set of published weights. None means that the fact is not known here; nothing is guessed."""

    model: str
    """Architecture name without the "-quickgelu" suffix."""
    tag: str
    repo: str
    """Hub repository, "organisation/name"."""
    files: tuple[str, ...] = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    """Names of the weights in the repository, the preferred first; the first that is there is taken."""
    revision: str = "main"
    layout: Literal["openclip"] = "openclip"
    """Whose names the tensors carry."""
    activation: Activation = "gelu"
    """What the weights were trained with; another one silently costs accuracy, so it is applied without asking."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"
    data: str | None = None
    """What they were trained on."""
    samples_seen: int | None = None
    licence: str | None = None
    imagenet: float | None = None
    """Published zero-shot top-1 accuracy on ImageNet-1k, 0 to 1."""
    average_38: float | None = None
    """Published mean score over DataComp's 38 evaluation sets, 0 to 1."""

    @property
    def names(self) -> tuple[str, ...]:
        """Architecture names under which the weights are listed."""
        alias = (self.model + QUICK_GELU_SUFFIX,) if self.activation == "quick_gelu" else ()
        return (self.model, *alias)

    def config(self) -> ClipConfig:
        """The architecture with the activation and the preprocessing that these weights were trained with."""
        config = get_config(self.model).with_activation(self.activation)
        preprocess = dataclasses.replace(
            config.preprocess,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            resize_mode=self.resize_mode,
        )
        return dataclasses.replace(config, preprocess=preprocess)


def list_pretrained() -> list[tuple[str, str]]:
    """Every (model, tag) that `load` and `create_model` take, by model, then in the order of publication."""
    pairs = [(name, tag.tag) for tag in all_tags() for name in tag.names]
    return sorted(pairs, key=lambda pair: pair[0].lower())


def find(model: str, tag: str) -> Tag:
    """The row of `model` (with or without "-quickgelu") and `tag`; case of the tag is ignored.

    Raises:
        UnknownModel: no such architecture, or no weights of it under that tag; the nearest are listed.
        CheckpointMismatch: the name asks for OpenAI's activation and the weights have the ordinary one.
    """
    get_config(model)  # an unknown architecture has an error of its own
    base, quick_gelu = split_name(model)
    rows = {row.tag: row for row in all_tags() if row.model == base}
    row = rows.get(tag.lower())
    if row is None:
        if not rows:
            raise UnknownModel(f"No published weights of {base} are known here, so also none called {tag!r}.")
        advice = f"clip_hub.list_pretrained() lists all {len(rows)} of this architecture."
        raise UnknownModel.among(f"pretrained tag of {model}", tag, rows, advice)
    if quick_gelu and row.activation != "quick_gelu":
        raise CheckpointMismatch(
            f"{tag!r} was trained with activation {row.activation!r} and {model!r} asks for 'quick_gelu', which would "
            f"give wrong features. Use the name {row.model!r}."
        )
    return row


@functools.cache
def all_tags() -> tuple[Tag, ...]:
    """Every row, each once, in the order of its family's file."""
    from clip_hub.tags import vit_b_32

    return (*vit_b_32.TAGS,)
