"""One caption per image, an id at a time: the likeliest, or one drawn among the likely ones.

Shapes: B images, S ids of the longest prompt, L ids of the longest caption.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clip_core.generation.decoding import Decoding
from clip_core.generation.options import GenerationOptions
from clip_core.generation.scores import keep_top_k, keep_top_p, prepare

__all__ = ["sample"]


def sample(
    decoding: Decoding, prompt: Tensor, options: GenerationOptions, generator: torch.Generator | None = None
) -> Tensor:
    """Ids (B, L), L at most `max_length`, padded; every row ends with a stop id or padding.

    A row that reaches `max_length` gets the first stop id as its last, whatever the logits say. Drawing padding ends
    a row too. Temperature is applied after top-k and top-p: they choose among the model's own probabilities.

    Args:
        decoding: one row per image, nothing read yet.
        prompt: (B, S), -1 where the choice is open, see `prompts.read_prompt`.
        options: with method "greedy" or "sample".
        generator: what ids are drawn with; None is torch's global one.
    """
    stops = torch.tensor((*options.stop_ids, options.pad_id), device=prompt.device)
    start = int((prompt >= 0).all(dim=0).sum())  # no row leaves a choice open before this
    tokens = prompt[:, :start]
    unread, finished = tokens, torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    while tokens.shape[1] < options.max_length and not bool(finished.all()):
        length = tokens.shape[1]
        chosen = tokens.new_full((len(tokens),), options.pad_id)
        logits = decoding(unread)
        active = ~finished
        if length + 1 == options.max_length:
            chosen[active] = options.stop_ids[0]
        else:
            chosen[active] = _choose(prepare(logits[active], tokens[active], options), options, generator)
        given = prompt[:, length] if length < prompt.shape[1] else torch.full_like(chosen, -1)
        chosen = torch.where(given >= 0, given, chosen)
        finished = finished | (torch.isin(chosen, stops) & (given < 0))
        unread = chosen[:, None]
        tokens = torch.cat([tokens, unread], dim=1)
    return tokens


def _choose(scores: Tensor, options: GenerationOptions, generator: torch.Generator | None) -> Tensor:
    if options.method == "greedy":
        return scores.argmax(dim=1)
    if options.top_k is not None:
        scores = keep_top_k(scores, options.top_k)
    if options.top_p is not None:
        scores = keep_top_p(scores, options.top_p)
    return torch.multinomial((scores / options.temperature).softmax(dim=1), 1, generator=generator)[:, 0]
