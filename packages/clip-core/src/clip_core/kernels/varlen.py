"""Self-attention over sequences of different length that stand one behind another, without padding.

Shapes: T tokens of all sequences, R sequences, L the longest of them, H heads, C channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["packed_attention"]


def packed_attention(packed: Tensor, starts: Tensor, longest: int, *, causal: bool) -> Tensor:
    """As `attention`, for sequences of any length, each of which sees only itself.

    No value of `starts` is read on the host, so that nothing waits for the device.

    Args:
        packed: (T, 3, H, C), query, key and value of each token.
        starts: (R + 1,) int32 on the same device, where each sequence begins, and where the last one ends, which is at
            most T; sequences may be empty.
        longest: at least the length of the longest sequence.
        causal: whether a token sees only itself and what is before it.

    Returns:
        (T, H, C), of the dtype of `packed`; zeros for tokens behind the last sequence.
    """
    return _padded(packed, starts, longest, causal)


def _padded(packed: Tensor, starts: Tensor, longest: int, causal: bool) -> Tensor:
    begin, end = starts[:-1, None], starts[1:, None]
    places = begin + torch.arange(longest, device=packed.device, dtype=starts.dtype)  # (R, L)
    held = places < end
    query, key, value = packed[places.clamp(max=len(packed) - 1)].permute(2, 0, 3, 1, 4).unbind(0)
    # Behind the end of a sequence stands another one's token. A causal row never sees it; the others need a mask.
    mask = None if causal else (held | (places == begin))[:, None, None]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal).transpose(1, 2)
    tokens = torch.arange(len(packed), device=packed.device, dtype=starts.dtype)
    row = torch.bucketize(tokens, starts[1:], right=True).clamp(max=len(starts) - 2)
    place = (tokens - starts[row]).clamp(max=longest - 1)
    return mixed[row, place].where((tokens < starts[-1])[:, None, None], 0)
