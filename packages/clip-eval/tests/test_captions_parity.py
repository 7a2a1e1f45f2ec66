"""Scores of captions against pycocoevalcap called by hand, with Java and without; and its traps."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from clip_core.errors import ConfigError
from clip_eval.metrics import captions as module
from clip_eval.metrics.captions import score_captions, split_words

pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed")
pytestmark = pytest.mark.parity

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")

GENERATED = [
    "a man riding a wave on top of a surfboard .",
    "A dog's ball (red) is on the grass.",
    "two people don't see the well-known clock, 3 of them",
    "a cat",
    "a plate of food with 2 forks and a glass of wine",
    "the man is riding a bike down the street",
]
REFERENCES = [
    ["A man rides a wave on a surfboard.", "A surfer on top of a wave; riding it!"],
    ["A dog plays with a red ball on the grass.", "The dog's ball is red"],
    ["Two people do not see the clock.", "People and a well-known clock"],
    ["A cat sits on a sofa.", "a cat", "A small cat"],
    ["A plate of food and a glass of wine", "Food with forks on a table"],
    ["A man rides his bike down a street.", "the man is riding a bike"],
]


def by_hand(found: dict[int, list[str]], truth: dict[int, list[str]]) -> dict[str, float]:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    bleu, _ = Bleu(4).compute_score(truth, found, verbose=0)
    scores = {f"Bleu_{n}": value for n, value in enumerate(bleu, 1)}
    return scores | {
        "ROUGE_L": Rouge().compute_score(truth, found)[0],
        "CIDEr": Cider().compute_score(truth, found)[0],
    }


@needs_java
def test_scores_are_pycocoevalcaps_own(monkeypatch) -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    found = tokenizer.tokenize({place: [{"caption": text}] for place, text in enumerate(GENERATED)})
    truth = tokenizer.tokenize({place: [{"caption": text} for text in texts] for place, texts in enumerate(REFERENCES)})

    def fail(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(module, "_meteor", fail)  # takes many seconds to start
    scores = score_captions(GENERATED, REFERENCES)
    assert {name: metric.value for name, metric in scores.metrics.items()} == pytest.approx(by_hand(found, truth))
    assert scores.tokenizer == "Penn Treebank, by Java"
    assert scores.left_out["METEOR"] == "pycocoevalcap failed: BrokenPipeError: [Errno 32] Broken pipe"
    assert "Stanford's models are not beside it" in scores.left_out["SPICE"]
    for metric in scores.metrics.values():
        assert 0 <= metric.low < metric.value < metric.high
        assert metric.n == len(GENERATED)
    for name, values in scores.per_image.items():
        assert float(values.mean()) == pytest.approx(scores.metrics[name].value)


@needs_java
@pytest.mark.slow
def test_meteor_is_pycocoevalcaps_own() -> None:
    from pycocoevalcap.meteor.meteor import Meteor

    found = module._split_by_java({place: [text] for place, text in enumerate(GENERATED)})
    truth = module._split_by_java(dict(enumerate(REFERENCES)))
    peer = Meteor()
    expected, per_image = peer.compute_score(truth, found)
    peer.meteor_p.stdout.close()
    peer.meteor_p.stderr.close()
    scores = score_captions(GENERATED, REFERENCES)
    assert scores.metrics["METEOR"].value == pytest.approx(expected)
    assert "METEOR" not in scores.per_image
    # The images' own values spread around their mean, which is not METEOR's total, as widely as the interval.
    metric, spread = scores.metrics["METEOR"], float(np.std(per_image) / np.sqrt(len(per_image)))
    assert metric.low < expected < metric.high
    assert 2 * spread < metric.high - metric.low < 5 * spread


@needs_java
def test_our_own_words_are_nearly_those_of_java() -> None:
    texts = [*GENERATED, *(text for group in REFERENCES for text in group)]
    found = module._split_by_java({place: [text] for place, text in enumerate(texts)})
    assert [split_words(text) for text in texts] == [found[place][0] for place in range(len(texts))]


@needs_java
def test_no_caption_takes_the_place_of_another() -> None:
    strange = ["a\u2028cat", "", "a dog\n\nand\x85more", "an owl\r\n", ""]
    found = module._split_by_java({place: [text, "x"] for place, text in enumerate(strange)})
    assert list(found.values()) == [["a cat", "x"], ["", "x"], ["a dog and more", "x"], ["an owl", "x"], ["", "x"]]
    last = module._split_by_java({0: ["a cat"], 1: [""], 2: [""]})
    assert list(last.values()) == [["a cat"], [""], [""]]


def test_without_java_words_are_split_here_and_two_metrics_are_left_out(monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    scores = score_captions(GENERATED, REFERENCES)
    found = {place: [split_words(text)] for place, text in enumerate(GENERATED)}
    truth = {place: [split_words(text) for text in texts] for place, texts in enumerate(REFERENCES)}
    assert {name: metric.value for name, metric in scores.metrics.items()} == pytest.approx(by_hand(found, truth))
    assert scores.left_out == {"METEOR": "Java is not installed", "SPICE": "Java is not installed"}
    assert scores.tokenizer == "clip-eval's, for want of Java"


def test_the_interval_of_bleu_is_about_bleu_itself(monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    once = module._bleu(
        {place: [split_words(text) for text in texts] for place, texts in enumerate(REFERENCES)},
        {place: [split_words(text)] for place, text in enumerate(GENERATED)},
    )
    # Drawing every image once gives the value itself, so the resamples are of the same statistic.
    seen = []
    monkeypatch.setattr(
        module, "resample", lambda count, statistic: seen.append(statistic(torch.ones(count))) or (0, 1)
    )
    again = module._bleu(
        {place: [split_words(text) for text in texts] for place, texts in enumerate(REFERENCES)},
        {place: [split_words(text)] for place, text in enumerate(GENERATED)},
    )
    assert seen == pytest.approx([metric.value for metric in again.values()])
    assert {name: metric.value for name, metric in once.items()} == {
        name: metric.value for name, metric in again.items()
    }


def test_perfect_and_empty_captions(monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    perfect = score_captions([texts[0] for texts in REFERENCES], REFERENCES).metrics
    assert perfect["ROUGE_L"].value == pytest.approx(1)
    assert perfect["Bleu_4"].value == pytest.approx(1)
    silent = score_captions([""] * 6, REFERENCES).metrics
    assert silent["ROUGE_L"].value == silent["CIDEr"].value == 0
    assert silent["Bleu_1"].value == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="needs a reference"):
        score_captions(["a", "b"], [["a"], []])


def test_without_the_package_the_error_says_what_to_install(monkeypatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'clip-eval\[captioning\]'"):
        score_captions(GENERATED, REFERENCES)
