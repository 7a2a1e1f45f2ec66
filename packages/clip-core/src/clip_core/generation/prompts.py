"""What a caption begins with: the start id alone, or ids that a tokenizer gave.

Shapes: B images, S ids of the longest prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clip_core.errors import ConfigError
from clip_core.generation.options import GenerationOptions

__all__ = ["read_prompt"]


def read_prompt(prompt: Tensor | None, images: int, options: GenerationOptions, device: torch.device) -> Tensor:
    """(B, S) int64: the ids that each caption begins with, -1 where a shorter prompt leaves the choice open.

    `prompt` is one row (S,) or (1, S) for all images, or one each, (B, S), as the tokenizer gives it: the first stop
    id of a row and everything behind it, and padding at its end, are not part of the prompt.

    Raises:
        ConfigError: another shape or dtype, an empty row, or no room for an id behind it.
    """
    if prompt is None:
        return torch.full((images, 1), options.start_id, device=device)
    rows = prompt[None] if prompt.ndim == 1 else prompt
    if rows.ndim != 2 or rows.shape[0] not in (1, images) or rows.dtype != torch.int64:
        raise ConfigError(
            f"generate got a prompt of shape {tuple(prompt.shape)} and {prompt.dtype}; allowed: token ids as "
            f"torch.int64, (length,) for every image or ({images}, length). Use the tokenizer of the model."
        )
    rows = rows.to(device).expand(images, -1)
    stops = torch.tensor(options.stop_ids, device=device)
    ended = torch.isin(rows, stops).cumsum(1) > 0
    # Padding may also be an id of the vocabulary ("!" is OpenAI's 0), so it ends a row only where nothing follows.
    content = (rows != options.pad_id) & ~ended
    lengths = (content * torch.arange(1, rows.shape[1] + 1, device=device)).amax(1) if rows.numel() else rows.sum(1)
    longest, shortest = (int(lengths.amax()), int(lengths.amin())) if images else (1, 1)
    if shortest == 0:
        raise ConfigError("generate got a prompt without ids; allowed: one id or more in each row, the start id first.")
    if longest >= options.max_length:
        raise ConfigError(
            f"generate got a prompt of {longest} ids and max_length {options.max_length}; allowed: a prompt shorter "
            "than max_length."
        )
    given = torch.arange(longest, device=device) < lengths[:, None]
    return rows[:, :longest].masked_fill(~given, -1)
