"""Freezing batch norms inside an image tower: their running statistics and their gains stay as they are in training.

OpenCLIP replaces such norms with others that have no parameters, which changes the keys of the state dict. Here they
remain what they are, so that weights saved before and after fit one another.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Self

from torch import nn

from clip_core.towers.interface import ImageTower

__all__ = ["BatchNormTower"]


class BatchNormTower(ImageTower):
    """An image tower whose batch norms can be frozen: they then normalise with running statistics even in training."""

    def __init__(self) -> None:
        super().__init__()
        # Names, not modules: a conversion to synchronised batch norms replaces the modules.
        self._frozen_norms: tuple[str, ...] = ()

    def freeze_batch_norms(self, root: str = "", modules: Container[str] | None = None) -> None:
        """Freeze the two-dimensional batch norms below `root`, or those of them that `modules` names relative to it."""
        frozen = set(self._frozen_norms)
        for name, module in self.get_submodule(root).named_modules():
            if isinstance(module, (nn.BatchNorm2d, nn.SyncBatchNorm)) and (modules is None or name in modules):
                frozen.add(f"{root}.{name}".strip("."))
                module.requires_grad_(False)
        self._frozen_norms = tuple(sorted(frozen))
        self.train(self.training)

    def thaw_batch_norms(self) -> None:
        """Let the running statistics follow the batches of training again; gradients are left as they are."""
        self._frozen_norms = ()
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As torch's, except that frozen norms stay in evaluation mode."""
        super().train(mode)
        for name in self._frozen_norms:
            self.get_submodule(name).eval()
        return self
