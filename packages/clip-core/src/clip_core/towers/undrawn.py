"""Building a module for its layout and its buffers, without drawing weights that nobody will read.

Not on the meta device: a library may leave its buffers without values there (timm 1.0.24 does, and says nothing), and
torch imports for seconds to draw normal numbers that do not exist. On the CPU, memory that is never written takes no
room.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["parameters_to_meta", "undrawn"]


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Modules made inside have parameters on the CPU whose initial values are not computed, and complete buffers.

    Torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]), _SkipDrawing():
        yield


def parameters_to_meta(module: nn.Module) -> None:
    """Put the parameters of `module` on the meta device; one that two modules share stays shared."""
    made: dict[nn.Parameter, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                if parameter not in made:
                    made[parameter] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
                part._parameters[name] = made[parameter]


class _SkipDrawing(TorchFunctionMode):
    """Leave out what would be written into parameters in place, by a method such as `normal_` or by `torch.nn.init`."""

    def __init__(self) -> None:
        super().__init__()
        # Kept alive, so that no buffer gets the memory of a parameter that was thrown away.
        self.parameters: dict[int, nn.Parameter] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")  # as `torch.nn.init` names it
        if isinstance(target, nn.Parameter):
            self.parameters.setdefault(target.untyped_storage().data_ptr(), target)
        name = getattr(func, "__name__", "")
        writes = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
        if writes and isinstance(target, Tensor) and target.untyped_storage().data_ptr() in self.parameters:
            return target
        return func(*args, **kwargs)
