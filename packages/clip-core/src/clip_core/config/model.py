"""The whole model: two towers, what its inputs look like, and how its parameters are named."""

from __future__ import annotations

import dataclasses
from typing import Literal, TypeVar

from clip_core.config.image import ImageConfig, VitConfig
from clip_core.config.preprocess import PreprocessConfig
from clip_core.config.text import DecoderConfig, HfTextConfig, TextConfig, TextTowerConfig
from clip_core.config.tokenizer import TokenizerConfig
from clip_core.config.values import Activation, Size, as_argument, positive, size_pair
from clip_core.errors import ConfigError
from clip_core.schema import Schema

__all__ = ["ClipConfig"]

S = TypeVar("S", bound=Schema)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClipConfig(Schema):
    """A whole model: two towers that meet in `embed_dim` features, and what its inputs must look like.

    `logit_scale` is the initial value of the learned scale in log space (ln(1/0.07) for CLIP); `logit_bias` the
    initial value of the learned bias, or None for a model without one. `layout` names the parameters as OpenCLIP
    does: "flat" has the text tower's at the top level (OpenAI's), "nested" under `text.`. `decoder` makes it a CoCa.
    """

    embed_dim: int
    image: ImageConfig
    text: TextTowerConfig
    decoder: DecoderConfig | None = None
    layout: Literal["flat", "nested"] = "flat"
    logit_scale: float
    logit_bias: float | None
    preprocess: PreprocessConfig
    tokenizer: TokenizerConfig

    def check(self) -> None:
        positive(self, "embed_dim")
        self.require(
            size_pair(self.preprocess.size) == size_pair(self.image.image_size),
            "preprocess",
            f"a size equal to the image tower's image_size {self.image.image_size}",
        )
        self.require(
            self.tokenizer.context_length == self.text.context_length,
            "tokenizer",
            f"a context_length equal to the text tower's {self.text.context_length}",
        )
        if self.layout == "flat":
            self.require(self.text.kind == "transformer", "layout", "'nested' for this kind of text tower")
            self.require(self.decoder is None, "layout", "'nested' for a model with a decoder")
            class_token = isinstance(self.text, TextConfig) and self.text.class_token
            self.require(not class_token, "layout", "'nested' for a text tower with a class token")
        if isinstance(self.text, TextConfig | HfTextConfig) and self.text.projection == "none":
            self.require(self.text.width == self.embed_dim, "embed_dim", f"the text tower's width {self.text.width}")
        if isinstance(self.image, VitConfig) and self.image.attention_pool is not None:
            pool, width = self.image.attention_pool, self.image.width
            self.require(self.embed_dim % pool.heads == 0, "embed_dim", f"a multiple of the pool's {pool.heads} heads")
            fits = pool.mode == "plain" or self.embed_dim == width
            self.require(fits, "embed_dim", f"the image tower's width {width} with pool mode {pool.mode!r}")

    def resized(self, image_size: Size | None = None, context_length: int | None = None) -> ClipConfig:
        """This configuration for images of another size, in pixels, or texts of up to so many tokens; None keeps it.

        The tower, the preprocessing, the tokenizer and the decoder change together. Weights of the old size fit
        after their positions are interpolated, which loading does.
        """
        changed = self
        if image_size is not None:
            with as_argument("image_size"):
                image = dataclasses.replace(changed.image, image_size=image_size)
            changed = dataclasses.replace(
                changed,
                image=image,
                preprocess=dataclasses.replace(changed.preprocess, size=image_size),
            )
        if context_length is not None:
            decoder = changed.decoder
            with as_argument("context_length"):
                text = dataclasses.replace(changed.text, context_length=context_length)
            changed = dataclasses.replace(
                changed,
                text=text,
                tokenizer=dataclasses.replace(changed.tokenizer, context_length=context_length),
                decoder=None if decoder is None else dataclasses.replace(decoder, context_length=context_length),
            )
        return changed

    def with_activation(self, activation: Activation) -> ClipConfig:
        """This configuration with `activation` in every tower of ours that has one.

        Raises `ConfigError` where none has: another library's tower keeps its own.
        """
        changed = dataclasses.replace(
            self,
            image=_activated(self.image, activation),
            text=_activated(self.text, activation),
            decoder=None if self.decoder is None else _activated(self.decoder, activation),
        )
        if not any(hasattr(part, "activation") for part in (self.image, self.text, self.decoder)):
            raise ConfigError(f"activation is {activation!r}, but neither tower of this model can choose one.")
        return changed


def _activated(part: S, activation: Activation) -> S:
    return dataclasses.replace(part, activation=activation) if hasattr(part, "activation") else part  # type: ignore[type-var]
