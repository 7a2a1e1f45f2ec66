"""clip-core's models with the arguments, outputs and attributes of OpenCLIP's classes.

A model is built by clip-core and then given one of these classes (`present`): the parameters, their names and the
mathematics stay. Shapes: B batch, S tokens, D features, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import clip_core.coca
from clip_core import Clip
from clip_core.errors import ConfigError
from clip_core.layers.block import Transformer
from clip_core.model import FlatClip, NestedClip
from clip_hub.drop_in.captions import generate_captions

__all__ = [
    "CLIP",
    "CoCa",
    "CustomTextCLIP",
    "convert_weights_to_lp",
    "get_cast_dtype",
    "get_input_dtype",
    "get_model_preprocess_cfg",
    "get_model_tokenize_cfg",
    "present",
    "set_model_preprocess_cfg",
]


class _Presented(Clip):
    """What OpenCLIP's models have and clip-core's do not."""

    output_dict: bool = False
    """Whether `forward` gives a dict instead of a tuple."""

    def forward_intermediates(
        self,
        image: Tensor | None = None,
        text: Tensor | None = None,
        image_indices: int | Sequence[int] | None = None,
        text_indices: int | Sequence[int] | None = None,
        stop_early: bool = False,
        normalize: bool = True,
        normalize_intermediates: bool = False,
        intermediates_only: bool = False,
        image_output_fmt: Any = "NCHW",
        image_output_extra_tokens: bool = False,
        text_output_fmt: str = "NLC",
        text_output_extra_tokens: bool = False,
        output_logits: bool = False,
        output_logit_scale_bias: bool = False,
    ) -> dict[str, Tensor | list[Tensor]]:
        """See `Clip.forward_intermediates`; `stop_early` changes nothing: nothing is run that is not asked for.

        Raises:
            ConfigError: also for `normalize_intermediates`, and for another `text_output_fmt` than "NLC".
        """
        if normalize_intermediates or text_output_extra_tokens or text_output_fmt != "NLC":
            raise ConfigError(
                f"forward_intermediates got normalize_intermediates={normalize_intermediates}, "
                f"text_output_extra_tokens={text_output_extra_tokens}, text_output_fmt={text_output_fmt!r}; allowed: "
                "False, False and 'NLC'. Apply model.visual.ln_post or model.ln_final to what comes out."
            )
        return super().forward_intermediates(
            image,
            text,
            image_indices,
            text_indices,
            normalize=normalize,
            intermediates_only=intermediates_only,
            image_output_fmt=image_output_fmt,
            image_output_extra_tokens=image_output_extra_tokens,
            output_logits=output_logits,
            output_logit_scale_bias=output_logit_scale_bias,
        )


class _TwoTowers(_Presented):
    def encode_image(
        self, image: Tensor | Mapping[str, Tensor], normalize: bool = False, *, deterministic: bool = False
    ) -> Tensor:
        """Images (B, 3, height, width) -> features (B, D); see `Clip.encode_image`."""
        return super().encode_image(image, normalize, deterministic=deterministic)

    def encode_text(
        self,
        text: Tensor,
        normalize: bool = False,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        deterministic: bool = False,
    ) -> Tensor:
        """Token ids (B, S) -> features (B, D); see `Clip.encode_text`."""
        return super().encode_text(text, normalize, lengths=lengths, deterministic=deterministic)

    def forward(  # type: ignore[override]  # what OpenCLIP gives
        self,
        image: Tensor | None = None,
        text: Tensor | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Tensor | None, ...] | dict[str, Tensor | None]:
        """Normalised features (B, D), the scale exponentiated, and the bias where there is one.

        As a tuple in this order, or with `output_dict` as a dict: `image_features`, `text_features`, `logit_scale`,
        `logit_bias`. Features of what was not given are None.
        """
        found = super().forward(image, text, lengths)._asdict()
        if found["logit_bias"] is None:
            del found["logit_bias"]
        return found if self.output_dict else tuple(found.values())


class CLIP(_TwoTowers, FlatClip):  # type: ignore[misc]  # forward takes both inputs here
    """OpenCLIP's `CLIP`: the parameters of the text tower stand beside `visual`."""

    @property
    def attn_mask(self) -> Tensor | None:
        """(S, S): 0 where a token sees another one, minus infinity behind it; None for a tower that sees everything."""
        return _causal_mask(self.context_length, self.logit_scale.device) if self.text_config.causal else None

    @property
    def text_pool_type(self) -> str:
        """Which token is read, in OpenCLIP's words."""
        return "argmax" if self.text_config.pool == "highest_id" else self.text_config.pool


class CustomTextCLIP(_TwoTowers, NestedClip):
    """OpenCLIP's `CustomTextCLIP`: the text tower is the submodule `text`."""


class CoCa(_Presented, clip_core.coca.CoCa):
    """OpenCLIP's `CoCa`, whose features are normalised unless it is told otherwise."""

    def encode_image(
        self, images: Tensor | Mapping[str, Tensor], normalize: bool = True, *, deterministic: bool = False
    ) -> Tensor:
        """Images (B, 3, height, width) -> features (B, D)."""
        return super().encode_image(images, normalize, deterministic=deterministic)

    def encode_text(
        self,
        text: Tensor,
        normalize: bool = True,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        deterministic: bool = False,
    ) -> Tensor:
        """Token ids (B, S) -> features (B, D)."""
        return super().encode_text(text, normalize, lengths=lengths, deterministic=deterministic)

    def forward(  # type: ignore[override]  # what OpenCLIP gives
        self,
        image: Tensor,
        text: Tensor | None = None,
        image_latent: Tensor | None = None,
        image_embs: Tensor | None = None,
        output_labels: bool = True,
    ) -> dict[str, Tensor]:
        """Images (B, 3, height, width) and token ids (B, S) -> a dict.

        `image_features` and `text_features` (B, D), normalised; `logits` (B, S - 1, V) of the tokens behind the first
        and `labels` (B, S - 1), those tokens; `logit_scale`, exponentiated; `logit_bias` where there is one. Without
        `output_labels` logits are (B, S, V). Without texts: `image_features` and `image_embs`, which the next call
        takes as `image_latent` and `image_embs` instead of computing them.
        """
        if image_latent is None or image_embs is None:
            features, image_embs = self.visual.features_and_tokens(self._checked_images(image))
            image_latent = F.normalize(features, dim=-1)
        if text is None:
            return {"image_features": image_latent, "image_embs": image_embs}
        # A caption that is being written has no labels yet, and is shorter than those that the model was trained on.
        tokens = (self._checked_tokens(text) if output_labels else text).to(self.logit_scale.device)
        text_features, text_tokens = self.text.text_features_and_tokens(tokens)
        found = {
            "image_features": image_latent,
            "text_features": F.normalize(text_features, dim=-1),
            "logits": self.text_decoder(image_embs, text_tokens[:, :-1] if output_labels else text_tokens),
            "logit_scale": self.logit_scale.exp(),
        }
        if output_labels:
            found["labels"] = tokens[:, 1:]
        if self.logit_bias is not None:
            found["logit_bias"] = self.logit_bias
        return found

    def generate(self, image: Tensor, text: Tensor | None = None, **options: Any) -> Tensor:  # type: ignore[override]
        """One caption per image as token ids (B, L), with OpenCLIP's options; see `captions.generate_captions`."""
        return generate_captions(super().generate, self.text_decoder.config, image, text, **options)


class _Blocks(Transformer):
    """The blocks of a text tower, which also take OpenCLIP's `attn_mask` from code that embeds texts by hand."""

    def get_cast_dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    def forward(self, x: Tensor, mask: Tensor | None = None, attn_mask: Tensor | None = None) -> Tensor:
        """(B, S, W) -> (B, S, W).

        Raises:
            ConfigError: `attn_mask` is another one than the causal mask that these blocks apply by themselves.
        """
        if mask is not None and mask.is_floating_point():  # OpenCLIP's, without its name; those of clip-core are bool
            mask, attn_mask = None, mask
        if attn_mask is not None:
            causal = _causal_mask(x.shape[1], attn_mask.device).to(attn_mask.dtype)
            first: Any = self.resblocks[0]
            if not first.attn.causal or not torch.equal(attn_mask, causal):
                raise ConfigError(
                    f"attn_mask of shape {tuple(attn_mask.shape)} is not the causal mask that these blocks have; "
                    "allowed: None, or model.attn_mask cut to the length of x in both directions."
                )
        return super().forward(x, mask)


def present(model: Clip, preprocess_cfg: Mapping[str, Any], *, output_dict: bool | None = None) -> Any:
    """`model` itself, as one of the classes above and in training mode, which is how OpenCLIP returns one."""
    shown: Any = model
    if isinstance(model, clip_core.coca.CoCa):
        shown.__class__ = CoCa
    else:
        shown.__class__ = CLIP if isinstance(model, FlatClip) else CustomTextCLIP
    blocks: Any = getattr(shown.text_tower, "transformer", None)
    if type(blocks) is Transformer:
        blocks.__class__ = _Blocks
    if output_dict and not isinstance(shown, CoCa):
        shown.output_dict = True
    set_model_preprocess_cfg(shown, preprocess_cfg)
    return shown.train()


def convert_weights_to_lp(model: Any, dtype: torch.dtype = torch.float16) -> None:
    """Make `model` one of `dtype` as `create_model(precision=...)` does: norms too, the scale and bias of logits not.

    Raises:
        ConfigError: `dtype` is none of floating point.
    """
    if not dtype.is_floating_point:
        raise ConfigError(f"dtype is {dtype}; allowed: torch.float16, torch.bfloat16 and torch.float32.")
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.is_floating_point() and name not in ("logit_scale", "logit_bias"):
            value.data = value.data.to(dtype)


def get_input_dtype(precision: str) -> torch.dtype | None:
    """The dtype that images are to be given in; None is float32."""
    return {"bf16": torch.bfloat16, "pure_bf16": torch.bfloat16, "fp16": torch.float16, "pure_fp16": torch.float16}.get(
        precision
    )


def get_cast_dtype(precision: str) -> torch.dtype | None:
    """The dtype of the weights of a `precision`, for the two that have a name of their own; else None."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def get_model_preprocess_cfg(model: Any) -> dict[str, Any]:
    """What `model`'s images need, by the fields of `PreprocessCfg`."""
    found: dict[str, Any] = model.visual.preprocess_cfg
    return found


def set_model_preprocess_cfg(model: Any, preprocess_cfg: Mapping[str, Any]) -> None:
    """State what `model`'s images need, by the fields of `PreprocessCfg`."""
    model.visual.image_mean = preprocess_cfg["mean"]
    model.visual.image_std = preprocess_cfg["std"]
    model.visual.preprocess_cfg = copy.deepcopy(dict(preprocess_cfg))


def get_model_tokenize_cfg(model: Any) -> dict[str, int]:
    """`context_length` and `vocab_size` of the text tower."""
    tower = getattr(model, "text", model)
    return {"context_length": tower.context_length, "vocab_size": tower.vocab_size}


def _causal_mask(length: int, device: torch.device) -> Tensor:
    return torch.full((length, length), float("-inf"), device=device).triu(1)
