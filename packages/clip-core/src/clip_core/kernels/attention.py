"""Self-attention over sequences of one length, from packed queries, keys and values.

Shapes: B batch, S sequence, H heads, C channels of a head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["attention"]


def attention(packed: Tensor, *, causal: bool) -> Tensor:
    """Softmax attention of each position to all of its sequence, or with `causal` to itself and those before it.

    Args:
        packed: (B, S, 3, H, C), query, key and value of each position, as one linear layer gives them.
        causal: whether a position sees only itself and what is before it.

    Returns:
        (B, S, H, C), of the dtype of `packed`. Logits are divided by sqrt(C).
    """
    query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal).transpose(1, 2)
