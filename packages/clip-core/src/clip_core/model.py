"""The two-tower model: `encode_image`, `encode_text`, and the pair of them with the learned scale.

Shapes: B batch, S context length, D features. The state dict has the keys and shapes of OpenCLIP's: those of OpenAI's
in the flat layout, the text tower's under `text.` in the nested one. Building, loading and saving are in `building`,
`storage` and `bundle`; losses are in `kernels`; CoCa's decoder is in `coca`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_core.config import ClipConfig, TextConfig
from clip_core.errors import ConfigError
from clip_core.towers import ImageTower, TextTower, TextTransformer, build_image_tower, build_text_tower
from clip_core.towers.outputs import ImageFormat, as_layers, split_tokens
from clip_core.towers.token_rows import check_rows, checked_lengths

__all__ = ["Clip", "ClipOutput", "FlatClip", "NestedClip", "assemble"]


class ClipOutput(NamedTuple):
    """What a forward pass gives: L2-normalised features and the scale and bias of their logits.

    Features of what was not given to the model are None.
    """

    image_features: Tensor | None
    """(B, D), each row of length 1."""
    text_features: Tensor | None
    """(B, D), each row of length 1."""
    logit_scale: Tensor
    """Scalar, already exponentiated: logits are `logit_scale * image_features @ text_features.T`."""
    logit_bias: Tensor | None
    """Scalar added to the logits, or None for a model without one."""


class Clip(nn.Module):
    """A CLIP model (Radford et al. 2021). Make one with `clip_core.create_model` or `clip_core.load`.

    Its two kinds differ only in the names of the text tower's parameters: `FlatClip` and `NestedClip`.
    """

    config: ClipConfig
    visual: ImageTower
    context_length: int
    """Most tokens that a text may have."""
    vocab_size: int
    text_prefix: ClassVar[str] = "text."
    """What the names of the text tower's parameters begin with."""

    @property
    def text_tower(self) -> TextTower:
        """The module that encodes texts: this model itself in the flat layout."""
        raise NotImplementedError

    def _complete(self, config: ClipConfig) -> None:
        """Add what is not of the text tower, which exists already."""
        self.config = config
        self.visual = build_image_tower(config.image, config.embed_dim)
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.logit_bias = nn.Parameter(torch.empty(())) if config.logit_bias is not None else None

    def reset_parameters(self) -> None:
        """Draw new weights from torch's global generator and set the scale and bias to their initial values."""
        self.text_tower.reset_text_parameters()
        self.visual.reset_parameters()
        nn.init.constant_(self.logit_scale, self.config.logit_scale)
        if self.logit_bias is not None and self.config.logit_bias is not None:
            nn.init.constant_(self.logit_bias, self.config.logit_bias)

    @property
    def dtype(self) -> torch.dtype:
        """Of the towers' weights, and so of the features; the scale and bias of the logits are always float32."""
        return next(self.visual.parameters()).dtype

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block of both towers in the backward pass instead of keeping what is inside it."""
        self.visual.set_grad_checkpointing(enable)
        self.text_tower.set_text_grad_checkpointing(enable)

    def lock_image_tower(self, unlocked_groups: int = 0, freeze_bn_stats: bool = False) -> None:
        """See `ImageTower.lock`."""
        self.visual.lock(unlocked_groups, freeze_bn_stats)

    def lock_text_tower(self, unlocked_layers: int = 0, freeze_layer_norm: bool = True) -> None:
        """See `TextTower.lock_text`."""
        self.text_tower.lock_text(unlocked_layers, freeze_layer_norm)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with two dimensions or more that weight decay leaves alone: positions, tokens."""
        return {f"visual.{name}" for name in self.visual.no_weight_decay()} | {
            f"{self.text_prefix}{name}" for name in self.text_tower.no_text_weight_decay()
        }

    def adapt_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`tensors` of this layout with positions interpolated to this model's sizes; a change is logged."""
        image = {key.removeprefix("visual."): tensors[key] for key in tensors if key.startswith("visual.")}
        rest = {key: value for key, value in tensors.items() if not key.startswith("visual.")}
        text = {
            key.removeprefix(self.text_prefix): rest.pop(key) for key in list(rest) if key.startswith(self.text_prefix)
        }
        return {
            **rest,
            **{f"visual.{key}": value for key, value in self.visual.adapt_weights(image).items()},
            **{f"{self.text_prefix}{key}": value for key, value in self.text_tower.adapt_text_weights(text).items()},
        }

    def encode_image(
        self, images: Tensor | Mapping[str, Tensor], normalize: bool = False, *, deterministic: bool = False
    ) -> Tensor:
        """Images (B, 3, size, size), preprocessed, any floating dtype -> features (B, D) in the weights' dtype.

        Args:
            images: what the model's transform gives, stacked; for a NaFlex model also the patches of
                `preprocess_naflex`.
            normalize: make each row of length 1.
            deterministic: compute each image by itself, so that its features are the same to the last bit whatever
                the batch around it, on one machine with one number of threads; slower. Without it they differ by
                rounding, about 1e-6 of their size in float32.

        Raises:
            ConfigError: another shape or an integer dtype.
        """
        if isinstance(images, Mapping):
            return _normalized(self.visual.patch_features(images, alone=deterministic), normalize)
        checked = self._checked_images(images)
        encode: Callable[[Tensor], Tensor] = self.visual
        return _alone(encode, checked, normalize) if deterministic else _normalized(encode(checked), normalize)

    def encode_text(
        self,
        tokens: Tensor,
        normalize: bool = False,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        deterministic: bool = False,
    ) -> Tensor:
        """Token ids (B, S), S at most the context length -> features (B, D) on the device of the weights.

        A causal tower that reads its features at the end of the text needs nothing behind it, and computes nothing
        there if it can know where that is without waiting for a device. Either leave the ids on the CPU, whatever the
        device of the weights: then beginnings that many texts share are computed once, too. Or give `lengths`. For
        short texts both are several times faster, with gradients as without, and differ by rounding.

        Args:
            tokens: what the model's tokenizer gives, int64 or int32.
            normalize: make each row of length 1.
            lengths: (B,) integers on the CPU, or a list: tokens of each row up to and with the end of text, as
                `tokenizer.tokenize(texts).lengths`; of a text that was cut, its length uncut or S. They change no
                feature. Use of them is made by causal towers of CLIP's kind: `config.text` is a `TextConfig` with
                `causal`, without `class_token`, with a `pool` other than "last". There the feature of a row that is
                longer than they say is NaN, or, where the ids are on the CPU, it is an error. Any other tower (not
                causal: SigLIP, all of MobileCLIP but B; a class token: CoCa; ModernText; those of transformers)
                computes whole rows and does not see where a length is too short; nor do traces, torch.compile and
                `deterministic`. DistributedDataParallel and FSDP move tensors to the device; give them a list.
            deterministic: as in `encode_image`.

        Raises:
            ConfigError: ids of another shape or a floating dtype; lengths of another number, on a device, below 1, or
                too short for ids on the CPU (for the towers that use them).
        """
        checked, rows = self._checked_tokens(tokens), checked_lengths(lengths, tokens)
        tower = self.text_tower
        if not isinstance(tower, TextTransformer):
            checked = checked.to(self.logit_scale.device)
        elif not deterministic:
            return _normalized(tower.text_features(checked, rows), normalize)
        encode = tower.text_features
        return _alone(encode, checked, normalize) if deterministic else _normalized(encode(checked), normalize)

    def forward(
        self,
        image: Tensor | None = None,
        text: Tensor | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> ClipOutput:
        """Images (B, 3, size, size) and token ids (B, S) -> normalised features, scale and bias.

        Image or text may be left out, and `lengths` of the texts, as in `encode_text`. The first two have open_clip's
        names. Raises `ConfigError` without any, and as `encode_image` and `encode_text` do.
        """
        _require_input(image, text)
        return ClipOutput(
            image_features=None if image is None else self.encode_image(image, normalize=True),
            text_features=None if text is None else self.encode_text(text, normalize=True, lengths=lengths),
            logit_scale=self.logit_scale.exp(),
            logit_bias=self.logit_bias,
        )

    def forward_intermediates(
        self,
        image: Tensor | None = None,
        text: Tensor | None = None,
        image_indices: int | Sequence[int] | None = None,
        text_indices: int | Sequence[int] | None = None,
        *,
        normalize: bool = True,
        intermediates_only: bool = False,
        image_output_fmt: ImageFormat = "NCHW",
        image_output_extra_tokens: bool = False,
        output_logits: bool = False,
        output_logit_scale_bias: bool = False,
    ) -> dict[str, Tensor | list[Tensor]]:
        """What leaves the blocks of the towers, by open_clip's names and arguments.

        Args:
            image: as in `encode_image`, or None to leave this tower out.
            text: as in `encode_text`, or None to leave this tower out. Whole rows are computed, padding too, because
                intermediates have every position; so there are no lengths to give.
            image_indices: which blocks (stages of a convolutional tower): the last so many, a list (-1 the last), or
                None for all.
            text_indices: as `image_indices`.
            normalize: make the rows of the features of length 1.
            intermediates_only: leave the features out, and blocks behind the last one asked for unrun.
            image_output_fmt: "NCHW" (B, W, rows, columns) or "NLC" (B, rows * columns, W).
            image_output_extra_tokens: also give the tokens before the patches, (B, P, W).
            output_logits: also give the logits of every image for every text, and the transpose of it.
            output_logit_scale_bias: also give the scale, exponentiated, and the bias where there is one.

        Returns:
            `image_intermediates`, `image_intermediates_prefix`, `text_intermediates` (lists, the latter (B, S, W)),
            `image_features`, `text_features`, `image_logits`, `text_logits`, `logit_scale`, `logit_bias`: those that
            were asked for. Intermediates are without the tower's last norm.

        Raises:
            ConfigError: inputs that cannot be encoded, a block that is not there, logits without both inputs.
        """
        _require_input(image, text)
        output: dict[str, Tensor | list[Tensor]] = {}
        features: dict[str, Tensor] = {}
        if image is not None:
            images = self._checked_images(image)
            layers = as_layers(image_indices)
            if intermediates_only:
                blocks = self.visual.intermediates(images, layers)
            else:
                features["image"], blocks = self.visual.features_and_intermediates(images, layers)
            parts = [split_tokens(self.visual, block, image_output_fmt) for block in blocks]
            output["image_intermediates"] = [patches for patches, _ in parts]
            if image_output_extra_tokens:
                output["image_intermediates_prefix"] = [before for _, before in parts]
        if text is not None:
            tokens = self._checked_tokens(text).to(self.logit_scale.device)
            layers = as_layers(text_indices)
            if intermediates_only:
                output["text_intermediates"] = self.text_tower.text_intermediates(tokens, layers)
            else:
                features["text"], blocks = self.text_tower.text_features_and_intermediates(tokens, layers)
                output["text_intermediates"] = blocks
        for name, value in features.items():
            output[f"{name}_features"] = _normalized(value, normalize)
        if output_logits and not intermediates_only:
            if len(features) < 2:
                raise ConfigError("output_logits is True without both inputs; allowed: image and text together.")
            first, second = (F.normalize(features[name], dim=-1) for name in ("image", "text"))
            output["image_logits"] = logits = self._logits(first, second)
            output["text_logits"] = logits.T
        if output_logit_scale_bias:
            output["logit_scale"] = self.logit_scale.exp()
            if self.logit_bias is not None:
                output["logit_bias"] = self.logit_bias
        return output

    def get_logits(
        self, images: Tensor, tokens: Tensor, lengths: Tensor | Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits of every image for every text, (B_images, B_texts), and the transpose of it; see `encode_text`."""
        text_features = self.encode_text(tokens, normalize=True, lengths=lengths)
        per_image = self._logits(self.encode_image(images, normalize=True), text_features)
        return per_image, per_image.T

    def _logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        logits = self.logit_scale.exp() * image_features @ text_features.T
        return logits if self.logit_bias is None else logits + self.logit_bias

    def _checked_images(self, images: Tensor) -> Tensor:
        """`images` in the dtype of the weights; raises `ConfigError` for what `encode_image` does not take."""
        if not isinstance(images, Tensor):
            raise ConfigError(
                f"encode_image got {type(images).__name__}; allowed: a tensor (batch, 3, height, width). "
                "The transform that comes with the model makes one from a PIL image."
            )
        self.visual.check_images(images)
        if not images.is_floating_point():
            raise ConfigError(
                f"encode_image got {images.dtype}; allowed: a floating dtype, normalised by the model's transform."
            )
        if images.device != self.logit_scale.device:
            raise ConfigError(
                f"encode_image got images on {images.device}, and the model is on {self.logit_scale.device}; move one "
                "of them with .to(device)."
            )
        return images.to(self.dtype)

    def _checked_tokens(self, tokens: Tensor) -> Tensor:
        """`tokens`; raises `ConfigError` for what `encode_text` does not take."""
        if not isinstance(tokens, Tensor):
            raise ConfigError(
                f"encode_text got {type(tokens).__name__}; allowed: a tensor of token ids. "
                "The tokenizer that comes with the model makes one from strings."
            )
        if tokens.ndim != 2 or not 0 < tokens.shape[1] <= self.context_length:
            raise ConfigError(
                f"encode_text got a tensor of shape {tuple(tokens.shape)}; allowed: (batch, up to "
                f"{self.context_length}). Use the tokenizer that comes with the model."
            )
        if tokens.dtype not in (torch.int64, torch.int32):
            raise ConfigError(f"encode_text got {tokens.dtype}; allowed: token ids as torch.int64 or torch.int32.")
        check_rows(tokens, self.config)
        return tokens


class FlatClip(Clip, TextTransformer):  # type: ignore[misc]  # forward takes both inputs here
    """A CLIP model in OpenAI's layout: the text tower's parameters stand at the top level, beside `visual`."""

    text_prefix = ""

    def __init__(self, config: ClipConfig) -> None:
        assert isinstance(config.text, TextConfig)  # ClipConfig.check
        TextTransformer.__init__(self, config.text, config.embed_dim)
        self._complete(config)

    @property
    def text_tower(self) -> TextTower:
        """This model."""
        return self


class NestedClip(Clip):
    """A CLIP model whose text tower, of any kind, is the submodule `text`."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.text = build_text_tower(config.text, config.embed_dim)
        self.context_length = self.text.context_length
        self.vocab_size = self.text.vocab_size
        self._complete(config)

    @property
    def text_tower(self) -> TextTower:
        """`self.text`."""
        return self.text


def _require_input(image: object, text: object) -> None:
    if image is None and text is None:
        raise ConfigError("The model got neither an image nor a text; allowed: image, text or both.")


def _normalized(features: Tensor, wanted: bool) -> Tensor:
    return F.normalize(features, dim=-1) if wanted else features


def _alone(encode: Callable[[Tensor], Tensor], inputs: Tensor, normalize: bool) -> Tensor:
    """`encode` row by row.

    BLAS chooses its kernels, and with them the order of additions, by the shape of the whole batch; with two threads
    even rows of one batch get different ones. A batch of one is the same work each time. It is copied because the
    order may depend on where a row begins in memory, too.
    """
    if not len(inputs):
        return _normalized(encode(inputs), normalize)
    rows = (inputs[row : row + 1].clone(memory_format=torch.contiguous_format) for row in range(len(inputs)))
    return torch.cat([_normalized(encode(row), normalize) for row in rows])


def assemble(config: ClipConfig) -> Clip:
    """The model that `config` states, without values; `building.build` gives it some."""
    if config.layout == "flat":
        return FlatClip(config)
    return NestedClip(config)
