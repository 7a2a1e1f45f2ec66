"""Association: which of the candidate images belong to a cue (WinoGAViL), scored as DataComp does.

The cue is asked for as "A cue" or "An cue", in lower case; the model names as many images as are right. A riddle of
which an image was left out is left out. What is not here: the index (`metrics.jaccard`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from clip_core.errors import DataError
from clip_eval.encoder import Encoder
from clip_eval.features import ImageFeatures
from clip_eval.metrics.intervals import Metric
from clip_eval.metrics.jaccard import Jaccard, score_association
from clip_eval.metrics.ranking import pair_similarities
from clip_eval.metrics.resampling import resampled_mean
from clip_eval.tasks.result import Outcomes, TaskResult
from clip_eval.wds import WdsDataset

__all__ = ["cue_prompt", "evaluate_association"]


def cue_prompt(cue: str) -> str:
    """What DataComp asks for: the cue in lower case behind "A", or "An" before a vowel."""
    cue = cue.lower()
    return f"An {cue}" if cue.startswith(("a", "e", "i", "o", "u")) else f"A {cue}"


def evaluate_association(encoder: Encoder, dataset: WdsDataset, images: ImageFeatures) -> TaskResult:
    """Scores a set of riddles: `avg_jaccard_score`, and one for each number of candidates, as DataComp names them.

    `jaccard_score_5-6` and `jaccard_score_10-12`, DataComp's main metric, put its two easy and two hard ones together.

    Raises:
        DataError: no riddle has all its images.
    """
    start = time.perf_counter()
    rows = {place: row for row, place in enumerate(images.kept.tolist())}
    riddles = [
        (number, riddle)
        for number, riddle in enumerate(dataset.associations)
        if all(place in rows for place in riddle.candidates)
    ]
    if not riddles:
        raise DataError(
            f"{dataset.name}: none of the {len(dataset.associations)} riddles has all its images; see what was left "
            "out."
        )
    prompts = [cue_prompt(riddle.cue) for _, riddle in riddles]
    texts = list(dict.fromkeys(prompts))
    columns = {text: column for column, text in enumerate(texts)}
    features = encoder.texts(texts)
    encoded = time.perf_counter()
    pairs = [
        (rows[place], columns[prompt])
        for (_, riddle), prompt in zip(riddles, prompts, strict=True)
        for place in riddle.candidates
    ]
    row, column = torch.tensor(pairs).T
    similarity = iter(pair_similarities(images.features, row, features, column).tolist())
    scores = [
        score_association(
            [next(similarity) for _ in riddle.candidates], [place in riddle.right for place in riddle.candidates]
        )
        for _, riddle in riddles
    ]
    sizes = [len(riddle.candidates) for _, riddle in riddles]
    metrics, outcomes = {}, {}
    for name, belongs in _groups(sizes).items():
        chosen = [place for place, size in enumerate(sizes) if belongs(size)]
        metrics[name] = _mean([scores[place] for place in chosen])
        # A riddle is a unit of its own: candidates recur among riddles, but never all of them.
        outcomes[name] = Outcomes(
            torch.tensor([scores[place].expected for place in chosen]),
            torch.tensor([riddles[place][0] for place in chosen]),
        )
    return TaskResult(
        task="association",
        metrics=metrics,
        ties={"jaccard_score": sum(score.tied for score in scores) / len(scores)},
        details={
            "riddles": len(riddles),
            "riddles_left_out": len(dataset.associations) - len(riddles),
            "candidates": {str(size): sizes.count(size) for size in sorted(set(sizes))},
            "prompts_truncated": encoder.count_truncated(texts),
            "first": [
                {"cue": riddle.cue, "prompt": prompt, "jaccard": score.expected}
                for (_, riddle), prompt, score in list(zip(riddles, prompts, scores, strict=True))[:20]
            ],
        },
        samples=[],
        outcomes=outcomes,
        seconds_texts=encoded - start,
        seconds_metrics=time.perf_counter() - encoded,
    )


def _groups(sizes: Sequence[int]) -> dict[str, Callable[[int], bool]]:
    """Metrics by which numbers of candidates count; those that no riddle has are left out."""
    groups: dict[str, Callable[[int], bool]] = {"avg_jaccard_score": lambda size: True}
    for wanted in sorted(set(sizes)):
        groups[f"jaccard_score_{wanted}"] = lambda size, wanted=wanted: size == wanted  # type: ignore[misc]
    groups["jaccard_score_5-6"] = lambda size: size in (5, 6)
    groups["jaccard_score_10-12"] = lambda size: size in (10, 12)
    return {name: belongs for name, belongs in groups.items() if any(map(belongs, sizes))}


def _mean(scores: Sequence[Jaccard]) -> Metric:
    return resampled_mean(
        torch.tensor([score.expected for score in scores], dtype=torch.float64),
        torch.tensor([score.optimistic for score in scores], dtype=torch.float64),
        torch.tensor([score.pessimistic for score in scores], dtype=torch.float64),
    )
