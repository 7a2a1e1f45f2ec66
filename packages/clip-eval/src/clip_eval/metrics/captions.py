"""How near generated captions come to those of people: BLEU, METEOR, ROUGE-L, CIDEr and SPICE, by pycocoevalcap.

The scores are that package's own; here is what it needs and what it does not say. Java runs the Penn Treebank
tokenizer, METEOR and SPICE; without it captions are split by rules of our own, and METEOR and SPICE are left out with
the reason. SPICE also needs Stanford's models, which are never fetched from here. CIDEr weighs words by how many of
the set's own images have them, so it is comparable on one and the same set only, and 0 for a set of one image.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip_core.errors import ConfigError
from clip_eval.metrics.intervals import Metric
from clip_eval.metrics.resampling import RESAMPLES, resample

__all__ = ["CaptionScores", "require_pycocoevalcap", "score_captions", "split_words"]

_Tokens = dict[int, list[str]]

# What pycocoevalcap drops after it has split a caption; the rest of the marks stay, as words of their own.
_PUNCTUATION = frozenset("'`\".?!,:;-")
# Brackets have names, which pycocoevalcap means to drop and does not, because it looks for them in capitals.
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}
_WORD = re.compile(r"n't|'(?:s|m|d|re|ve|ll)\b|\w(?:(?!n't\b)[\w-])*|[^\w\s]")
# Everything that Java or Python may take for the end of a line; inside a caption it would shift all captions after it.
_BREAKS = re.compile("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """All that is known about N generated captions."""

    metrics: dict[str, Metric]
    per_image: dict[str, Tensor]
    """float64 (N,), for the metrics that are the mean of what each image scores."""
    tokenizer: str
    left_out: dict[str, str]
    """Metrics without a value, and why."""


def require_pycocoevalcap() -> None:
    """Raises `ConfigError` where pycocoevalcap is not installed."""
    if importlib.util.find_spec("pycocoevalcap") is None:
        raise ConfigError(
            "Captions are scored by pycocoevalcap, which is not installed: pip install 'clip-eval[captioning]'."
        )


def score_captions(generated: Sequence[str], references: Sequence[Sequence[str]]) -> CaptionScores:
    """Scores N captions against at least one reference each.

    Intervals are bootstraps over the images, with CIDEr's weights of words left as they are.

    Raises:
        ConfigError: pycocoevalcap is not installed.
        ValueError: no caption, or one without a reference.
    """
    if not generated or len(generated) != len(references) or not all(references):
        raise ValueError("every caption needs a reference")
    require_pycocoevalcap()
    java = shutil.which("java") is not None
    split = _split_by_java if java else _split_here
    found = split({place: [text] for place, text in enumerate(generated)})
    truth = split({place: list(texts) for place, texts in enumerate(references)})
    metrics = _bleu(truth, found)
    per_image: dict[str, Tensor] = {}
    left_out: dict[str, str] = {}
    for name, score in (("METEOR", _meteor), ("ROUGE_L", _rouge), ("CIDEr", _cider), ("SPICE", _spice)):
        reason = "Java is not installed" if name in ("METEOR", "SPICE") and not java else ""
        if name == "SPICE" and not reason and not _spice_models():
            reason = "Stanford's models are not beside it; pycocoevalcap.spice.get_stanford_models fetches them"
        if not reason:
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    value, values = score(truth, found)
            except (OSError, ValueError, subprocess.CalledProcessError) as error:
                reason = f"pycocoevalcap failed: {type(error).__name__}: {error}"
        if reason:
            left_out[name] = reason
            continue
        metrics[name] = _mean(value, values)
        if name != "METEOR":  # whose total is not the mean of its images'
            per_image[name] = values
    tokenizer = "Penn Treebank, by Java" if java else "clip-eval's, for want of Java"
    return CaptionScores(metrics, per_image, tokenizer, left_out)


def split_words(caption: str) -> str:
    """Lower case words with spaces between them and without punctuation, near to what the Java tokenizer gives."""
    words = _WORD.findall(caption.lower().replace("\u2019", "'"))
    return " ".join(_BRACKETS.get(word, word) for word in words if word not in _PUNCTUATION)


def _split_here(captions: dict[int, list[str]]) -> _Tokens:
    return {place: [split_words(text) for text in texts] for place, texts in captions.items()}


def _split_by_java(captions: dict[int, list[str]]) -> _Tokens:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # It puts all captions into one file, a line for each, and takes the lines that come out in their order. The
    # word behind the last caption shows that none was lost.
    flat = {place: [{"caption": _BREAKS.sub(" ", text)} for text in texts] for place, texts in captions.items()}
    end = max(captions) + 1
    try:
        tokens: _Tokens = PTBTokenizer().tokenize({**flat, end: [{"caption": "end"}]})
    except OSError as error:
        raise ConfigError(
            f"pycocoevalcap's tokenizer cannot work ({error}): it writes beside itself and starts java. Make "
            f"{error.filename or 'its folder'} writable, or take java off the path."
        ) from error
    if tokens.pop(end, None) != ["end"] or any(len(tokens.get(place, ())) != len(flat[place]) for place in flat):
        raise ConfigError("pycocoevalcap's tokenizer lost or added a line, so captions would belong to other images.")
    return tokens


def _bleu(truth: _Tokens, found: _Tokens) -> dict[str, Metric]:
    """BLEU of the whole set, which no image has a share in: drawn again from the counts of each."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for place, (caption,) in found.items():
        scorer += (caption, truth[place])
    values, _ = scorer.compute_score(option="closest", verbose=0)
    rows = [
        [*image["correct"], *image["guess"], image["testlen"], _closest(image["reflen"], image["testlen"])]
        for image in scorer.ctest
    ]
    counts = torch.tensor(rows, dtype=torch.float64)
    metrics = {}
    for n, value in enumerate(values, 1):
        metrics[f"Bleu_{n}"] = _metric(value, len(rows), lambda drawn, n=n: _bleu_of(drawn.double() @ counts, n))  # type: ignore[misc]
    return metrics


def _closest(lengths: Sequence[int], length: int) -> int:
    return min((abs(other - length), other) for other in lengths)[1]


def _bleu_of(sums: Tensor, n: int) -> float:
    """BLEU-n (Papineni et al. 2002) from summed counts: right and all 1- to 4-grams, length, closest lengths."""
    right, every, length, wanted = sums[:4], sums[4:8], float(sums[8]), float(sums[9])
    precision = float(((right[:n] + 1e-15) / (every[:n] + 1e-9)).prod()) ** (1 / n)
    ratio = (length + 1e-15) / (wanted + 1e-9)
    return float(precision * np.exp(min(0.0, 1 - 1 / ratio)))


def _meteor(truth: _Tokens, found: _Tokens) -> tuple[float, Tensor]:
    from pycocoevalcap.meteor.meteor import Meteor

    scorer = Meteor()
    try:
        return _scored(scorer, truth, found)
    finally:
        # After an error its lock is still held, and its end would wait for it; two of its pipes it never closes.
        if scorer.lock.locked():
            scorer.lock.release()
        scorer.meteor_p.stdout.close()
        scorer.meteor_p.stderr.close()


def _rouge(truth: _Tokens, found: _Tokens) -> tuple[float, Tensor]:
    from pycocoevalcap.rouge.rouge import Rouge

    return _scored(Rouge(), truth, found)


def _cider(truth: _Tokens, found: _Tokens) -> tuple[float, Tensor]:
    from pycocoevalcap.cider.cider import Cider

    return _scored(Cider(), truth, found)


def _spice(truth: _Tokens, found: _Tokens) -> tuple[float, Tensor]:
    from pycocoevalcap.spice.spice import Spice

    value, values = Spice().compute_score(truth, found)
    return float(value), torch.tensor([float(image["All"]["f"]) for image in values], dtype=torch.float64)


def _scored(scorer: Any, truth: _Tokens, found: _Tokens) -> tuple[float, Tensor]:
    value, values = scorer.compute_score(truth, found)
    return float(value), torch.tensor(np.asarray(values), dtype=torch.float64)


def _spice_models() -> bool:
    package = importlib.util.find_spec("pycocoevalcap.spice")
    folders = [] if package is None else package.submodule_search_locations or []
    return any((Path(folder) / "lib" / "stanford-corenlp-3.6.0-models.jar").exists() for folder in folders)


def _mean(value: float, values: Tensor) -> Metric:
    """The interval is that of the mean over images, moved by as much as a total differs from it (METEOR's does)."""
    mean = float(values.mean())
    return _metric(value, len(values), lambda drawn: value - mean + float(drawn.double() @ values) / len(values))


def _metric(value: float, count: int, statistic: Callable[[Tensor], float]) -> Metric:
    low, high = resample(count, statistic)
    return Metric(
        value=float(value),
        n=count,
        low=min(low, float(value)),
        high=max(high, float(value)),
        interval=f"bootstrap over images, {RESAMPLES} resamples",
    )
