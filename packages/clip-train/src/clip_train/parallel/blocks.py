"""The blocks that towers repeat: what is gathered, or compiled, as one."""

from __future__ import annotations

from torch import nn

__all__ = ["find_blocks"]


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """Modules with layers of their own that stand in a row with others of their class, the outermost, in order.

    Transformer blocks of all towers, whoever wrote them; bottlenecks of a ResNet; blocks of ConvNeXt.
    """
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for row in model.modules():
        if row in inside or not isinstance(row, nn.ModuleList | nn.Sequential):
            continue
        for block in row:
            alike = sum(type(other) is type(block) for other in row)
            has_layers = any(next(child.parameters(), None) is not None for child in block.children())
            if alike > 1 and has_layers and not isinstance(block, nn.ModuleList | nn.Sequential):
                found.append(block)
                inside.update(block.modules())
    return found
