"""Changes to the logits of the next id before one is chosen; each returns new ones.

Shapes: R rows, V vocabulary, L ids so far. What is forbidden becomes minus infinity.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clip_core.generation.options import GenerationOptions

__all__ = ["keep_top_k", "keep_top_p", "penalize_repetition", "prepare"]

FORBIDDEN = float("-inf")


def prepare(logits: Tensor, tokens: Tensor, options: GenerationOptions) -> Tensor:
    """Logits (R, V) after ids (R, L) -> float32, with no end before `min_length` and the repetition penalty."""
    scores = logits.float()
    if tokens.shape[1] < options.min_length:
        scores = scores.index_fill(1, torch.tensor(options.stop_ids, device=scores.device), FORBIDDEN)
    if options.repetition_penalty != 1:
        scores = penalize_repetition(scores, tokens, options.repetition_penalty)
    return scores


def penalize_repetition(scores: Tensor, tokens: Tensor, penalty: float) -> Tensor:
    """Ids among `tokens` (R, L) become less likely: a positive logit is divided by `penalty`, another multiplied.

    Keskar et al. 2019 (CTRL), section 4.1.
    """
    seen = scores.gather(1, tokens)
    return scores.scatter(1, tokens, torch.where(seen > 0, seen / penalty, seen * penalty))


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """Only the `k` highest of each row stay, and those equal to the last of them."""
    least = scores.topk(min(k, scores.shape[1]), dim=1).values[:, -1:]
    return scores.masked_fill(scores < least, FORBIDDEN)


def keep_top_p(scores: Tensor, p: float) -> Tensor:
    """Only the smallest set of the likeliest ids whose probabilities sum to `p` stays (Holtzman et al. 2020)."""
    ordered, order = scores.sort(dim=1, stable=True)
    # Summed from the unlikeliest on, where the terms are small and of a kind; the likeliest always stays.
    left_out = ordered.softmax(dim=1).cumsum(dim=1) <= 1 - p
    left_out[:, -1] = False
    return scores.masked_fill(left_out.scatter(1, order, left_out), FORBIDDEN)
