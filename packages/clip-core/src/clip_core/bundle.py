"""A model together with what makes its inputs; `creation` makes one by name, `storage` reads one from a folder."""

from __future__ import annotations

import dataclasses
import os

from clip_core.config import ClipConfig
from clip_core.model import Clip
from clip_core.preprocess import Transform, build_transform
from clip_core.tokenizer import Tokenizer, find_tokenizer

__all__ = ["Bundle"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """A model in evaluation mode and everything that makes its inputs."""

    model: Clip
    preprocess: Transform
    """PIL image -> float32 (3, size, size)."""
    tokenizer: Tokenizer
    """Texts -> int64 (B, context_length). Without its vocabulary it raises when it is used, and images still work."""
    config: ClipConfig

    @classmethod
    def of(cls, model: Clip, folder: str | os.PathLike[str] | None = None) -> Bundle:
        """`model` with the transform and the tokenizer that its configuration states; `folder` has its vocabulary.

        CLIP's own tokenizer needs none. Where a vocabulary is missing, the tokenizer raises when it is used.
        """
        config = model.config
        return cls(
            model=model,
            preprocess=build_transform(config.preprocess),
            tokenizer=find_tokenizer(config.tokenizer, folder),
            config=config,
        )
