"""An image tower of timm, with the pooling and projection that OpenCLIP puts around it.

The parameters of timm's model stand under `trunk.`, those of ours under `head.`, as in OpenCLIP's checkpoints. Shapes:
B batch, T tokens, W the trunk's width, D features.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clip_core.config import NaFlexConfig, TimmConfig, size_pair
from clip_core.errors import ConfigError, nearest
from clip_core.layers.block import pick_layers
from clip_core.layers.positions import square_grid, warn_of_grid
from clip_core.towers.batch_norm import BatchNormTower
from clip_core.towers.locking import Group

__all__ = ["Mlp", "TimmTower", "build_trunk"]

log = logging.getLogger(__name__)

_BIAS_TABLE = "relative_position_bias_table"


class Mlp(nn.Module):
    """Two layers with a GELU between them, the second without a bias: the head of ConvNeXt's `_d` models."""

    def __init__(self, width: int, hidden: int, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.drop = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, embed_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, W) -> (B, D)."""
        out: Tensor = self.fc2(self.drop(self.act(self.fc1(x))))
        return out


class TimmTower(BatchNormTower):
    """Images (B, 3, height, width) -> features (B, D), by a model of timm."""

    def __init__(self, config: TimmConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.embed_dim = embed_dim
        self.image_size = size_pair(config.image_size)
        self.trunk: Any = build_trunk(config, embed_dim)
        width = self.trunk.num_features
        head: dict[str, nn.Module] = {}
        if config.projection == "linear":
            head = {"drop": nn.Dropout(config.head_dropout), "proj": nn.Linear(width, embed_dim, bias=False)}
        elif config.projection == "mlp":
            head = {"mlp": Mlp(width, 2 * embed_dim, embed_dim, config.head_dropout)}
        elif config.projection == "none" and width != embed_dim:
            raise ConfigError(
                f"projection is 'none' and {config.name} has features of width {width}; allowed: embed_dim {width}, "
                f"or another projection to get {embed_dim}."
            )
        self.head = nn.Sequential(OrderedDict(head))

    def reset_parameters(self) -> None:
        """Draw new weights as timm does for this model, and torch's own choice for the head."""
        self.trunk = build_trunk(self.config, self.embed_dim)
        for module in self.head.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        self.thaw_batch_norms()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, height, width) in the dtype of the weights -> (B, D), not normalised."""
        if not len(images):
            return images.new_empty(0, self.embed_dim)  # several of timm's models cannot
        out: Tensor = self.head(self.trunk(images))
        return out

    def features_and_tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The features (B, D) and what they are pooled from: tokens, or the last map in reading order, (B, T, W)."""
        last: Tensor = self.trunk.forward_features(images)
        features: Tensor = self.head(self.trunk.forward_head(last))
        if last.ndim == 4:
            # The maps of windowed transformers have their channels last.
            rows = last.flatten(1, 2) if self._channels_last else last.flatten(2).transpose(1, 2)
        else:
            rows = last
        return features, rows

    @property
    def _channels_last(self) -> bool:
        return getattr(self.trunk, "output_fmt", "NCHW") == "NHWC"

    def intermediates(self, images: Tensor, layers: Sequence[int] | None = None) -> list[Tensor]:
        """What leaves each block of a transformer, (B, T, W), or each stage of another, (B, W, height, width)."""
        return self._run(images, layers, only=True)[1]

    def features_and_intermediates(
        self, images: Tensor, layers: Sequence[int] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """`forward` and `intermediates` in one pass."""
        last, outputs = self._run(images, layers, only=False)
        return self.head(self.trunk.forward_head(last)), outputs

    def _run(self, images: Tensor, layers: Sequence[int] | None, *, only: bool) -> tuple[Tensor, list[Tensor]]:
        """What the pooling reads, and the outputs asked for; with `only` the former is not computed."""
        read = self.trunk.forward_intermediates
        wanted = pick_layers(self._depth(), layers)
        # timm answers in the order of the layers, and has to be asked for one at least.
        order = sorted(set(wanted)) or [0]
        options: dict[str, Any] = {"indices": order, "output_fmt": "NCHW"}
        if "return_prefix_tokens" in inspect.signature(read).parameters:
            # It raises where it is asked for class tokens and there are none.
            options |= {"output_fmt": "NLC", "return_prefix_tokens": self.trunk.num_prefix_tokens > 0}
        if only:
            last, outputs = images, read(images, intermediates_only=True, stop_early=True, **options)
        else:
            last, outputs = read(images, **options)
        joined = [_join(output) for output in outputs]
        return last, [joined[order.index(index)] for index in wanted]

    def _depth(self) -> int:
        return len(self.trunk.blocks) if self._is_transformer else len(self.trunk.feature_info)

    @property
    def _is_transformer(self) -> bool:
        return isinstance(getattr(self.trunk, "blocks", None), (nn.ModuleList, nn.Sequential))

    def lock(self, unlocked_groups: int = 0, freeze_bn_stats: bool = False) -> None:
        """See `ImageTower.lock`: timm's groups of this model are counted. A head of ours is never locked."""
        from timm.models import group_modules, group_parameters

        if unlocked_groups < 0:
            raise ConfigError(f"unlocked_groups is {unlocked_groups}; allowed: 0 (the whole trunk is frozen) or more.")
        if not unlocked_groups:
            self.trunk.requires_grad_(False)
            if freeze_bn_stats:
                self.freeze_batch_norms("trunk")
            return
        matcher = self.trunk.group_matcher()
        groups: dict[int, list[str]] = group_parameters(self.trunk, matcher)
        last = max(groups) - unlocked_groups
        for index, names in groups.items():
            if index <= last:
                for name in names:
                    self.trunk.get_parameter(name).requires_grad_(False)
        if freeze_bn_stats:
            modules: dict[str, int] = group_modules(self.trunk, matcher, reverse=True)
            self.freeze_batch_norms("trunk", {name for name, index in modules.items() if index <= last})

    def layer_groups(self) -> list[Group]:
        """The groups that timm has for this model, and a head of ours where it has parameters."""
        from timm.models import group_parameters

        found: dict[int, list[str]] = group_parameters(self.trunk, self.trunk.group_matcher())
        groups: list[Group] = [[self.trunk.get_parameter(name) for name in found[index]] for index in sorted(found)]
        return [*groups, [self.head]] if any(True for _ in self.head.parameters()) else groups

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `ImageTower.set_grad_checkpointing`; which parts are recomputed is timm's choice."""
        self.trunk.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """See `ImageTower.no_weight_decay`: those that timm names for this model."""
        names = self.trunk.no_weight_decay() if hasattr(self.trunk, "no_weight_decay") else ()
        return {f"trunk.{name}" for name in names}

    def adapt_weights(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `ImageTower.adapt_weights`: position tables and tables of relative position biases, as timm does it."""
        from timm.layers.pos_embed import resample_abs_pos_embed
        from timm.layers.pos_embed_rel import resize_rel_pos_bias_table

        adapted = dict(tensors)
        for name, wanted in self.trunk.named_parameters():
            key = f"trunk.{name}"
            held = adapted.get(key)
            if held is None or held.ndim != wanted.ndim or held.shape[-1] != wanted.shape[-1]:
                continue
            if name == "pos_embed" and held.ndim == 3:
                prefix = 0 if getattr(self.trunk, "no_embed_class", False) else self.trunk.num_prefix_tokens
                grid = tuple(self.trunk.patch_embed.grid_size)
                old = square_grid(held.shape[1] - prefix)
                if held.shape == wanted.shape:
                    warn_of_grid(held.shape[1] - prefix, old, grid)
                elif old is not None:
                    log.info("Interpolating the positions of the image tower from %dx%d to %dx%d", *old, *grid)
                    adapted[key] = resample_abs_pos_embed(held, list(grid), list(old), num_prefix_tokens=prefix)
            elif name.endswith(_BIAS_TABLE) and held.ndim == 2 and held.shape != wanted.shape:
                window = self.trunk.get_submodule(name.removesuffix(f".{_BIAS_TABLE}")).window_size
                log.info("Interpolating %s from %s to %s", name, tuple(held.shape), tuple(wanted.shape))
                adapted[key] = resize_rel_pos_bias_table(held, new_window_size=window, new_bias_shape=wanted.shape)
        return adapted


def build_trunk(config: TimmConfig, embed_dim: int) -> Any:
    """The model of timm that `config` names, at its image size, with weights as timm draws them.

    Raises `ConfigError` where timm does not know the name, does not take an option or cannot change the size.
    """
    import timm

    options: dict[str, Any] = dict(config.options)
    if config.drop_path is not None:
        options["drop_path_rate"] = config.drop_path
    if config.patch_dropout is not None:
        options["patch_drop_rate"] = config.patch_dropout
    pool = {"global_pool": config.pool} if config.pool else {}
    if config.projection == "trunk":
        options |= {"num_classes": embed_dim, **pool}
    elif config.projection == "none":
        options |= {"num_classes": 0, **pool}
    if not timm.is_model(config.name):
        close = nearest(config.name, timm.list_models())
        raise ConfigError(
            f"timm {timm.__version__} has no model {config.name!r}.{f' Did you mean {close[0]}?' if close else ''} "
            "timm.list_models() lists them; a newer timm may have it."
        )
    make = functools.partial(timm.create_model, config.name, pretrained=False, **options)
    try:
        trunk: Any = make()
    except (TypeError, AssertionError) as error:
        raise ConfigError(f"timm's {config.name} does not take {options}: {error}.") from error
    if config.projection in ("linear", "mlp"):
        trunk.reset_classifier(0, **pool)
    if not isinstance(config, NaFlexConfig):  # which take any size
        _set_size(trunk, config)
    return trunk


def _set_size(trunk: Any, config: TimmConfig) -> None:
    size = size_pair(config.image_size)
    settings = trunk.pretrained_cfg
    current = tuple(getattr(getattr(trunk, "patch_embed", None), "img_size", None) or settings["input_size"][1:])
    if size == current:
        return
    if hasattr(trunk, "set_input_size"):
        try:
            trunk.set_input_size(size)
        except (AssertionError, ValueError) as error:
            raise ConfigError(f"timm's {config.name} does not take images of {size}: {error}.") from error
    elif settings.get("fixed_input_size"):
        raise ConfigError(
            f"image_size is {config.image_size}, but timm's {config.name} is made for {current[0]} x {current[1]} "
            "pixels and cannot change its size."
        )


def _join(output: Any) -> Tensor:
    """Class and register tokens in front of the others, as the blocks see them."""
    if isinstance(output, Tensor):
        return output
    patches, prefix = output
    return patches if prefix is None or prefix.shape[1] == 0 else torch.cat([prefix, patches], dim=1)
