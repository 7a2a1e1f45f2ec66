"""What a model asks of its towers, whatever is inside them.

Shapes: B batch, D features, T tokens, W the tower's width. A text tower's methods carry "text" in their names
because a model in OpenAI's flat layout *is* its text tower, with the image tower inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from clip_core.errors import ConfigError
from clip_core.towers.locking import Group

__all__ = ["ImageTower", "TextTower"]


class ImageTower(nn.Module):
    """Images -> features (B, D)."""

    image_size: tuple[int, int]
    """(height, width) in pixels."""

    def reset_parameters(self) -> None:
        """Draw new weights from torch's global generator, on the CPU, where the weights may be on the meta device."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, height, width) in the dtype of the weights -> (B, D), not normalised."""
        raise NotImplementedError

    def features_and_tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The features (B, D) with the tokens (B, T, W) beside them, as CoCa's decoder reads them."""
        raise NotImplementedError

    def intermediates(self, images: Tensor, layers: Sequence[int] | None = None) -> list[Tensor]:
        """What leaves each block, (B, T, W) or (B, W, height, width): of all blocks, or of `layers` (-1 the last)."""
        raise NotImplementedError

    def features_and_intermediates(
        self, images: Tensor, layers: Sequence[int] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """`forward` and `intermediates` of the same images; a tower that can does both in one pass."""
        return self(images), self.intermediates(images, layers)

    def patch_features(self, patches: Mapping[str, Tensor], *, alone: bool = False) -> Tensor:
        """Patches with their places, of a tower that takes such, -> (B, D); `alone` computes each image by itself.

        Raises `ConfigError` where the tower takes images only.
        """
        raise ConfigError(
            f"encode_image got {type(patches).__name__}; allowed: a tensor (batch, 3, height, width). "
            "Only a NaFlex tower takes patches."
        )

    def check_images(self, images: Tensor) -> None:
        """Raise `ConfigError` unless `images` has a shape that this tower takes."""
        height, width = self.image_size
        if images.ndim != 4 or images.shape[1:] != (3, height, width):
            raise ConfigError(
                f"encode_image got a tensor of shape {tuple(images.shape)}; allowed: (batch, 3, {height}, {width}). "
                "Use the transform that comes with the model."
            )

    def lock(self, unlocked_groups: int = 0, freeze_bn_stats: bool = False) -> None:
        """Freeze all but the last `unlocked_groups` groups of layers (LiT, Zhai et al. 2022), as OpenCLIP counts them.

        `freeze_bn_stats` also stops the running statistics of batch norms in the frozen part.
        """
        raise NotImplementedError

    def layer_groups(self) -> list[Group]:
        """Layers from the input to the projection, as OpenCLIP counts them; what is in none belongs to the last."""
        raise NotImplementedError

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping what is inside it."""
        raise NotImplementedError

    def no_weight_decay(self) -> set[str]:
        """Names, relative to this tower, of parameters with two dimensions or more that are not decayed either."""
        return set()

    def adapt_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`tensors`, keyed relative to this tower, with positions interpolated to its size where theirs is another.

        A change is logged. What cannot be fitted is left as it is; loading then refuses it.
        """
        return dict(tensors)


class TextTower(nn.Module):
    """Token ids (B, S) -> features (B, D)."""

    context_length: int
    vocab_size: int

    def reset_text_parameters(self) -> None:
        """As `ImageTower.reset_parameters`."""
        raise NotImplementedError

    def text_features(self, tokens: Tensor) -> Tensor:
        """Token ids (B, S), int64, S at most the context length, -> (B, D), not normalised."""
        raise NotImplementedError

    def text_features_and_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The features (B, D) with the tokens (B, T, W) beside them, as CoCa's decoder reads them."""
        raise NotImplementedError

    def text_intermediates(self, tokens: Tensor, layers: Sequence[int] | None = None) -> list[Tensor]:
        """What leaves each block, (B, S, W): of all blocks, or of `layers` (-1 the last)."""
        raise NotImplementedError

    def text_features_and_intermediates(
        self, tokens: Tensor, layers: Sequence[int] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """As `ImageTower.features_and_intermediates`."""
        return self.text_features(tokens), self.text_intermediates(tokens, layers)

    def lock_text(self, unlocked_layers: int = 0, freeze_layer_norm: bool = True) -> None:
        """Freeze all but the last `unlocked_layers` layers; without `freeze_layer_norm` the norms stay trainable."""
        raise NotImplementedError

    def text_layer_groups(self, *, pooling_apart: bool = False) -> list[Group]:
        """As `ImageTower.layer_groups`; `pooling_apart` moves trained pooling from the last group to the one before."""
        raise NotImplementedError

    def set_text_grad_checkpointing(self, enable: bool = True) -> None:
        """As `ImageTower.set_grad_checkpointing`."""
        raise NotImplementedError

    def no_text_weight_decay(self) -> set[str]:
        """As `ImageTower.no_weight_decay`."""
        return set()

    def adapt_text_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As `ImageTower.adapt_weights`, for another context length."""
        return dict(tensors)

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (B, S) -> (B, D), not normalised."""
        return self.text_features(tokens)
