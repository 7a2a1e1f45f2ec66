"""OpenCLIP's 2026 text tower (`text_arch="modern"` there): rotary positions, RMS norms, gates, pooling under a mask.

Shapes: B batch, S sequence, W width, H heads, D features. A row may have any length up to the context: positions are
relative and padding is never seen, so a longer padding does not change a feature. OpenCLIP 3.3.0 does not have this
tower; names and numbers follow its repository of June 2026. Its options that no image-text model uses (registers,
sandwich norms, value residuals, biases, other MLPs) are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clip_core.config import ModernTextConfig
from clip_core.layers.block import pick_layers
from clip_core.layers.gated import GatedBlock
from clip_core.layers.rotary import rotary_table
from clip_core.towers.interface import TextTower
from clip_core.towers.locking import Group, unlock_last
from clip_core.towers.row_lengths import encode_unpadded

__all__ = ["ModernTextTower"]


class MaskedPool(nn.Module):
    """(B, S, W) -> (B, W): the end of the text, the mean of what is valid, or one learned query's attention to it."""

    def __init__(self, config: ModernTextConfig) -> None:
        super().__init__()
        self.config = config
        width, channels = config.width, config.width // config.heads
        if config.pool == "map":
            self.query = nn.Parameter(torch.empty(1, 1, width))
            self.q = nn.Linear(width, width, bias=False)
            self.kv = nn.Linear(width, 2 * width, bias=False)
            self.q_norm = nn.RMSNorm(channels, eps=config.norm_eps) if config.query_key_norm else nn.Identity()
            self.k_norm = nn.RMSNorm(channels, eps=config.norm_eps) if config.query_key_norm else nn.Identity()

    def reset_parameters(self) -> None:
        """Draw new weights: normals that shrink with the width, gains of 1."""
        for name, parameter in self.named_parameters():
            if "norm" in name:
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, std=self.config.width**-0.5)

    def forward(self, x: Tensor, tokens: Tensor, valid: Tensor) -> Tensor:
        """Tokens (B, S, W) behind the last norm, their ids and which of them are valid, both (B, S) -> (B, W)."""
        if self.config.pool == "mean":
            weights = valid.unsqueeze(-1).to(x.dtype)
            return (x * weights).sum(dim=1) / weights.sum(dim=1)
        if self.config.pool == "eos":
            ends = tokens == self.config.eos_id
            # A text that was cut may have lost its end; its last token then stands where the end would.
            last = valid.sum(dim=1) - 1
            index = torch.where(ends.any(dim=1), ends.int().argmax(dim=1), last)
            return x[torch.arange(x.shape[0], device=x.device), index]
        batch, length, width = x.shape
        heads = self.config.heads
        query = self.q(self.query.to(x.dtype)).view(1, 1, heads, -1).transpose(1, 2).expand(batch, -1, -1, -1)
        key, value = self.kv(x).view(batch, length, 2, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        pooled = F.scaled_dot_product_attention(
            self.q_norm(query), self.k_norm(key), value, attn_mask=valid[:, None, None]
        )
        return pooled.transpose(1, 2).reshape(batch, width)


class ModernTextTower(TextTower):
    """Tokens (B, S), S at most the context length -> features (B, D)."""

    def __init__(self, config: ModernTextConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.context_length = config.context_length
        self.vocab_size = config.vocab_size
        self.grad_checkpointing = False
        self.token_embedding = nn.Embedding(config.vocab_size, config.width, padding_idx=config.pad_id)
        self.blocks = nn.ModuleList(
            GatedBlock(
                config.width,
                config.heads,
                config.mlp_dim,
                causal=config.causal,
                gated_attention=config.gated_attention,
                query_key_norm=config.query_key_norm,
                norm_eps=config.norm_eps,
            )
            for _ in range(config.layers)
        )
        self.ln_final = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.pool = MaskedPool(config)
        self.text_projection = nn.Linear(config.width, embed_dim, bias=False)

    def reset_text_parameters(self) -> None:
        """Draw new weights: normals as in OpenCLIP, zeros for padding."""
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.zeros_(self.token_embedding.weight[self.config.pad_id])
        for block in self.blocks:
            assert isinstance(block, GatedBlock)
            block.reset_parameters(len(self.blocks))
        self.ln_final.reset_parameters()
        self.pool.reset_parameters()
        nn.init.normal_(self.text_projection.weight, std=self.config.width**-0.5)

    def text_features(self, tokens: Tensor) -> Tensor:
        """Token ids (B, S), int64, padding only behind a text, -> (B, D), not normalised."""
        return encode_unpadded(lambda rows: self.text_features_and_tokens(rows)[0], tokens, self.config.pad_id)

    def text_features_and_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The features (B, D) and the tokens (B, S, W) behind the last norm, those of padding among them."""
        x = self.ln_final(self._run(tokens, [len(self.blocks) - 1])[-1])
        features: Tensor = self.text_projection(self.pool(x, tokens, self._valid(tokens)))
        return features, x

    def text_intermediates(self, tokens: Tensor, layers: Sequence[int] | None = None) -> list[Tensor]:
        """What leaves each block, (B, S, W): of all blocks, or of `layers` (-1 the last)."""
        return self._run(tokens, pick_layers(len(self.blocks), layers))

    def lock_text(self, unlocked_layers: int = 0, freeze_layer_norm: bool = True) -> None:
        """Freeze all but the last `unlocked_layers` groups; without `freeze_layer_norm` the norms stay trainable.

        The groups: embeddings, each block but the last, the last block with the last norm, pooling and projection.
        """
        unlock_last(self.text_layer_groups(), unlocked_layers, "unlocked_layers")
        if not freeze_layer_norm:
            for module in self.modules():
                if isinstance(module, nn.RMSNorm):
                    module.requires_grad_(True)

    def text_layer_groups(self, *, pooling_apart: bool = False) -> list[Group]:
        """The groups of `lock_text`."""
        *blocks, last = self.blocks
        groups: list[Group] = [[self.token_embedding], *([block] for block in blocks)]
        if pooling_apart:
            return [*groups, [last, self.ln_final, self.pool], [self.text_projection]]
        return [*groups, [last, self.ln_final], [self.pool, self.text_projection]]

    def set_text_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping what is inside it."""
        self.grad_checkpointing = enable

    def no_text_weight_decay(self) -> set[str]:
        """The query of the attention pooling, where there is one."""
        return {"pool.query"} if self.config.pool == "map" else set()

    def _valid(self, tokens: Tensor) -> Tensor:
        """(B, S), true for what is no padding, and for the first position of a row that is nothing else."""
        valid = tokens != self.config.pad_id
        first = torch.arange(tokens.shape[1], device=tokens.device) == 0
        return valid | (first & ~valid.any(dim=1, keepdim=True))

    def _run(self, tokens: Tensor, wanted: Sequence[int]) -> list[Tensor]:
        """What leaves each of the `wanted` blocks, (B, S, W); those behind the last of them are not run."""
        x = self.token_embedding(tokens)
        channels = self.config.width // self.config.heads
        table = rotary_table(tokens.shape[1], channels, self.config.rope_theta, tokens.device)
        # Causal positions never see what is behind them, and padding is; without a mask attention is faster.
        mask = None if self.config.causal else self._valid(tokens)[:, None, None]
        outputs: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks[: max(wanted, default=-1) + 1]):
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, table, mask, use_reentrant=False)
            else:
                x = block(x, table, mask)
            if index in wanted:
                outputs[index] = x
        return [outputs[index] for index in wanted]
