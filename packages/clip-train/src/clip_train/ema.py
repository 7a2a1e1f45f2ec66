"""A mean of the weights over the steps, which forgets old ones exponentially (Polyak and Juditsky 1992).

It follows updates that were applied, and those alone. It is float32 whatever the weights are, holds what is trained
and nothing else, and leaves the run as a bundle of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clip_train.config import OptimConfig
from clip_train.parallel import local_parts
from clip_train.precision import multiply

if TYPE_CHECKING:
    from clip_train.trainer import Running

__all__ = ["WeightAverage", "averaging"]


class WeightAverage:
    """A service that keeps the mean; `state_dict` has it by the names of the parameters."""

    votes: tuple[str, ...] = ()

    def __init__(self, model: nn.Module, decay: float, *, every: int = 1) -> None:
        """Begin with the weights as they are.

        Args:
            model: what is trained; its parameters that are trainable by then are followed.
            decay: what is left of the mean after one step, the rest being the new weights.
            every: look at the weights after each so many steps, with `decay` to that power.
        """
        self._model = model
        self._decay, self._every = decay, every
        self._mean = {
            name: parameter.detach().float().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def after_step(self, running: Running, admitted: Tensor) -> None:
        """Take in the weights, unless this step's update was refused; nothing waits for the device."""
        if running.state.steps % self._every:
            return
        parameters = dict(self._model.named_parameters())
        means = local_parts(self._mean.values())
        weights = local_parts(parameters[name].detach() for name in self._mean)
        moves = torch._foreach_sub([weight.float() for weight in weights], means)
        share = admitted.float() * (1 - self._decay**self._every)
        multiply(moves, share)
        torch._foreach_add_(means, moves)

    def state_dict(self) -> dict[str, Any]:
        """The mean by the names of the parameters, the tensors themselves."""
        return dict(self._mean)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from `state_dict`, which has the same names."""
        for name, mean in self._mean.items():
            mean.copy_(state_dict[name])


def averaging(model: nn.Module, config: OptimConfig) -> WeightAverage | None:
    """The service that the flags ask for, or None."""
    if config.ema_decay is None:
        return None
    return WeightAverage(model, config.ema_decay, every=config.ema_every)
