"""What is known of one set of published weights, as a record; the records themselves are in `tags/`.

A fact that is not known is None. Nothing is guessed: what neither a tag's name nor its authors say stays None.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from clip_core import get_config, list_models
from clip_core.config import Activation, ClipConfig
from clip_core.presets import QUICK_GELU_SUFFIX
from clip_core.presets.parts import OPENAI_MEAN, OPENAI_STD, Rgb

__all__ = ["LICENCES", "OPENCLIP_TABLE", "Layout", "Licence", "Score", "Tag"]

Licence = Literal["mit", "apache-2.0", "cc-by-nc-4.0", "apple-amlr", "apple-ascl"]

LICENCES: dict[Licence, str] = {
    "mit": "MIT",
    "apache-2.0": "Apache 2.0",
    "cc-by-nc-4.0": "Creative Commons BY-NC 4.0: no commercial use",
    "apple-amlr": "Apple Machine Learning Research Model License: research only",
    "apple-ascl": "Apple Sample Code License",
}
"""The licences of the rows, by the identifiers that the Hub's cards use, and what they are called."""

Layout = Literal["openclip"]

OPENCLIP_TABLE = "OpenCLIP's table of zero-shot results on DataComp's 38 sets"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One published figure."""

    dataset: str
    metric: str
    value: float
    """0 to 1."""
    source: str
    """Who published it, and where."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tag:
    """One set of published weights. None means that the fact is not known here."""

    model: str
    """Architecture name without the "-quickgelu" suffix."""
    tag: str
    repo: str
    """Hub repository, "organisation/name"."""
    files: tuple[str, ...] = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    """Names of the weights in the repository, the preferred first; the first that is there is taken."""
    revision: str = "main"
    url: str | None = None
    """Where the same weights were published before the Hub had them. OpenAI's are TorchScript, in a folder named by the
    sha256; the names of OpenCLIP's end with its first eight digits."""
    layout: Layout = "openclip"
    """Whose names the tensors carry."""
    activation: Activation | None = "gelu"
    """What the towers that can choose one were trained with; another one silently costs accuracy, so it is applied
    without asking. None where both towers are another library's and keep their own."""
    mean: Rgb = OPENAI_MEAN
    std: Rgb = OPENAI_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"
    licence: Licence | None = None
    data: str | None = None
    """What they were trained on."""
    samples_seen: int | None = None
    """Pairs of image and text seen in training, repetitions counted; a short fine-tuning at the end is left out."""
    imagenet: float | None = None
    """Published zero-shot top-1 accuracy on ImageNet-1k, 0 to 1."""
    average_38: float | None = None
    """Published mean over DataComp's 38 evaluation sets of each set's main metric, 0 to 1."""
    measured_by: str = OPENCLIP_TABLE
    """Where `imagenet` and `average_38` are from."""
    scores: tuple[Score, ...] = ()
    """Other published figures; those of the same metric may differ from the ones above by how they were measured."""
    fingerprint: tuple[float, ...] | None = None
    """What `probe.Probe.fingerprint` gives for these weights, in float32; None where nobody has measured it."""
    note: str | None = None
    """What a user should know and no other field says."""

    @property
    def name(self) -> str:
        """What `clip_hub.load` takes: "model:tag"."""
        return f"{self.model}:{self.tag}"

    @property
    def names(self) -> tuple[str, ...]:
        """Architecture names under which the weights are listed."""
        alias = self.model + QUICK_GELU_SUFFIX
        return (self.model, alias) if self.activation == "quick_gelu" and alias in list_models() else (self.model,)

    def config(self) -> ClipConfig:
        """The architecture with the activation and the preprocessing that these weights were trained with."""
        config = get_config(self.model)
        if self.activation is not None:
            config = config.with_activation(self.activation)
        preprocess = dataclasses.replace(
            config.preprocess,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            resize_mode=self.resize_mode,
        )
        return dataclasses.replace(config, preprocess=preprocess)
