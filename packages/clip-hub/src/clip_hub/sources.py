"""What a name means as a checkpoint that is to be read rather than run: its model, its tensors, its files.

The tools that average, convert, check and compare weights read through this. A tensor stays where the file has it until
it is used, so that a checkpoint larger than the memory can be worked on. What this room leaves out: running the model.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from torch import Tensor

from clip_core import CheckpointMismatch, ClipConfig, ConfigError, get_config, list_models
from clip_core.building import lay_out
from clip_core.convert.checkpoint import Checkpoint, differences
from clip_core.convert.reading import FILE_SUFFIXES, fitting_names, open_file
from clip_core.presets import split_name
from clip_core.storage import folder_of, open_checkpoint
from clip_core.tokenizer import MissingTokenizer, find_tokenizer, tokenizer_files
from clip_core.weights import load_weights
from clip_hub.addresses import fetch_address, is_address
from clip_hub.download import fetch
from clip_hub.registry import find, find_name
from clip_hub.repository import HUB_PREFIX, RepositoryName, fetch_model, fetch_vocabulary, is_repository
from clip_hub.tag import Tag

__all__ = ["Source", "open_source"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A checkpoint that states its model."""

    name: str
    """As it was asked for."""
    checkpoint: Checkpoint
    config: ClipConfig
    vocabulary: Path | None
    """The folder with the files of its tokenizer; None where they are not known, or the tokenizer is CLIP's own."""
    row: Tag | None = None
    """What is published of it, where it was asked for by its tag."""

    def tensors(self, config: ClipConfig | None = None) -> dict[str, Tensor]:
        """Its tensors under the names that the model of `config` has, default its own; mapped where the file can be.

        Raises:
            CheckpointMismatch: they cannot be read, or do not fit the model exactly.
        """
        config = config or self.config
        model = lay_out(config)
        load_weights(model, model.adapt_weights(self.checkpoint.tensors(config)), self.checkpoint.path)
        return {key: value.detach() for key, value in model.state_dict().items()}

    def tokenizer_files(self) -> tuple[Path, ...]:
        """What must lie beside its weights for its tokenizer to work; none for CLIP's own, or where they are gone."""
        return tokenizer_files(find_tokenizer(self.config.tokenizer, self.vocabulary))

    def has_tokenizer(self) -> bool:
        """Whether texts can be made into ids with what is there."""
        return not isinstance(find_tokenizer(self.config.tokenizer, self.vocabulary), MissingTokenizer)

    def weights_files(self) -> tuple[Path, ...]:
        """The files that hold its tensors: one, or the shards of a folder."""
        path = self.checkpoint.path
        if path.is_file():
            return (path,)
        held = sorted(found for found in path.iterdir() if found.name.endswith(FILE_SUFFIXES))
        preferred = [found for found in held if found.suffix == ".safetensors"]
        return tuple(preferred or held)


def open_source(
    name: str | os.PathLike[str],
    *,
    ema: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Source:
    """The checkpoint that `name` means, with no weights read yet but to tell the layout of a file.

    Args:
        name: a bundle; a folder in OpenCLIP's or transformers' layout; a file of OpenAI's weights; "model:tag" or
            "model:path" where a file does not state its model; "org/name" or "hf-hub:org/name@revision". What is there
            on disk goes first.
        ema: for a file with weights and their moving average: True takes the average, False the others.
        cache_dir, token: as `clip_hub.load`.

    Raises:
        ConfigError, UnknownModel: it is none of these, or does not state its model.
        CheckpointMismatch: it cannot be read, or holds another model than the name says.
        DownloadError: it could not be fetched.
    """
    text = os.fspath(name)
    if not text:
        raise ConfigError("The name of a checkpoint is empty; give a folder, a file, or model:tag.")
    if Path(text).exists():
        return _on_disk(text, Path(text), ema)
    model, _, rest = text.partition(":")
    known = split_name(model)[0] in list_models()
    if text.startswith(HUB_PREFIX) or (not known and is_repository(text.partition("@")[0])):
        asked = RepositoryName.of(text)
        folder = fetch_model(asked.repo, revision=asked.revision, cache_dir=cache_dir, token=token)
        held = open_checkpoint(folder, ema=ema)
        source = _stated(text, held, folder)
        if not source.has_tokenizer():  # the repository names another one that has its vocabulary
            vocabulary = fetch_vocabulary(source.config.tokenizer, cache_dir=cache_dir, token=token)
            return dataclasses.replace(source, vocabulary=vocabulary)
        return source
    if not known or not rest:
        if not known and not rest:
            raise ConfigError(
                f"There is no file or folder {text!r}, and it is no name as MODEL:TAG, MODEL:FILE or org/name."
            )
        find_name(text)  # raises, and names what is near
    path = fetch_address(rest, cache_dir=cache_dir) if is_address(rest) else Path(rest)
    if path.exists():
        return _of_model(text, model, path, ema)
    if path.suffix in FILE_SUFFIXES or len(path.parts) > 1:
        raise ConfigError(f"There is no file or folder {rest!r}.")
    row = find(model, rest)
    vocabulary = fetch_vocabulary(row.config().tokenizer, cache_dir=cache_dir, token=token)
    path = fetch(row.repo, row.files, revision=row.revision, cache_dir=cache_dir, token=token)
    return Source(name=text, checkpoint=open_file(path, ema=ema), config=row.config(), vocabulary=vocabulary, row=row)


def _on_disk(name: str, path: Path, ema: bool | None) -> Source:
    held = open_checkpoint(path, ema=ema)
    if held.config is None:
        names = fitting_names(path, ema=ema)
        guess = f" By their sizes they could be of {', '.join(names)}." if names else ""
        raise ConfigError(
            f"{path} holds {held.layout}, which do not say their model, activation and preprocessing; write the name "
            f"of the model in front, as in {names[0] if names else 'ViT-B-32'}:{path}.{guess}"
        )
    return _stated(name, held, folder_of(path))


def _stated(name: str, held: Checkpoint, folder: Path | None) -> Source:
    assert held.config is not None
    return Source(name=name, checkpoint=held, config=held.config, vocabulary=folder)


def _of_model(name: str, model: str, path: Path, ema: bool | None) -> Source:
    """The checkpoint in `path` as one of architecture `model`, which it must be if it states one."""
    config = get_config(model)
    held = open_checkpoint(path, config, ema=ema)
    if held.config is None:
        return Source(name=name, checkpoint=held, config=config, vocabulary=folder_of(path))
    different = differences(config, held.config)
    if different:
        fields = ", ".join(f"{key} is {theirs!r} there, {ours!r} asked" for key, (ours, theirs) in different.items())
        raise CheckpointMismatch(f"{path} ({held.layout}) holds another model than {model!r}: {fields}.")
    return _stated(name, held, folder_of(path))
