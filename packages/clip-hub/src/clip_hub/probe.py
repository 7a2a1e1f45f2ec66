"""What a model makes of fixed pictures and texts: the same on every machine, so that two models can be told apart.

The pictures are made of integers, and of the size that the model's images have, so that no random generator and no
resizing comes in; they go through the model's own normalisation. N is the number of pictures, and of texts; D features.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from clip_core import Bundle
from clip_core.config import size_pair
from clip_core.tokenizer import MissingTokenizer

__all__ = ["TEXTS", "Probe", "fixed_pictures", "run_probe"]

TEXTS = ("a photo of a cat", "two people on a beach", "a red car at night", "a diagram")
_SHOWN = 4


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Features of the fixed inputs, as the model gives them, in float32."""

    image: Tensor
    """(N, D)"""
    text: Tensor | None
    """(N, D); None without the tokenizer's vocabulary."""

    def fingerprint(self) -> tuple[float, ...]:
        """The first four components of the first picture's normalised feature, then of the first text's, if known."""
        parts = [self.image[0]] if self.text is None else [self.image[0], self.text[0]]
        return tuple(round(value, 4) for part in parts for value in (part / part.norm())[:_SHOWN].tolist())


def fixed_pictures(height: int, width: int) -> list[Tensor]:
    """Four RGB pictures as uint8 tensors (3, height, width): ramps that turn over, each in its own direction."""
    rows = torch.arange(height)[None, :, None] * 255 // height
    columns = torch.arange(width)[None, None, :] * 255 // width
    channels = torch.arange(1, 4)[:, None, None]
    return [((rows * channels + columns * number) % 256).to(torch.uint8) for number in range(1, len(TEXTS) + 1)]


@torch.inference_mode()
def run_probe(bundle: Bundle) -> Probe:
    """The features that the model of `bundle`, on the device where it is, gives for the fixed inputs."""
    device = bundle.model.logit_scale.device
    pictures = fixed_pictures(*size_pair(bundle.config.preprocess.size))
    image = [bundle.model.encode_image(bundle.preprocess(picture)[None].to(device)) for picture in pictures]
    text = None
    if not isinstance(bundle.tokenizer, MissingTokenizer):
        text = bundle.model.encode_text(bundle.tokenizer(list(TEXTS)).to(device)).float().cpu()
    return Probe(image=torch.cat(image).float().cpu(), text=text)
