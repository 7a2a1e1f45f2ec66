"""OpenAI's ResNet: a stem of three convolutions, strides by average pooling, attention pooling at the end.

Radford et al. 2021, section 2.4. Shapes: B batch, C channels of the first stage, h and w a thirty-second of the
image's height and width, W = 32 C channels of the last stage, T = 1 + h w tokens, D features.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clip_core.config import ResNetConfig, size_pair
from clip_core.layers.block import pick_layers
from clip_core.layers.positions import resize_grid, square_grid, warn_of_grid
from clip_core.towers.batch_norm import BatchNormTower
from clip_core.towers.locking import Group, unlock_last

__all__ = ["AttentionPool2d", "Bottleneck", "ModifiedResNet"]

log = logging.getLogger(__name__)

_EXPANSION = 4
_POSITIONS = "attnpool.positional_embedding"

# Layers from the input on, by the names of their modules.
_STEM = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")
_GROUPS = (_STEM, ("layer1",), ("layer2",), ("layer3",), ("layer4",), ("attnpool",))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut: (B, inputs, H, W) -> (B, 4 * inner, H / stride, W / stride)."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = _EXPANSION * inner
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        # Averaging before the last convolution keeps high frequencies from folding into low ones.
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or inputs != outputs:
            parts: dict[str, nn.Module] = {
                "-1": nn.AvgPool2d(stride) if stride > 1 else nn.Identity(),
                "0": nn.Conv2d(inputs, outputs, 1, bias=False),
                "1": nn.BatchNorm2d(outputs),
            }
            self.downsample = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(self.avgpool(out)))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class AttentionPool2d(nn.Module):
    """The mean of a feature map attends to it and to itself: (B, W, h, w) -> (B, D)."""

    def __init__(self, positions: int, width: int, heads: int, embed_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.empty(positions, width))
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, embed_dim)

    def reset_parameters(self) -> None:
        """Draw new weights: normals that shrink with the width, torch's own choice for the biases."""
        width = self.positional_embedding.shape[1]
        nn.init.normal_(self.positional_embedding, std=width**-0.5)
        for layer in (self.k_proj, self.q_proj, self.v_proj, self.c_proj):
            layer.reset_parameters()
            nn.init.normal_(layer.weight, std=width**-0.5)

    def tokens(self, x: Tensor) -> Tensor:
        """(B, W, h, w) -> (B, T, W): the mean, then the map in reading order, with their positions added."""
        rows = x.flatten(2).transpose(1, 2)
        return torch.cat([rows.mean(dim=1, keepdim=True), rows], dim=1) + self.positional_embedding

    def pool(self, tokens: Tensor) -> Tensor:
        """(B, T, W) -> (B, D). Only the first token's attention is read, so only that is computed."""
        batch, _, width = tokens.shape

        def split(x: Tensor) -> Tensor:
            return x.view(batch, x.shape[1], self.heads, width // self.heads).transpose(1, 2)

        query, key, value = split(self.q_proj(tokens[:, :1])), split(self.k_proj(tokens)), split(self.v_proj(tokens))
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.c_proj(mixed.reshape(batch, width))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, h, w) -> (B, D)."""
        return self.pool(self.tokens(x))


class ModifiedResNet(BatchNormTower):
    """Images (B, 3, height, width) -> features (B, D), by attention pooling over the last stage."""

    def __init__(self, config: ResNetConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.image_size = size_pair(config.image_size)
        self.grid = (self.image_size[0] // 32, self.image_size[1] // 32)
        self.grad_checkpointing = False
        width, half = config.width, config.width // 2
        self.conv1 = nn.Conv2d(3, half, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, config.layers[0], stride=1)
        self.layer2 = _stage(_EXPANSION * width, 2 * width, config.layers[1], stride=2)
        self.layer3 = _stage(_EXPANSION * 2 * width, 4 * width, config.layers[2], stride=2)
        self.layer4 = _stage(_EXPANSION * 4 * width, 8 * width, config.layers[3], stride=2)
        positions = 1 + self.grid[0] * self.grid[1]
        self.attnpool = AttentionPool2d(positions, _EXPANSION * 8 * width, config.heads, embed_dim)

    def reset_parameters(self) -> None:
        """Draw new weights: torch's own choice for convolutions, and residual branches that begin at zero."""
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)
        self.attnpool.reset_parameters()

    def stem(self, images: Tensor) -> Tensor:
        """(B, 3, height, width) -> (B, C, height / 4, width / 4)."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return F.avg_pool2d(x, 2)

    def _stages(self, images: Tensor) -> Iterator[Tensor]:
        """The outputs of the stem and of the four stages, one after the other."""
        x = self.stem(images)
        yield x
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                if self.grad_checkpointing and torch.is_grad_enabled():
                    contexts = functools.partial(_contexts, block)
                    x = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
                else:
                    x = block(x)
            yield x

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, height, width) in the dtype of the weights -> (B, D), not normalised."""
        *_, x = self._stages(images)
        out: Tensor = self.attnpool(x)
        return out

    def features_and_tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The features (B, D) and the tokens (B, T, W) that they were pooled from: the mean first, then the map."""
        *_, x = self._stages(images)
        tokens = self.attnpool.tokens(x)
        return self.attnpool.pool(tokens), tokens

    def intermediates(self, images: Tensor, layers: Sequence[int] | None = None) -> list[Tensor]:
        """The feature maps of the stem and the four stages, (B, channels, height, width): all five, or `layers`."""
        wanted = pick_layers(5, layers)
        maps = list(itertools.islice(self._stages(images), max(wanted, default=-1) + 1))
        return [maps[index] for index in wanted]

    def features_and_intermediates(
        self, images: Tensor, layers: Sequence[int] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """`forward` and `intermediates` in one pass, which batch norms count once."""
        maps = list(self._stages(images))
        return self.attnpool(maps[-1]), [maps[index] for index in pick_layers(5, layers)]

    def lock(self, unlocked_groups: int = 0, freeze_bn_stats: bool = False) -> None:
        """See `ImageTower.lock`; the groups are the stem, the four stages and the attention pooling.

        OpenCLIP locks this tower as a whole only.
        """
        unlock_last(self.layer_groups(), unlocked_groups, "unlocked_groups")
        if freeze_bn_stats:
            for name in itertools.chain(*_GROUPS[: max(0, len(_GROUPS) - unlocked_groups)]):
                self.freeze_batch_norms(name)

    def layer_groups(self) -> list[Group]:
        """The groups of `lock`."""
        return [[self.get_submodule(name) for name in group] for group in _GROUPS]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each bottleneck in the backward pass; batch statistics are counted once."""
        self.grad_checkpointing = enable

    def adapt_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `ImageTower.adapt_weights`; the pooling's positions are interpolated from a square grid."""
        adapted = dict(tensors)
        table = adapted.get(_POSITIONS)
        rows, width = self.attnpool.positional_embedding.shape
        if table is None or table.ndim != 2 or table.shape[1] != width:
            return adapted
        old = square_grid(table.shape[0] - 1)
        if table.shape[0] == rows:
            warn_of_grid(rows - 1, old, self.grid)
        elif old is not None:
            log.info("Interpolating the positions of the attention pooling from %dx%d to %dx%d", *old, *self.grid)
            adapted[_POSITIONS] = resize_grid(table, old, self.grid)
        return adapted


def _stage(inputs: int, inner: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [Bottleneck(_EXPANSION * inner, inner, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(inputs, inner, stride), *rest)


def _contexts(
    block: nn.Module,
) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    return contextlib.nullcontext(), _keep_statistics(block)


@contextlib.contextmanager
def _keep_statistics(block: nn.Module) -> Iterator[None]:
    """Run `block` a second time on the same batch without counting that in its running statistics."""
    norms = [module for module in block.modules() if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm))]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum = momentum
            norm.num_batches_tracked = count
