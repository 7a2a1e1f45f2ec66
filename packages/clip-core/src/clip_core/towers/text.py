"""The text tower of Radford et al. 2021 and its relatives: tokens with learned positions, features read at one of them.

Shapes: B batch, S sequence, at most the context length, W width, D features.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip_core.config import TextConfig
from clip_core.layers.block import Transformer, pick_layers
from clip_core.layers.packing import PackedEnds, PackedTexts, SortedEnds, SortedTexts, pack
from clip_core.layers.positions import resize_line
from clip_core.layers.reading import PrefixTree, TreeEnds
from clip_core.towers.interface import TextTower
from clip_core.towers.locking import Group, unlock_last
from clip_core.towers.short_text import plain, readable, shorten
from clip_core.towers.token_rows import check_reach

__all__ = ["TextTransformer"]

log = logging.getLogger(__name__)

_POSITIONS = "positional_embedding"


class TextTransformer(TextTower):
    """Tokens (B, S) -> features (B, D).

    In OpenAI's layout these parameters stand at the top level of the model, beside `visual`. `FlatClip` therefore
    *is* a text tower with an image tower inside; a model with a nested text tower holds one of these as `text`.

    With a class token (CoCa) the token is put behind the text, so its position depends on how far the text is padded:
    features of a text that is padded to less than the context length are others, here as in OpenCLIP.
    """

    def __init__(self, config: TextConfig, embed_dim: int) -> None:
        super().__init__()
        self.text_config = config
        self.context_length = config.context_length
        self.vocab_size = config.vocab_size
        self.undivided = False
        """Take the texts of a batch through the blocks in one part, also without gradients.

        Processes that share each other's weights, block by block, must meet in the same number of calls.
        """
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.cls_emb = nn.Parameter(torch.empty(config.width)) if config.class_token else None
        positions = config.context_length + int(config.class_token)
        self.positional_embedding = nn.Parameter(torch.empty(positions, config.width))
        self.transformer = Transformer(
            config.width,
            config.layers,
            config.heads,
            config.mlp_dim,
            config.activation,
            causal=config.causal,
            norm_eps=config.norm_eps,
            layer_scale=config.layer_scale,
        )
        self.ln_final = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.text_projection: nn.Linear | nn.Parameter | None
        if config.projection == "linear":
            self.text_projection = nn.Parameter(torch.empty(config.width, embed_dim))
        elif config.projection == "linear_bias":
            self.text_projection = nn.Linear(config.width, embed_dim)
        else:
            self.text_projection = None

    def reset_text_parameters(self) -> None:
        """Draw new weights as OpenAI did: normals that shrink with width and with the number of residual branches."""
        width, layers = self.transformer.width, len(self.transformer.resblocks)
        branch_std = width**-0.5 * (2 * layers) ** -0.5
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        if self.cls_emb is not None:
            nn.init.normal_(self.cls_emb, std=0.01)
        self.transformer.reset_parameters(in_std=width**-0.5, fc_std=(2 * width) ** -0.5, out_std=branch_std)
        self.ln_final.reset_parameters()
        if isinstance(self.text_projection, nn.Linear):
            nn.init.normal_(self.text_projection.weight, std=width**-0.5)
            nn.init.zeros_(self.text_projection.bias)
        elif self.text_projection is not None:
            nn.init.normal_(self.text_projection, std=width**-0.5)

    def text_features(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Token ids (B, S), S at most the context length, -> (B, D), not normalised.

        A causal tower computes nothing behind the position that it reads, where it can know that without waiting: the
        ids are on the CPU, whatever the device of the weights, or there are `lengths`.

        Args:
            tokens: ids.
            lengths: (B,) integers on the CPU, 1 to S: how many tokens of each row there are at most up to and with
                the position that is read. A row that is read behind them is NaN where the ids are not on the CPU.

        Raises:
            ConfigError: a row whose ids are on the CPU is read behind its length.
        """
        device = self.positional_embedding.device
        if self.text_config.causal and self.cls_emb is None and tokens.numel():
            if readable(tokens):
                read = self._read_positions(tokens)
                if lengths is not None and self.text_config.pool != "last":
                    check_reach(lengths, read)
                return self._project_text(
                    self.ln_final(self._read_short(shorten(tokens, read, device, undivided=self.undivided)))
                )
            if lengths is not None and self.text_config.pool != "last" and plain(tokens):
                return self._packed_features(tokens.to(device), lengths)
        tokens = tokens.to(device)
        x, mask = self._embed_text(tokens)
        # One position is read, so only it needs the last norm.
        return self._project_text(self.ln_final(self._pool_text(self.transformer(x, mask), tokens)))

    def text_features_and_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The features (B, D) and the tokens (B, S, W): behind the last norm, but before it with a class token."""
        x, mask = self._embed_text(tokens)
        x = self.transformer(x, mask)
        if self.cls_emb is not None:
            return self._project_text(self.ln_final(x[:, -1])), x[:, :-1]
        x = self.ln_final(x)
        return self._project_text(self._pool_text(x, tokens)), x

    def text_intermediates(self, tokens: Tensor, layers: Sequence[int] | None = None) -> list[Tensor]:
        """What leaves each block, (B, S, W), or (B, S + 1, W) with a class token, which is last."""
        x, mask = self._embed_text(tokens)
        return self.transformer.intermediates(x, layers, mask)

    def text_features_and_intermediates(
        self, tokens: Tensor, layers: Sequence[int] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The features (B, D) and what leaves each block, in one pass."""
        wanted = pick_layers(len(self.transformer.resblocks), layers)
        x, mask = self._embed_text(tokens)
        *outputs, last = self.transformer.intermediates(x, [*wanted, -1], mask)
        return self._project_text(self.ln_final(self._pool_text(last, tokens))), outputs

    def lock_text(self, unlocked_layers: int = 0, freeze_layer_norm: bool = True) -> None:
        """Freeze all but the last `unlocked_layers` groups; without `freeze_layer_norm` the norms stay trainable.

        The groups: embeddings, each block but the last, the last block with the last norm, the projection if any.
        """
        unlock_last(self.text_layer_groups(), unlocked_layers, "unlocked_layers")
        if not freeze_layer_norm:
            for module in (*self.transformer.modules(), self.ln_final):
                if isinstance(module, nn.LayerNorm):
                    module.requires_grad_(True)

    def text_layer_groups(self, *, pooling_apart: bool = False) -> list[Group]:
        """The groups of `lock_text`; no pooling of this tower is trained."""
        class_token = [] if self.cls_emb is None else [self.cls_emb]
        *blocks, last = self.transformer.resblocks
        groups: list[Group] = [[self.token_embedding, self.positional_embedding, *class_token]]
        groups += [[block] for block in blocks]
        groups.append([last, self.ln_final])
        return groups if self.text_projection is None else [*groups, [self.text_projection]]

    def set_text_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping what is inside it."""
        self.transformer.grad_checkpointing = enable

    def no_text_weight_decay(self) -> set[str]:
        """The positions, and the class token where there is one."""
        return {_POSITIONS} if self.cls_emb is None else {_POSITIONS, "cls_emb"}

    def adapt_text_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`tensors` with positions interpolated linearly to this context length, as OpenCLIP does; that is logged.

        The row of a class token is the table's last and is interpolated with the others.
        """
        adapted = dict(tensors)
        table = adapted.get(_POSITIONS)
        length, width = self.positional_embedding.shape
        if table is not None and table.ndim == 2 and table.shape[1] == width and table.shape[0] not in (0, length):
            log.info("Interpolating the positions of the text tower from %d to %d", table.shape[0], length)
            adapted[_POSITIONS] = resize_line(table, length)
        return adapted

    def _embed_text(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Token ids (B, S) -> (B, S, W), or (B, S + 1, W) with a class token, and the mask that it needs."""
        x = self.token_embedding(tokens)
        mask = None
        if self.cls_emb is not None:
            x = torch.cat([x, self.cls_emb.to(x.dtype).expand(x.shape[0], 1, -1)], dim=1)
            mask = self._class_mask(tokens)
        return x + self.positional_embedding[: x.shape[1]], mask

    def _class_mask(self, tokens: Tensor) -> Tensor:
        """(B, 1, S + 1, S + 1), true where a row may see a column.

        OpenCLIP's CoCa was trained with a mask that is one position late: the entry for the class token was put in
        front of the padding mask though the token stands behind the text. So column 0 is seen by all, and column
        k > 0 where token k - 1 is no padding: the first padding is seen, and the class token sees itself only behind
        a text that fills the context. Weights that were trained so need it so.
        """
        batch, length = tokens.shape
        seen = torch.cat([tokens.new_ones(batch, 1, dtype=torch.bool), tokens != self.text_config.pad_id], dim=1)
        mask = seen[:, None, None].expand(-1, 1, length + 1, -1)
        if self.text_config.causal:
            mask = mask & torch.ones(length + 1, length + 1, dtype=torch.bool, device=tokens.device).tril()
        return mask

    def _packed_features(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Features (B, D) of the first `lengths` ids of each row, which nothing on the host looks at."""
        read = self._read_positions(tokens)
        texts = pack(tokens, lengths.numpy(), read)
        features = self._project_text(self.ln_final(self._read_packed(texts)))
        # A feature of another position would look like any other; NaN is seen, and costs no waiting.
        missing = read >= texts.starts.diff()
        return features.masked_fill(missing[:, None], torch.nan)

    def _read_short(self, texts: Sequence[PrefixTree] | Sequence[SortedTexts] | Sequence[PackedTexts]) -> Tensor:
        """What leaves the last block at the position that is the feature, (B, W), in the order of the batch."""
        parts, rows = [], []
        for part in texts:
            if isinstance(part, PackedTexts):
                return self._read_packed(part)
            x = self._embed_packed(part.tokens, part.positions)
            ends = TreeEnds(part) if isinstance(part, PrefixTree) else SortedEnds(part)
            parts.append(self.transformer.read(x, ends, part))
            rows.append(part.rows)
        return torch.cat(parts).index_select(0, torch.cat(rows).argsort())

    def _read_packed(self, texts: PackedTexts) -> Tensor:
        """As `_read_short`, of texts in the order of the batch."""
        return self.transformer.read(self._embed_packed(texts.tokens, texts.positions), PackedEnds(texts), texts)

    def _embed_packed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Ids (T,) and where each stands in its text (T,) -> (T, W)."""
        # An index would add gradients up in any order where two threads do it.
        placed: Tensor = self.token_embedding(tokens) + F.embedding(positions, self.positional_embedding)
        return placed

    def _pool_text(self, x: Tensor, tokens: Tensor) -> Tensor:
        """(B, S, W) -> (B, W), the position that is the feature."""
        if self.cls_emb is not None:
            return x[:, -1]
        return x[torch.arange(x.shape[0], device=x.device), self._read_positions(tokens)]

    def _read_positions(self, tokens: Tensor) -> Tensor:
        """Token ids (B, S) -> (B,), the position that is the feature where there is no class token."""
        config = self.text_config
        if config.pool == "first":
            return tokens.new_zeros(tokens.shape[0])
        if config.pool == "last":
            return tokens.new_full((tokens.shape[0],), tokens.shape[1] - 1)
        if config.pool == "eos":
            assert config.eos_id is not None  # TextConfig.check
            tokens = tokens.eq(config.eos_id).int()
        # OpenAI's end of text has the highest id of the vocabulary; argmax finds the first one.
        return tokens.argmax(dim=-1)

    def _project_text(self, pooled: Tensor) -> Tensor:
        if isinstance(self.text_projection, nn.Linear):
            out: Tensor = self.text_projection(pooled)
            return out
        return pooled if self.text_projection is None else pooled @ self.text_projection
