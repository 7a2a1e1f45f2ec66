"""The text tower of Radford et al. 2021: byte-pair tokens, causal blocks, features read at the end-of-text token.

Shapes: B batch, S context length, W width, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clip_core.config import TextConfig
from clip_core.layers.block import Transformer
from clip_core.towers.interface import TextTower

__all__ = ["TextTransformer"]


class TextTransformer(TextTower):
    """Tokens (B, S) -> features (B, D).

    In OpenAI's layout these parameters stand at the top level of the model, beside `visual`. `Clip` therefore *is*
    a text tower with an image tower inside; a model with a nested text tower holds one of these as `text`.
    """

    def __init__(self, config: TextConfig, embed_dim: int) -> None:
        super().__init__()
        self.context_length = config.context_length
        self.vocab_size = config.vocab_size
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.transformer = Transformer(
            config.width, config.layers, config.heads, config.mlp_dim, config.activation, causal=True
        )
        self.ln_final = nn.LayerNorm(config.width)
        self.text_projection = nn.Parameter(torch.empty(config.width, embed_dim))

    def reset_text_parameters(self) -> None:
        """Draw new weights as OpenAI did: normals that shrink with width and with the number of residual branches."""
        width, layers = self.transformer.width, len(self.transformer.resblocks)
        branch_std = width**-0.5 * (2 * layers) ** -0.5
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        self.transformer.reset_parameters(in_std=width**-0.5, fc_std=(2 * width) ** -0.5, out_std=branch_std)
        self.ln_final.reset_parameters()
        nn.init.normal_(self.text_projection, std=width**-0.5)

    def text_features(self, tokens: Tensor) -> Tensor:
        """Token ids (B, S), S at most the context length, -> (B, D), not normalised."""
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.transformer(x)
        # End-of-text has the highest id of the vocabulary, so argmax finds the first one.
        rows = torch.arange(x.shape[0], device=x.device)
        pooled = x[rows, tokens.argmax(dim=-1)]
        out: Tensor = self.ln_final(pooled) @ self.text_projection
        return out
