"""The logits of the next id, for texts that grow at their end about images that stay.

Shapes: B images, R = B * G rows of text (G rows in a row share an image), n ids of this step, T image tokens, W width,
V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clip_core.layers.block import ResidualBlock
from clip_core.layers.cache import KeyValueCache, continue_block
from clip_core.towers import TextTower, TextTransformer
from clip_core.towers.decoder import MultimodalDecoder

__all__ = ["CachedDecoding", "Decoding", "RecomputedDecoding"]


class Decoding:
    """Reads ids, gives logits, and remembers what it read."""

    def __init__(self, text: TextTower, decoder: MultimodalDecoder, image_tokens: Tensor) -> None:
        """`image_tokens` (B, T, W), as the image tower gives them."""
        self.decoder = decoder
        self.image = decoder.cross_keys_and_values(image_tokens)
        self.tokens: Tensor | None = None

    def __call__(self, tokens: Tensor) -> Tensor:
        """Further ids (R, n) -> logits (R, V) of the one after them."""
        self.tokens = tokens if self.tokens is None else torch.cat([self.tokens, tokens], dim=1)
        return self._logits(tokens.shape[1])

    def _logits(self, steps: int) -> Tensor:
        raise NotImplementedError

    def reorder(self, rows: Tensor) -> None:
        """Row i goes on from where row `rows[i]` is; `rows` (R,) int64."""
        if self.tokens is not None:
            self.tokens = self.tokens[rows]


class RecomputedDecoding(Decoding):
    """For any text tower: every step runs it over the whole text, as one must where later ids change earlier tokens."""

    def __init__(self, text: TextTower, decoder: MultimodalDecoder, image_tokens: Tensor) -> None:
        super().__init__(text, decoder, image_tokens)
        self.text = text

    def _logits(self, steps: int) -> Tensor:
        assert self.tokens is not None
        return self.decoder.read(self.text.text_features_and_tokens(self.tokens)[1], self.image)


class CachedDecoding(Decoding):
    """For a causal text tower: a step computes only the new positions, in the text tower and in the decoder."""

    def __init__(
        self, text: TextTransformer, decoder: MultimodalDecoder, image_tokens: Tensor, rows: int, length: int
    ) -> None:
        """Room for `rows` texts of up to `length` ids."""
        super().__init__(text, decoder, image_tokens)
        self.text = text
        self.text_caches = [KeyValueCache(rows, length, block) for block in self._text_blocks()]
        self.caches = decoder.make_caches(rows, length)

    def _logits(self, steps: int) -> Tensor:
        assert self.tokens is not None
        return self.decoder.read(self._text_tokens(self.tokens, steps), self.image, self.caches)

    def _text_tokens(self, tokens: Tensor, steps: int) -> Tensor:
        """Ids (R, L) -> what the text tower gives for the last `steps` of them, (R, n, W)."""
        text, start = self.text, tokens.shape[1] - steps
        x = text.token_embedding(tokens[:, start:]) + text.positional_embedding[start : tokens.shape[1]]
        visible = None
        if text.cls_emb is not None:
            # The padding mask of the class token, one position late as it is there; see `TextTransformer`.
            seen = tokens[:, :-1] != text.text_config.pad_id
            visible = torch.cat([seen.new_ones(len(seen), 1), seen], dim=1)
        for block, cache in zip(self._text_blocks(), self.text_caches, strict=True):
            x = continue_block(block, x, cache, visible)
        out: Tensor = x if text.cls_emb is not None else text.ln_final(x)
        return out

    def _text_blocks(self) -> list[ResidualBlock]:
        return list(self.text.transformer.resblocks)  # type: ignore[arg-type]  # what a Transformer is made of

    def reorder(self, rows: Tensor) -> None:
        """As `Decoding.reorder`."""
        super().reorder(rows)
        for cache in (*self.text_caches, *self.caches):
            cache.reorder(rows)
