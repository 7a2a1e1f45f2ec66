"""Pretrained CLIP models by name: the calls of clip-core, with the tags of published weights.

`load("ViT-B-32:laion2b_s34b_b79k")` downloads, verifies and builds; `list_pretrained()` lists what it knows.
"""

from __future__ import annotations

from clip_core import list_models
from clip_hub.__about__ import __version__
from clip_hub.card import Description
from clip_hub.contents import RepositoryContents, RepositoryFile, repository_files
from clip_hub.download import DownloadError, fetch
from clip_hub.models import create, create_model, create_model_and_transforms, get_tokenizer, load
from clip_hub.publish import UploadError, push
from clip_hub.registry import find, find_name, list_models_with, list_pretrained, list_tags
from clip_hub.screening import Refused
from clip_hub.tag import Score, Tag

__all__ = [
    "Description",
    "DownloadError",
    "Refused",
    "RepositoryContents",
    "RepositoryFile",
    "Score",
    "Tag",
    "UploadError",
    "__version__",
    "create",
    "create_model",
    "create_model_and_transforms",
    "fetch",
    "find",
    "find_name",
    "get_tokenizer",
    "list_models",
    "list_models_with",
    "list_pretrained",
    "list_tags",
    "load",
    "push",
    "repository_files",
]
