"""The paragraphs of a model card that are the same for every model of this kind."""

from __future__ import annotations

__all__ = ["DATA_WARNING", "DIRECT_USE", "DOWNSTREAM_USE", "OUT_OF_SCOPE", "USES"]

USES = """\
This model is published for research: to see what a model that was trained on pairs of images and texts can and cannot
do, and what it does where nobody looked before. What people who build on such models should know about their effects
is discussed in the [CLIP paper](https://arxiv.org/abs/2103.00020) and in
[OpenAI's card of the first CLIP](https://github.com/openai/CLIP/blob/main/model-card.md)."""

DIRECT_USE = """\
Classification of images by labels that are given as texts (zero-shot), search of images by text and of texts by image,
and features of either for a measure of similarity."""

DOWNSTREAM_USE = """\
Fine-tuning for classification and other tasks on images, linear probes on its features, and guiding or judging models
that make images or captions."""

OUT_OF_SCOPE = """\
**Deployment without a test of its own.** The figures below hold for their data sets. How well a label is found depends
on which other labels stand beside it and how they are worded, so a use with other classes, images or wordings has to be
tested with exactly those before anybody relies on it, commercially or not.

**Surveillance and recognition of faces.** However good the figures are, there is no agreed way yet to test such a use
for fairness and harm.

**Decisions about people.** A model of this kind repeats what its training data say about groups of people, and nothing
here measured that."""

DATA_WARNING = """\
**IMPORTANT.** Pairs of images and texts at the scale of such models are mostly gathered from the web, and nobody has
looked at each of them. Unless it is said above that these data were curated, expect among them content that is
disturbing, hateful, private or simply wrong, and a model that has learned from it. Filters lower the share of such
content and never bring it to zero. Look at the data themselves with care, and take them for research rather than as the
ground of a finished product."""
