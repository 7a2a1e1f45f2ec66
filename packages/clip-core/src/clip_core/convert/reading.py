"""From a path to a `Checkpoint`: which format a file or a folder of another library has, and what it says of itself.

Files say little: OpenAI's state dicts state their model, OpenCLIP's do not. Folders come with a configuration, and with
what their images must look like. Bundles are read in `storage`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from clip_core.config import (
    ClipConfig,
    ClipTokenizerConfig,
    HfTokenizerConfig,
    PreprocessConfig,
    TokenizerConfig,
)
from clip_core.convert import openai, transformers_clip, transformers_dual, transformers_siglip, transformers_siglip2
from clip_core.convert.big_vision import read_big_vision
from clip_core.convert.checkpoint import Checkpoint, differences, placed, read_json
from clip_core.convert.openclip_config import from_openclip
from clip_core.convert.paddle import read_pdparams, to_openclip
from clip_core.convert.paddle_config import PADDLE_WEIGHTS, paddle_settings
from clip_core.convert.pairs import to_ours
from clip_core.convert.transformers_preprocess import from_preprocessor, writing_call
from clip_core.convert.transformers_tokenizer import is_clip_vocabulary
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.presets import get_config, list_models
from clip_core.presets.parts import VOCAB_SIZE
from clip_core.weights import SUFFIXES, read_weights

__all__ = [
    "FILE_SUFFIXES",
    "OPENCLIP_CONFIG",
    "OPENCLIP_WEIGHTS",
    "fitting_names",
    "is_of_folder",
    "open_file",
    "open_folder",
    "read_shards",
]

FILE_SUFFIXES = (*SUFFIXES, ".npz", ".pdparams")
"""Endings of the weights files that `open_file` reads."""

OPENCLIP_CONFIG = "open_clip_config.json"
OPENCLIP_WEIGHTS = "open_clip_model.safetensors"
_TRANSFORMERS_CONFIG = "config.json"

# In the order in which OpenCLIP looks for them.
_OPENCLIP_FILES = (
    OPENCLIP_WEIGHTS,
    *(f"open_clip_pytorch_model{ending}" for ending in (".safetensors", ".bin", ".pth", ".pt")),
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
_TIMM_KEYS = {"architecture", "pretrained_cfg"}  # of a config.json of timm
_TRANSFORMERS_FILES = ("model.safetensors", "pytorch_model.bin")
_WHOLE = ("", ".index.json")  # one file, or the list of its shards

_FAMILIES: dict[str, tuple[ModuleType, str]] = {
    "clip": (transformers_clip, "CLIPModel"),
    "siglip": (transformers_siglip, "SiglipModel"),
    "siglip2": (transformers_siglip2, "Siglip2Model"),
    "chinese_clip": (transformers_dual, "ChineseCLIPModel"),
    "vision-text-dual-encoder": (transformers_dual, "VisionTextDualEncoderModel"),
}


def open_file(path: str | os.PathLike[str], *, ema: bool | None = None) -> Checkpoint:
    """The checkpoint in a file: OpenAI's layout, OpenCLIP's, big_vision's `.npz` or PaddleNLP's `.pdparams`.

    Raises:
        CheckpointMismatch: it cannot be read; or, for `ema`, see `weights.read_weights`.
    """
    path = Path(path)
    foreign: dict[str, tuple[str, Callable[[], dict[str, Tensor]]]] = {
        ".npz": ("big_vision weights", lambda: read_big_vision(path)),
        ".pdparams": ("PaddleNLP weights", lambda: to_openclip(read_pdparams(path))),
    }
    if path.suffix in foreign:
        layout, read = foreign[path.suffix]
        return Checkpoint(path=path, layout=layout, config=None, tensors=lambda config: placed(read(), config))
    if path.is_file() and path.suffix not in FILE_SUFFIXES:
        raise CheckpointMismatch(f"Cannot tell the format of {path}; allowed: {', '.join(FILE_SUFFIXES)}.")
    # Read to tell the layout, and handed over when the weights are asked for, so that nobody holds them twice.
    first = [read_weights(path, ema=ema)]
    theirs = openai.is_openai(first[0])

    def tensors(config: ClipConfig) -> dict[str, Tensor]:
        held = first.pop() if first else read_weights(path, ema=ema)
        return placed(openai.to_clip(held) if theirs else held, config)

    return Checkpoint(
        path=path,
        layout="OpenAI weights" if theirs else "OpenCLIP weights",
        config=openai.infer_config(first[0]) if theirs else None,
        tensors=tensors,
    )


def fitting_names(path: Path, *, ema: bool | None = None) -> list[str]:
    """Architectures whose sizes are those of the weights in `path`, as far as shapes tell them apart."""
    try:
        inferred = openai.infer_config(read_weights(path, ema=ema))
    except CheckpointMismatch:
        return []
    # Not to be seen in shapes.
    unseen = ("image.heads", "text.heads", "image.activation", "text.activation")
    found = []
    for name in list_models():
        left = differences(get_config(name), inferred)
        if not any(key not in unseen and not key.startswith(("preprocess.", "tokenizer.")) for key in left):
            found.append(name)
    return found


def is_of_folder(file: Path) -> bool:
    """Whether `open_folder` takes `file` for the weights of its folder, by its name and what is beside it."""
    folder = file.parent
    held = {path.name for path in folder.iterdir()}
    weights = {name for name in held if name.endswith(FILE_SUFFIXES)}
    if OPENCLIP_CONFIG in held and (file.name in _OPENCLIP_FILES[:5] or _TRANSFORMERS_CONFIG not in held):
        return file.name in _OPENCLIP_FILES or weights == {file.name}
    if _TRANSFORMERS_CONFIG not in held or file.name not in (*_TRANSFORMERS_FILES, PADDLE_WEIGHTS):
        return False
    try:
        settings = read_json(folder / _TRANSFORMERS_CONFIG)
    except ConfigError:
        return False  # the name is a common one: many a script's configuration has it, too
    known = settings.get("model_type") in _FAMILIES or set(settings) >= _TIMM_KEYS
    return known or file.name == PADDLE_WEIGHTS


def open_folder(
    folder: str | os.PathLike[str],
    asked: ClipConfig | PreprocessConfig | None = None,
    *,
    ema: bool | None = None,
    file: str | None = None,
) -> Checkpoint:
    """The checkpoint in a folder of OpenCLIP or transformers.

    Args:
        folder: has `open_clip_config.json`, or transformers' `config.json`, and weights beside it.
        asked: the model that is to be built, or its preprocessing, for a folder that does not state any.
        ema: see `weights.read_weights`.
        file: name of the weights to take, of which `is_of_folder` is true, where there may be several.

    Raises:
        ConfigError: the folder is neither, or states what clip-core has no counterpart for; names the file.
        CheckpointMismatch: its weights are missing.
    """
    folder = Path(folder)
    held = {path.name for path in folder.iterdir()}
    if file is not None:
        held = {name for name in held if name == file or not name.removesuffix(_WHOLE[1]).endswith(FILE_SUFFIXES)}
    if OPENCLIP_CONFIG in held and (_TRANSFORMERS_CONFIG not in held or held & {*_OPENCLIP_FILES[:5]}):
        return _open_openclip(folder, held, ema)
    if _TRANSFORMERS_CONFIG in held:
        return _open_transformers(folder, held, asked, ema)
    raise ConfigError(
        f"{folder} is no checkpoint: it has neither clip_config.json (a bundle), nor {OPENCLIP_CONFIG} (OpenCLIP), nor "
        f"{_TRANSFORMERS_CONFIG} (transformers)."
    )


def _open_openclip(folder: Path, held: set[str], ema: bool | None) -> Checkpoint:
    path = folder / OPENCLIP_CONFIG
    content = read_json(path)
    if "model_cfg" not in content:
        raise ConfigError(f"{path} has no key 'model_cfg'; allowed: model_cfg and preprocess_cfg.")
    try:
        config = from_openclip(content["model_cfg"], content.get("preprocess_cfg"), pad_id=_stated_padding(folder))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    named = [name for name in _OPENCLIP_FILES if name in held]
    others = sorted(name for name in held if name.endswith(SUFFIXES))
    if not named and len(others) != 1:
        found = f"several weights files ({', '.join(others)})" if others else "no weights file"
        raise CheckpointMismatch(f"{folder} has {found}; allowed: {OPENCLIP_WEIGHTS}, or one file of any name.")
    weights = folder / (named or others)[0]
    return Checkpoint(
        path=weights,
        layout="OpenCLIP folder",
        config=config,
        tensors=lambda config: placed(read_weights(weights, ema=ema), config),
    )


def _open_transformers(
    folder: Path, held: set[str], asked: ClipConfig | PreprocessConfig | None, ema: bool | None
) -> Checkpoint:
    path = folder / _TRANSFORMERS_CONFIG
    settings = read_json(path)
    paddle = PADDLE_WEIGHTS in held and not any(
        f"{name}{end}" in held for name in _TRANSFORMERS_FILES for end in _WHOLE
    )
    kind = settings.get("model_type", "clip" if paddle else None)
    if kind is None and set(settings) >= _TIMM_KEYS:
        raise ConfigError(
            f"{folder} holds timm's {settings['architecture']}, an image tower and no whole model. Put its weights "
            "into a model that has this tower: "
            f"clip_core.load_image_tower(clip_core.create_model(NAME), {str(folder)!r})."
        )
    if kind not in _FAMILIES:
        raise ConfigError(
            f"{path} has model_type {kind!r}; allowed: "
            f"{', '.join(f'{key!r} ({name})' for key, (_, name) in _FAMILIES.items())}."
        )
    family, name = _FAMILIES[kind]
    try:
        if paddle:
            settings = paddle_settings(settings)
        processor, where = _processor(folder, held)
        if family is transformers_siglip2:
            settings["max_num_patches"] = processor.get("max_num_patches", transformers_siglip2.MAX_PATCHES)
            size: Any = transformers_siglip2.square_side(settings, settings["max_num_patches"])
        else:
            size = transformers_clip.nested_settings(settings, "vision_config", {"image_size": 224})["image_size"]
        size = tuple(size) if isinstance(size, list) else size
        if processor:
            preprocess = from_preprocessor(processor, size, where)
        elif isinstance(asked, PreprocessConfig):
            preprocess = asked
        elif asked is not None:
            preprocess = dataclasses.replace(asked.preprocess, size=size)
        else:
            raise ConfigError(
                "it has no preprocessor_config.json, so what its images must look like is not known. Put it there; or, "
                f"if the usual preprocessing is right, write it with {writing_call(name, size, folder)}; or state it: "
                "clip_core.load(FOLDER, preprocess=clip_core.config.PreprocessConfig(...)); or name the architecture: "
                "clip_core.create(NAME, pretrained=FOLDER)."
            )
        config: ClipConfig = family.from_settings(settings, preprocess)
        config = dataclasses.replace(config, tokenizer=_tokenizer(folder, held, config, settings))
    except ConfigError as error:
        raise ConfigError(f"{folder}, a {name}: {error}") from error

    def tensors(wanted: ClipConfig) -> dict[str, Tensor]:
        if paddle:
            return placed(to_openclip(read_pdparams(folder / PADDLE_WEIGHTS)), wanted)
        theirs = read_shards(folder, held, ema)
        if family is transformers_dual:
            theirs = transformers_dual.folded(theirs)
        return placed(to_ours(family.pairs(config), theirs, folder), wanted)

    return Checkpoint(
        path=folder, layout=f"{'PaddleNLP' if paddle else 'transformers'} {name}", config=config, tensors=tensors
    )


def read_shards(folder: Path, held: set[str], ema: bool | None) -> dict[str, Tensor]:
    """The tensors of transformers' weights in `folder`, which has the files `held`: one file, or shards and their list.

    Raises:
        CheckpointMismatch: there are none, they cannot be read, or their list names files elsewhere.
    """
    for name in _TRANSFORMERS_FILES:
        if name in held:
            return read_weights(folder / name, ema=ema)
        index = f"{name}.index.json"
        if index in held:
            files = sorted(set(read_json(folder / index).get("weight_map", {}).values()))
            if any(Path(file).name != file for file in files):
                raise CheckpointMismatch(f"{folder / index} names files outside its folder; allowed: names alone.")
            return {key: value for file in files for key, value in read_weights(folder / file).items()}
    raise CheckpointMismatch(f"{folder} has no weights; allowed: {', '.join(_TRANSFORMERS_FILES)}, or shards of them.")


def _processor(folder: Path, held: set[str]) -> tuple[Mapping[str, Any], Path]:
    """What the folder's image processor is, and the file that says it; empty where none does."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        content: Mapping[str, Any] = read_json(folder / name) if name in held else {}
        content = content.get("image_processor", content)
        if content.get("image_processor_type") or content.get("feature_extractor_type") or "image_mean" in content:
            return content, folder / name
    return {}, folder


def _tokenizer(folder: Path, held: set[str], config: ClipConfig, settings: Mapping[str, Any]) -> TokenizerConfig:
    """What turns texts into ids: CLIP's own vocabulary where the folder's is the same one, else the folder's."""
    source = settings.get("_name_or_path") or folder.resolve().name
    text = config.text
    if isinstance(config.tokenizer, HfTokenizerConfig):
        return dataclasses.replace(
            config.tokenizer, source=source, pad_id=_stated_padding(folder, config.tokenizer.pad_id)
        )
    vocabulary = next((folder / name for name in ("vocab.json", "tokenizer.json") if name in held), None)
    ours = text.vocab_size == VOCAB_SIZE and (vocabulary is None or is_clip_vocabulary(vocabulary))
    if ours:
        return ClipTokenizerConfig(context_length=text.context_length)
    pad_id = _stated_padding(folder, text.vocab_size - 1)
    return HfTokenizerConfig(context_length=text.context_length, source=source, clean="none", pad_id=pad_id)


def _stated_padding(folder: Path, default: int | None = None) -> Any:
    """The id that the tokenizer in `folder` says it pads with, or else `default`."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        token = read_json(folder / name).get("pad_token") if (folder / name).is_file() else None
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            found = _token_id(folder, token)
            return default if found is None else found
    return default


def _token_id(folder: Path, token: str) -> int | None:
    if (folder / "tokenizer.json").is_file():
        content = read_json(folder / "tokenizer.json")
        for added in content.get("added_tokens", ()):
            if added.get("content") == token:
                return int(added["id"])
        vocabulary = content.get("model", {}).get("vocab", {})
        if isinstance(vocabulary, list):
            # Unigram's: pairs of a token and its score.
            return next((index for index, (held, _) in enumerate(vocabulary) if held == token), None)
        return vocabulary.get(token) if isinstance(vocabulary, dict) else None
    if (folder / "vocab.txt").is_file():
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
        return lines.index(token) if token in lines else None
    return None
