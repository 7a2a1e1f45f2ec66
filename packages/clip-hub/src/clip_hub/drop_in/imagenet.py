"""The 1000 names of ImageNet's classes and the 80 templates that CLIP's zero-shot accuracy is measured with.

Both were curated by OpenAI (Radford et al. 2021, section 3.1.4; MIT licence); the names are those of OpenCLIP 3.3.0,
which mends a few. They lie beside this file, one a line, in the order of the classes, as `tools/imagenet_words.py`
writes them.
"""

from __future__ import annotations

from importlib import resources

__all__ = ["IMAGENET_CLASSNAMES", "OPENAI_IMAGENET_TEMPLATES", "SIMPLE_IMAGENET_TEMPLATES"]

_FOLDER = resources.files(__package__)

IMAGENET_CLASSNAMES = tuple((_FOLDER / "imagenet_classnames.txt").read_text(encoding="utf-8").splitlines())
"""Name i is that of ImageNet-1k's class i."""

# A method of a string is a function of the name that pickles.
OPENAI_IMAGENET_TEMPLATES = tuple(
    line.format for line in (_FOLDER / "imagenet_templates.txt").read_text(encoding="utf-8").splitlines()
)
"""Functions that put a name into a prompt."""

_SIMPLE = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
SIMPLE_IMAGENET_TEMPLATES = tuple(line.format for line in _SIMPLE)
"""The seven that OpenAI's search found to do almost as well."""
