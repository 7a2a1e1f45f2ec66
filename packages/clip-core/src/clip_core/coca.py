"""CoCa (Yu et al. 2022): two towers that meet in features, and a decoder that writes captions from the tokens of both.

Shapes: B batch, S context length, D features, V vocabulary, L ids of the longest caption. The state dict is that of
OpenCLIP's CoCa: `visual`, `text`, `text_decoder`. How a caption is chosen is in `generation`; the loss is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clip_core.config import ClipConfig, VitConfig
from clip_core.errors import ConfigError
from clip_core.generation import (
    CachedDecoding,
    Decoding,
    GenerationOptions,
    RecomputedDecoding,
    read_prompt,
    sample,
    search_beams,
)
from clip_core.model import ClipOutput, NestedClip
from clip_core.towers import TextTransformer
from clip_core.towers.decoder import MultimodalDecoder
from clip_core.towers.token_rows import checked_lengths

__all__ = ["CoCa", "CocaOutput"]


class CocaOutput(NamedTuple):
    """What a forward pass gives: `ClipOutput`'s four, and what the captioning loss compares."""

    image_features: Tensor
    """(B, D), each row of length 1."""
    text_features: Tensor
    """(B, D), each row of length 1."""
    logit_scale: Tensor
    """Scalar, already exponentiated."""
    logit_bias: Tensor | None
    """Scalar added to the logits, or None for a model without one."""
    caption_logits: Tensor
    """(B, S - 1, V): at position i those of token i + 1, given the image and tokens 0 to i."""
    caption_labels: Tensor
    """(B, S - 1), int64: tokens 1 to S - 1, padding among them."""


class CoCa(NestedClip):
    """A CLIP model with a decoder behind it that captions images. Make one with `clip_core.create_model`."""

    def __init__(self, config: ClipConfig) -> None:
        assert config.decoder is not None  # building chooses by it
        super().__init__(config)
        self.text_decoder = MultimodalDecoder(config.decoder)
        if isinstance(config.image, VitConfig):
            tokens = config.image.width if config.image.attention_pool is None else config.embed_dim
            _require_width("image", tokens, config.decoder.width)
        _require_width("text", config.text.width, config.decoder.width)

    def reset_parameters(self) -> None:
        """Draw new weights from torch's global generator and set the scale and bias to their initial values."""
        super().reset_parameters()
        self.text_decoder.reset_parameters()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block of both towers and of the decoder in the backward pass."""
        super().set_grad_checkpointing(enable)
        self.text_decoder.grad_checkpointing = enable

    def forward(  # type: ignore[override]  # more
        self,
        image: Tensor | None = None,
        text: Tensor | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> ClipOutput | CocaOutput:
        """Images (B, 3, height, width) and token ids (B, S) -> features, and logits of every token but the first.

        With one of the two alone, its features alone, in a `ClipOutput`. `lengths` of the texts are looked at and not
        used: every token has logits. Raises `ConfigError` as `encode_image` and `encode_text` do.
        """
        if image is None or text is None:
            return super().forward(image, text, lengths)
        checked_lengths(lengths, text)
        tokens = self._checked_tokens(text).to(self.logit_scale.device)
        image_features, image_tokens = self.visual.features_and_tokens(self._checked_images(image))
        text_features, text_tokens = self.text.text_features_and_tokens(tokens)
        return CocaOutput(
            image_features=F.normalize(image_features, dim=-1),
            text_features=F.normalize(text_features, dim=-1),
            logit_scale=self.logit_scale.exp(),
            logit_bias=self.logit_bias,
            caption_logits=self.text_decoder(image_tokens, text_tokens[:, :-1]),
            caption_labels=tokens[:, 1:],
        )

    @torch.no_grad()
    def generate(
        self,
        images: Tensor,
        prompt: Tensor | None = None,
        *,
        method: Literal["beam", "greedy", "sample"] = "beam",
        max_length: int = 30,
        min_length: int = 5,
        beams: int = 2,
        beam_groups: int = 1,
        diversity_penalty: float = 0.0,
        length_penalty: float = 1.0,
        beam_score: Literal["logits", "log_probabilities"] = "logits",
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float = 1.0,
        repetition_penalty: float = 1.0,
        stop_ids: tuple[int, ...] | None = None,
        generator: torch.Generator | None = None,
        use_cache: bool = True,
    ) -> Tensor:
        """One caption per image as token ids (B, L), int64; `tokenizer.decode` makes text of them.

        Rows begin with the start id or the prompt, end with a stop id where there is room, and are padded. Runs in
        evaluation mode whatever the mode of the model is, and leaves that as it was.

        Args:
            images: (B, 3, height, width), preprocessed.
            prompt: ids to continue, as the tokenizer gives them: (S,) for all images or (B, S); what follows a stop id
                and padding at the end of a row are left out. None is the start id alone.
            method: "beam" searches for the best caption, "greedy" takes the likeliest id at each step, "sample" draws.
            max_length: most ids of a caption, start and end included; at most the decoder's context length.
            min_length: no stop id is chosen while a caption has fewer ids than this.
            beams: captions of an image that "beam" grows side by side. OpenCLIP's 6 in 3 groups without a penalty are
                three times the same 2, so 2 find what its default does.
            beam_groups: parts of the beams that choose one after another (Vijayakumar et al. 2018).
            diversity_penalty: what a group's logit of an id loses for each beam of an earlier group that took it.
            length_penalty: a caption's score is its sum divided by its length to this power.
            beam_score: what "beam" sums: the logits, as OpenCLIP does, or their log-probabilities, as is usual.
            top_k: "sample" among the k likeliest ids.
            top_p: "sample" among the fewest ids whose probabilities sum to p (Holtzman et al. 2020).
            temperature: what "sample" divides the logits by, after `top_k` and `top_p`.
            repetition_penalty: above 1 makes ids that the row has less likely (Keskar et al. 2019).
            stop_ids: ids that end a caption; None is the vocabulary's end of text.
            generator: what "sample" draws with, on the device of the model; None is torch's global one.
            use_cache: keep keys and values, so that a step costs one position; a text tower that is not causal
                cannot, and is run over the whole caption. Either way the logits are the same up to float noise.

        Raises:
            ConfigError: an option out of range or for another method, a prompt that leaves no room, or images that
                `encode_image` refuses.
        """
        decoder = self.text_decoder
        options = GenerationOptions(
            method=method,
            max_length=max_length,
            min_length=min_length,
            beams=beams,
            beam_groups=beam_groups,
            diversity_penalty=diversity_penalty,
            length_penalty=length_penalty,
            beam_score=beam_score,
            top_k=top_k,
            top_p=top_p,
            temperature=temperature,
            repetition_penalty=repetition_penalty,
            start_id=decoder.config.start_id,
            stop_ids=(decoder.config.end_id,) if stop_ids is None else tuple(stop_ids),
            pad_id=decoder.config.pad_id,
        )
        options.require(
            max_length <= decoder.context_length, "max_length", f"at most {decoder.context_length}, the context length"
        )
        modes = [(module, module.training) for module in self.modules() if module.training]
        self.eval()
        try:
            image_tokens = self.visual.features_and_tokens(self._checked_images(images))[1]
            start = read_prompt(prompt, len(images), options, images.device)
            if not len(images):
                return start
            rows = len(images) * (beams if method == "beam" else 1)
            decoding = self._decoding(image_tokens, rows, max_length, use_cache)
            if method == "beam":
                return search_beams(decoding, start, options)
            return sample(decoding, start, options, generator)
        finally:
            for module, training in modes:
                module.training = training

    def _decoding(self, image_tokens: Tensor, rows: int, length: int, use_cache: bool) -> Decoding:
        if use_cache and isinstance(self.text, TextTransformer) and self.text.text_config.causal:
            return CachedDecoding(self.text, self.text_decoder, image_tokens, rows, length)
        return RecomputedDecoding(self.text, self.text_decoder, image_tokens)


def _require_width(tower: str, width: int, decoder_width: int) -> None:
    if width != decoder_width:
        raise ConfigError(
            f"decoder.width is {decoder_width}; allowed: {width}, the width of the {tower} tower's tokens."
        )
