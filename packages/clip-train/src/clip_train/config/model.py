"""What is trained: `ModelConfig`."""

from __future__ import annotations

import dataclasses
from typing import Literal

from clip_core.schema import Schema
from clip_train.config.flag import flag

__all__ = ["Channels", "ModelConfig"]


Channels = tuple[float, float, float]


Size = int | tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig(Schema):
    """What is trained, from which weights, and which part of it."""

    model: str = flag(help="architecture name, for example ViT-B-32 or tiny; or hf-hub:org/name, local-dir:FOLDER")
    pretrained: str = flag("", help="initial weights: a tag, a bundle folder or a weight file; empty: random")
    pretrained_image: bool = flag(False, help="timm's weights for an image tower of timm, where --pretrained is empty")
    pretrained_image_path: str | None = flag(
        None, help="a folder or a file with timm's weights, or this tower's own, for the image tower"
    )
    pretrained_text: bool = flag(
        True, help="the published encoder for a text tower of transformers, where --pretrained is empty"
    )
    pretrained_text_path: str | None = flag(None, help="a folder of transformers with that encoder, fetching nothing")
    cache_dir: str | None = flag(None, help="folder for what is downloaded; not given: huggingface_hub's")
    force_image_size: Size | None = flag(
        None, help="pixels of the sides, one number or height and width; positions are interpolated"
    )
    force_context_length: int | None = flag(None, help="most tokens of a text; positions are interpolated")
    force_quick_gelu: bool = flag(False, help="OpenAI's activation in both towers")
    force_patch_dropout: float | None = flag(
        None, help="share of the patches of each image that training leaves out (FLIP); 0 for none"
    )
    force_custom_text: bool = flag(False, help="name the text tower's parameters text.*, as open_clip's other class")
    image_mean: Channels | None = flag(None, help="mean per RGB channel on a 0 to 1 scale; not given: the model's own")
    image_std: Channels | None = flag(None, help="standard deviation per channel; not given: the model's own")
    image_interpolation: Literal["bicubic", "bilinear", "random"] | None = flag(
        None, help="resize filter; random: one of the two for each picture, with --aug-cfg use_timm=True"
    )
    image_resize_mode: Literal["shortest", "longest", "squash"] | None = flag(
        None, help="how pictures get their size when the trained model is used; training always crops"
    )
    lock_image: bool = flag(False, help="keep the image tower as it is (LiT)")
    lock_image_unlocked_groups: int = flag(0, help="with --lock-image: train its last so many groups of layers")
    lock_image_freeze_bn_stats: bool = flag(False, help="with --lock-image: statistics of batch norms stay, too")
    lock_text: bool = flag(False, help="keep the text tower as it is")
    lock_text_unlocked_layers: int = flag(0, help="with --lock-text: train its last so many layers")
    lock_text_freeze_layer_norm: bool = flag(False, help="with --lock-text: norms in it stay, too")
    grad_checkpointing: bool = flag(False, help="compute blocks again in the backward pass: less memory, more time")
    lora_rank: int | None = flag(
        None, help="train low-rank additions to locked towers and leave them merged in the bundle (extra: lora); say 8"
    )
    lora_alpha: float | None = flag(None, help="size of those additions; not given: twice the rank")
    lora_towers: Literal["image", "text", "both"] = flag("both", help="towers that get them; the rest is trained")

    def check(self) -> None:
        self.require(bool(self.model.strip()), "model", "an architecture name; clip_core.list_models() lists them")
        self.require(self.image_std is None or min(self.image_std) > 0, "image_std", "three numbers above 0")
        size = self.force_image_size
        smallest = size if isinstance(size, int) else 1 if size is None else min(size)
        self.require(smallest >= 1, "force_image_size", "1 or more")
        self.require(
            self.force_context_length is None or self.force_context_length >= 1, "force_context_length", "1 or more"
        )
        self.require(
            self.force_patch_dropout is None or 0 <= self.force_patch_dropout < 1,
            "force_patch_dropout",
            "0 or more and below 1",
        )
        for field in ("lock_image_unlocked_groups", "lock_text_unlocked_layers"):
            self.require(getattr(self, field) >= 0, field, "0 or more")
        self.require(self.lora_rank is None or self.lora_rank >= 1, "lora_rank", "1 or more")
        self.require(self.lora_alpha is None or self.lora_alpha > 0, "lora_alpha", "above 0")
        self.require(self.lora_alpha is None or self.lora_rank is not None, "lora_alpha", "None without lora_rank")
        for tower, field in (("image", "lock_image"), ("text", "lock_text")):
            both = self.lora_rank is not None and self.lora_towers in (tower, "both") and getattr(self, field)
            self.require(not both, field, f"False with lora_towers={self.lora_towers!r}, which locks the tower")
