"""Beam search: the best few captions of each image grow side by side; finished ones wait to be compared.

Shapes: B images, K beams of an image in G groups of K / G, R = B * K rows, V vocabulary, L ids so far. Groups choose
one after another at each step and may be kept from repeating each other (Vijayakumar et al. 2018).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from clip_core.generation.decoding import Decoding
from clip_core.generation.options import GenerationOptions
from clip_core.generation.scores import FORBIDDEN, prepare

__all__ = ["search_beams"]

# Of beams that are copies of the first: never chosen while there is anything else, and above what is forbidden.
UNUSED = -1e9


@dataclasses.dataclass
class _Group:
    """The finished captions of one group of beams of one image, the best `size` of them."""

    size: int
    found: list[tuple[float, list[int]]] = dataclasses.field(default_factory=list)
    done: bool = False

    def add(self, score: float, ids: list[int]) -> None:
        if len(self.found) == self.size:
            worst = min(self.found, key=lambda caption: caption[0])
            if score <= worst[0]:
                return
            self.found.remove(worst)
        self.found.append((score, ids))

    def cannot_improve(self, attainable: float) -> bool:
        return len(self.found) == self.size and min(score for score, _ in self.found) >= attainable


def search_beams(decoding: Decoding, prompt: Tensor, options: GenerationOptions) -> Tensor:
    """The best caption of each image, ids (B, L), L at most `max_length`, padded.

    A caption scores the sum over its ids divided by length ** `length_penalty`. Every caption ends with the first stop
    id, except one that had no room left for it.

    Args:
        decoding: K rows per image, nothing read yet.
        prompt: (B, S), -1 where the choice is open, see `prompts.read_prompt`.
        options: with method "beam".
    """
    images, beams = prompt.shape[0], options.beams
    start = int((prompt >= 0).all(dim=0).sum())
    tokens = prompt[:, :start].repeat_interleave(beams, dim=0)
    groups = [[_Group(beams // options.beam_groups) for _ in range(options.beam_groups)] for _ in range(images)]
    sums = torch.full((images, beams), UNUSED, device=prompt.device)
    sums[:, :: beams // options.beam_groups] = 0
    unread = tokens
    while tokens.shape[1] < options.max_length:
        scores = _score(decoding(unread), tokens, prompt, options)
        rows, chosen, sums = _step(scores, sums, tokens, groups, options)
        decoding.reorder(rows)
        unread = chosen[:, None]
        tokens = torch.cat([tokens[rows], unread], dim=1)
        if all(group.done for row in groups for group in row):
            break
    return _best(groups, tokens, sums, options)


def _score(logits: Tensor, tokens: Tensor, prompt: Tensor, options: GenerationOptions) -> Tensor:
    """(R, V) -> (B, K, V): what each id adds to a beam; where the prompt has one, only that, at no cost."""
    if options.beam_score == "log_probabilities":
        logits = logits.float().log_softmax(dim=1)
    scores = prepare(logits, tokens, options).view(prompt.shape[0], options.beams, -1)
    if tokens.shape[1] < prompt.shape[1]:
        given = prompt[:, tokens.shape[1], None, None]
        there = torch.full_like(scores, FORBIDDEN).scatter(2, given.clamp(min=0).expand(-1, options.beams, 1), 0.0)
        scores = torch.where(given >= 0, there, scores)
    return scores


def _step(
    scores: Tensor, sums: Tensor, tokens: Tensor, groups: list[list[_Group]], options: GenerationOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (B, K, V) -> the row each beam goes on from (R,), its new id (R,), its sum (B, K)."""
    images, beams, vocabulary = scores.shape
    size, length = beams // options.beam_groups, tokens.shape[1] + 1
    rows = [[0] * beams for _ in range(images)]
    chosen = [[options.pad_id] * beams for _ in range(images)]
    new_sums = [[0.0] * beams for _ in range(images)]
    for index in range(options.beam_groups):
        first = index * size
        group_scores = scores[:, first : first + size]
        if first:
            earlier = torch.tensor([row[:first] for row in chosen], device=scores.device)
            repeats = scores.new_zeros(images, vocabulary).scatter_add_(1, earlier, torch.ones_like(earlier).float())
            group_scores = group_scores - options.diversity_penalty * repeats[:, None]
        candidates = (group_scores + sums[:, first : first + size, None]).flatten(1)
        # So many that the beams stay full even where every beam's ends are among them.
        top = candidates.topk(min(size * (1 + len(options.stop_ids)), candidates.shape[1]), dim=1)
        for image, (values, places) in enumerate(zip(top.values.tolist(), top.indices.tolist(), strict=True)):
            group = groups[image][index]
            if group.done:
                rows[image][first : first + size] = [image * beams] * size
                continue
            filled = 0
            for rank, (value, place) in enumerate(zip(values, places, strict=True)):
                beam, token = divmod(place, vocabulary)
                row = image * beams + first + beam
                if token in options.stop_ids:
                    if rank < size and value > UNUSED / 2:
                        group.add(value / length**options.length_penalty, tokens[row].tolist())
                elif filled < size:
                    at = first + filled
                    rows[image][at], chosen[image][at], new_sums[image][at] = row, token, value
                    filled += 1
            group.done = group.cannot_improve(values[0] / length**options.length_penalty)
    device = scores.device
    return (
        torch.tensor(rows, device=device).flatten(),
        torch.tensor(chosen, device=device).flatten(),
        torch.tensor(new_sums, device=device),
    )


def _best(groups: list[list[_Group]], tokens: Tensor, sums: Tensor, options: GenerationOptions) -> Tensor:
    """Compare finished captions with those that ran out of room; -> (B, L)."""
    length, size = tokens.shape[1], options.beams // options.beam_groups
    best: list[list[int]] = []
    for image, row in enumerate(groups):
        for index, group in enumerate(row):
            for beam in range(index * size, (index + 1) * size):
                if not group.done:
                    score = float(sums[image, beam]) / length**options.length_penalty
                    group.add(score, tokens[image * options.beams + beam].tolist())
        captions = [caption for group in row for caption in group.found]
        best.append(max(captions, key=lambda caption: caption[0])[1])
    width = min(max(map(len, best), default=0) + 1, options.max_length)
    padded = [[*ids, options.stop_ids[0], *[options.pad_id] * width][:width] for ids in best]
    return torch.tensor(padded, dtype=torch.int64, device=tokens.device).view(len(best), width)
