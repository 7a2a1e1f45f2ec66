"""Models on disk: the bundle, a folder with `clip_config.json` and `model.safetensors`, and the layouts of others.

`clip_config.json` holds a `ClipConfig` and the number of its schema; the weights must fit it exactly. It may name
another file of weights, where transformers' `model.safetensors` lies in the same folder. The files of a tokenizer other
than CLIP's own lie beside them, byte for byte as they were read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clip_core.building import Precision, build
from clip_core.bundle import Bundle
from clip_core.config import ClipConfig, PreprocessConfig
from clip_core.convert.checkpoint import Checkpoint, placed
from clip_core.convert.reading import fitting_names, is_of_folder, open_file, open_folder
from clip_core.convert.writing import Layout, to_layout
from clip_core.errors import ConfigError
from clip_core.folders import write_folder
from clip_core.tokenizer import TOKENIZER_FILES, tokenizer_files
from clip_core.weights import read_weights

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "config_text",
    "export",
    "folder_of",
    "load",
    "open_checkpoint",
    "read_config",
    "save",
    "weights_of",
]

CONFIG_FILE = "clip_config.json"
WEIGHTS_FILE = "model.safetensors"
SCHEMA = 1
_WEIGHTS_NAME = re.compile(r"\w[\w.-]*\.safetensors")


def save(bundle: Bundle, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write `bundle` as a folder that `load` reads anywhere; the folder appears whole or not at all.

    Args:
        bundle: what to write; parameters keep their dtype.
        folder: where; its parents are made.
        overwrite: replace a bundle that is already there. A folder that holds anything else is never replaced.

    Raises:
        ConfigError: the folder exists and is neither empty nor a bundle that may be replaced, or the model is on the
            meta device and has no values, or the files of the tokenizer are gone.
        StorageError: it cannot be written there, or the disk is full.
    """
    from safetensors.torch import save_file

    tensors = _values(bundle)
    vocabulary = tokenizer_files(bundle.tokenizer)

    def write(scratch: Path) -> None:
        (scratch / CONFIG_FILE).write_text(config_text(bundle.config), encoding="utf-8")
        save_file(tensors, scratch / WEIGHTS_FILE, metadata={"format": "pt"})
        for path in vocabulary:
            shutil.copyfile(path, scratch / path.name)

    return write_folder(
        folder,
        write,
        what="bundle",
        mark=CONFIG_FILE,
        files={CONFIG_FILE, WEIGHTS_FILE, *TOKENIZER_FILES},
        size=sum(value.nbytes for value in tensors.values()),
        overwrite=overwrite,
    )


def export(
    bundle: Bundle, folder: str | os.PathLike[str], layout: Layout = "open_clip", *, overwrite: bool = False
) -> Path:
    """Write `bundle` as a folder that another library loads; the folder appears whole or not at all.

    Args:
        bundle: what to write; parameters keep their dtype.
        folder: where; its parents are made.
        layout: "open_clip" for `open_clip.create_model_and_transforms("local-dir:FOLDER")`, "transformers" for
            `CLIPModel` or `SiglipModel.from_pretrained(FOLDER)` with its processor, "timm" for the image tower alone,
            `timm.create_model("local-dir:FOLDER", pretrained=True)` (1.0.26 or later). `load` reads the first two back.
        overwrite: replace an export in the same layout. A folder that holds anything else is never replaced.

    Raises:
        ConfigError: unknown layout; the layout cannot express this model, the message says which part of it; or the
            folder exists and may not be replaced.
        StorageError: it cannot be written there, or the disk is full.
    """
    from safetensors.torch import save_file

    exported = to_layout(layout, bundle.config, _values(bundle))
    vocabulary = tokenizer_files(bundle.tokenizer) if exported.has_tokenizer else ()

    def write(scratch: Path) -> None:
        for name, text in exported.texts.items():
            (scratch / name).write_text(text, encoding="utf-8")
        save_file(exported.tensors, scratch / exported.weights, metadata={"format": "pt"})
        for path in vocabulary:
            shutil.copyfile(path, scratch / path.name)

    return write_folder(
        folder,
        write,
        what=f"{layout} export",
        mark=exported.mark,
        files={*exported.texts, exported.weights, *TOKENIZER_FILES},
        size=sum(value.nbytes for value in exported.tensors.values()),
        overwrite=overwrite,
    )


def _values(bundle: Bundle) -> dict[str, Tensor]:
    if bundle.model.logit_scale.is_meta:
        raise ConfigError("A model on the meta device has no weights to save; create it on another device.")
    values = {key: value.detach() for key, value in bundle.model.state_dict().items()}
    strange = next((key for key, value in values.items() if type(value) is not Tensor), None)
    if strange is not None:
        raise ConfigError(
            f"This model has quantized weights ({strange}); save the model that it was made from instead."
        )
    return {key: value.contiguous() for key, value in values.items()}


def load(
    path: str | os.PathLike[str],
    *,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    ema: bool | None = None,
    preprocess: PreprocessConfig | None = None,
) -> Bundle:
    """The bundle in `path`, with no network and no code of the file run; everything about it is taken from there.

    Args:
        path: a folder: a bundle, one in OpenCLIP's layout, or one of transformers (`CLIPModel`, `SiglipModel`,
            `ChineseCLIPModel`, `VisionTextDualEncoderModel`); or the file of weights in one, which is read with what
            lies beside it; or OpenAI's weights in a file. Other files of weights do not say which model they are:
            `create(name, pretrained=path)`.
        precision: dtype of the parameters: "fp32", "bf16" or "fp16".
        device: "meta" builds the layout without memory, and reads and checks no weights.
        ema: for a file that holds weights and their moving average: True takes the average, False the others.
        preprocess: what images must look like, for a folder of transformers that does not state it (it has no
            `preprocessor_config.json`).

    Raises:
        ConfigError: the path is missing or is none of these, or its configuration is not valid, or it states another
            preprocessing than `preprocess`.
        CheckpointMismatch: its weights are missing, damaged or do not fit its configuration.
    """
    if not os.fspath(path):
        raise ConfigError("The path is empty; allowed: a folder, or a file of OpenAI's weights.")
    path = Path(path)
    held = open_checkpoint(path, preprocess, ema=ema)
    if held.config is None:
        names = fitting_names(path, ema=ema)
        raise ConfigError(
            f"{path} holds {held.layout}, which do not say their model, activation and preprocessing. Name it: "
            f"clip_core.create(NAME, pretrained={str(path)!r})"
            + (f"; by their sizes they could be of {', '.join(names)}." if names else ".")
        )
    if preprocess is not None and preprocess != held.config.preprocess:
        raise ConfigError(
            f"{path} ({held.layout}) states its preprocessing, {held.config.preprocess}, which is not {preprocess}; "
            "leave preprocess out."
        )
    model = build(held.config, held, precision=precision, device=device)
    return Bundle.of(model, folder_of(path))


def open_checkpoint(
    path: str | os.PathLike[str], asked: ClipConfig | PreprocessConfig | None = None, *, ema: bool | None = None
) -> Checkpoint:
    """The checkpoint in `path`, a bundle or what `convert` reads; no weights are read yet but to tell a file's layout.

    Raises as `load`. `asked`, a model or its preprocessing, is for a folder that does not state its preprocessing.
    """
    path = Path(path)
    file = path.name if path.is_file() else None
    if file is not None:
        home = folder_of(path)
        if home is None:
            return open_file(path, ema=ema)
        path = home
    bundle = not path.is_dir() or (path / CONFIG_FILE).exists() or not any(path.glob("*.json"))
    weights = weights_of(path) if bundle else None
    if weights is not None and file in (None, weights.name):
        return Checkpoint(
            path=weights,
            layout="bundle",
            config=read_config(path),
            tensors=lambda wanted: placed(read_weights(weights, ema=ema), wanted),
        )
    return open_folder(path, asked, ema=ema, file=file)


def folder_of(path: str | os.PathLike[str]) -> Path | None:
    """The folder whose configuration and vocabulary belong to `path`: itself, or the one around a file of weights.

    That one must state a model and have its weights under this name. None for a file by itself.
    """
    path = Path(path)
    if path.is_dir():
        return path
    if not path.is_file():
        return None
    stated = path.suffix == ".safetensors" and (path.parent / CONFIG_FILE).exists()
    bundled = stated and weights_of(path.parent).name == path.name
    return path.parent if bundled or is_of_folder(path) else None


def config_text(config: ClipConfig, weights: str = WEIGHTS_FILE) -> str:
    """The content of `clip_config.json` for a bundle whose tensors are in the file called `weights` beside it."""
    named = {} if weights == WEIGHTS_FILE else {"weights": weights}
    return json.dumps({"schema": SCHEMA, **named, "model": config.to_json()}, indent=2, allow_nan=False) + "\n"


def weights_of(folder: str | os.PathLike[str]) -> Path:
    """The file with the weights of the bundle in `folder`, there or not; raises as `read_config`."""
    return Path(folder) / str(_read_content(folder).get("weights", WEIGHTS_FILE))


def read_config(folder: str | os.PathLike[str]) -> ClipConfig:
    """The configuration of the bundle in `folder`; raises `ConfigError` naming the file and what is wrong."""
    content = _read_content(folder)
    try:
        return ClipConfig.from_json(content["model"])
    except ConfigError as error:
        raise ConfigError(f"{Path(folder) / CONFIG_FILE}: {error}") from error


def _read_content(folder: str | os.PathLike[str]) -> dict[str, Any]:
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        what = "there is no such folder" if not path.parent.exists() else f"it has no {CONFIG_FILE}"
        advice = "A bundle is a folder that clip_core.save wrote."
        if ":" in str(folder):
            advice += " Published names such as ViT-B-32:openai need clip-hub: clip_hub.load."
        raise ConfigError(f"{folder} is not a bundle: {what}. {advice}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("model"), dict):
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise ConfigError(
            f"{path} has schema {found!r}; this clip-core reads schema {SCHEMA} with a key 'model'. "
            "A newer bundle needs a newer clip-core."
        )
    strange = sorted(set(content) - {"schema", "model", "weights"})
    if strange:
        raise ConfigError(f"{path} has the unknown key {strange[0]!r}; allowed: schema, model, weights.")
    weights = content.get("weights", WEIGHTS_FILE)
    # A name of the same folder: a bundle never reads a file that lies elsewhere.
    if not isinstance(weights, str) or not _WEIGHTS_NAME.fullmatch(weights):
        raise ConfigError(f"{path} has weights {weights!r}; allowed: the name of a .safetensors file beside it.")
    return content
