"""What each architecture of clip-core is compared with, at full size without memory or small with random weights.

Names that open_clip 3.3.0 has are compared with its model. A name that is younger is compared half by half: its image
tower with timm's module, its text tower with open_clip's of another name that has the same one, or with transformers'.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import open_clip
import timm
import torch
import transformers
from open_clip import coca_model, hf_model, timm_model
from torch import Tensor, nn

import clip_core
from clip_core.building import lay_out
from clip_core.config import ClipConfig, HfTextConfig, ModernTextConfig, ResNetConfig, TextConfig, VitConfig

__all__ = ["Half", "Peer", "make_peer", "same_layout", "small"]

SMALL_VOCABULARY = 1000

# Younger than open_clip 3.3.0, and the name there that has the same text tower, or image tower.
SAME_TEXT = {
    "ViT-B-16-SigLIP2-naflex": "ViT-B-16-SigLIP2-256",
    "ViT-SO400M-16-SigLIP2-naflex": "ViT-SO400M-16-SigLIP2-256",
    "naflex_ViT-B-16": "ViT-B-32",
    "naflex_ViT-B-32": "ViT-B-32",
}
SAME_IMAGE = {"gte-modernbert-base-ViT-B-32-256": "ViT-B-32-256", "moderntext-ViT-B-32-256": "ViT-B-32-256"}

# How timm's models are made shallow, by the beginning of their names; the first that fits.
_SHALLOW: list[tuple[str, dict[str, Any]]] = [
    ("convnext", {"depths": (1, 1, 2, 1)}),
    ("fastvit_mci3", {"layers": (1, 1, 1, 1, 1)}),
    ("fastvit_mci4", {"layers": (1, 1, 1, 1, 1)}),
    ("fastvit", {"layers": (1, 1, 1, 1)}),
    ("swin", {"depths": (1, 2, 1, 1)}),
    ("", {"depth": 2}),
]

_HF_DEPTH = {"mt5": "num_layers", "m2m_100": "encoder_layers"}
_HF_WIDTH = {"mt5": "d_model", "m2m_100": "d_model"}


@dataclasses.dataclass(frozen=True, slots=True)
class Half:
    """One side of a younger name: `module` maps the tower's input to what the tower gives before `head`."""

    module: nn.Module
    prefix: str
    """Of the module's keys in the state dict of the model."""
    source: str
    """Whose code it is, in words."""


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """What a model is compared with: a whole one, or halves; `missing` says what no released library has."""

    whole: nn.Module | None = None
    halves: tuple[Half, ...] = ()
    missing: str = ""


def make_peer(name: str, config: ClipConfig, *, meta: bool) -> Peer:
    """The peer of `name`, as deep and with as large a vocabulary as `config` says; `meta` without memory."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_offline(config))
        if meta:
            stack.enter_context(torch.device("meta"))
        if name in open_clip.list_models():
            return Peer(whole=_open_clip_model(name, config))
        halves, missing = [], []
        for make, side in ((_image_half, "image tower"), (_text_half, "text tower")):
            half = make(name, config)
            if half is None:
                missing.append(f"{side} is in no released library")
            else:
                halves.append(half)
        return Peer(halves=tuple(halves), missing="; ".join(missing))


def same_layout(ours: nn.Module, peer: Peer) -> list[str]:
    """The keys that differ in being there or in shape; empty where none does."""
    mine = {key: tuple(value.shape) for key, value in ours.state_dict().items()}
    if peer.whole is not None:
        theirs = {key: tuple(value.shape) for key, value in peer.whole.state_dict().items()}
        return sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    wrong = []
    for half in peer.halves:
        theirs = {half.prefix + key: tuple(value.shape) for key, value in half.module.state_dict().items()}
        # The head around timm's or transformers' module is ours, and the flat text tower shares its level.
        there = set(theirs) | {key for key in mine if half.prefix and key.startswith(half.prefix)}
        wrong += [key for key in there if mine.get(key) != theirs.get(key)]
    return sorted(wrong)


def small(config: ClipConfig) -> ClipConfig:
    """`config` with two layers in each tower and few ids; widths and everything else as they are."""
    image, text, decoder = config.image, config.text, config.decoder
    if isinstance(image, VitConfig):
        image = dataclasses.replace(image, layers=2)
    elif isinstance(image, ResNetConfig):
        image = dataclasses.replace(image, layers=(1, 1, 1, 1))
    else:
        options = {**dict(image.options), **_shallow(image.name)}
        image = dataclasses.replace(image, options=tuple(sorted(options.items())))
    if isinstance(text, TextConfig | ModernTextConfig):
        text = dataclasses.replace(text, layers=2)
        if text.eos_id is not None:
            text = dataclasses.replace(text, eos_id=min(text.eos_id, SMALL_VOCABULARY - 1))
    else:
        settings = {**dict(text.settings), _HF_DEPTH.get(text.model_type, "num_hidden_layers"): 2}
        text = dataclasses.replace(text, settings=tuple(settings.items()))
    text = dataclasses.replace(text, vocab_size=SMALL_VOCABULARY, pad_id=text.pad_id if text.pad_id < 5 else 1)
    if decoder is not None:
        # Nothing is generated, so its ids may be any.
        decoder = dataclasses.replace(decoder, layers=2, vocab_size=SMALL_VOCABULARY, start_id=3, end_id=4)
    return dataclasses.replace(config, image=image, text=text, decoder=decoder)


def _shallow(name: str) -> dict[str, Any]:
    return next(options for start, options in _SHALLOW if name.startswith(start))


@contextlib.contextmanager
def _offline(config: ClipConfig) -> Iterator[None]:
    """open_clip takes encoders of transformers from `config` instead of the Hub, and timm's with its options."""
    with contextlib.ExitStack() as stack:
        if isinstance(config.text, HfTextConfig):
            settings = _transformers_config(config.text)
            stack.enter_context(mock.patch.object(hf_model.AutoConfig, "from_pretrained", return_value=settings))
        if config.image.kind == "timm" and config.image.options:
            create = functools.partial(timm.create_model, **dict(config.image.options))
            stack.enter_context(mock.patch.object(timm_model.timm, "create_model", create))
        yield


def _transformers_config(text: HfTextConfig) -> Any:
    make: Callable[..., Any] = {
        "roberta": transformers.RobertaConfig,
        "xlm-roberta": transformers.XLMRobertaConfig,
        "mt5": transformers.MT5Config,
        "m2m_100": transformers.M2M100Config,
        "modernbert": transformers.ModernBertConfig,
    }[text.model_type]
    width = {_HF_WIDTH.get(text.model_type, "hidden_size"): text.width}
    extra = {"decoder_layers": 1} if text.model_type == "m2m_100" else {}  # of the half that is thrown away
    return make(**dict(text.settings), **width, **extra, vocab_size=text.vocab_size, pad_token_id=text.pad_id)


def _open_clip_model(name: str, config: ClipConfig) -> nn.Module:
    settings = open_clip.get_model_config(name)
    vision, text = settings["vision_cfg"], settings["text_cfg"]
    if isinstance(config.image, VitConfig | ResNetConfig):
        vision["layers"] = config.image.layers
    if isinstance(config.text, TextConfig):
        _cut(text, config.text)
    else:
        text["hf_model_pretrained"] = False
    if config.decoder is not None:
        settings["multimodal_cfg"]["layers"] = config.decoder.layers
        if config.decoder.vocab_size == SMALL_VOCABULARY:
            text["vocab_size"] = SMALL_VOCABULARY  # which open_clip takes for the decoder's
    custom = settings.pop("custom_text", False)
    if config.decoder is not None:
        return coca_model.CoCa(**settings)
    if custom or "hf_model_name" in text:
        return open_clip.model.CustomTextCLIP(**settings)
    return open_clip.model.CLIP(**settings)


def _cut(settings: dict[str, Any], text: TextConfig) -> None:
    """Set in open_clip's settings what `small` changes, and nothing else."""
    settings["layers"] = text.layers
    if text.vocab_size == SMALL_VOCABULARY:
        settings["vocab_size"] = SMALL_VOCABULARY
        if text.eos_id is not None:
            settings["eos_id"] = text.eos_id


def _image_half(name: str, config: ClipConfig) -> Half | None:
    if name in SAME_IMAGE:
        other = SAME_IMAGE[name]
        twin = dataclasses.replace(clip_core.get_config(other), image=config.image)
        if isinstance(twin.text, TextConfig):
            twin = dataclasses.replace(twin, text=dataclasses.replace(twin.text, layers=1, vocab_size=SMALL_VOCABULARY))
        return Half(_open_clip_model(other, twin).visual, "visual.", f"open_clip's of {other}")
    image = config.image
    options = {"num_classes": 0, "global_pool": image.pool, **dict(image.options)}
    return Half(timm.create_model(image.name, **options), "visual.trunk.", f"timm's {image.name}")


def _text_half(name: str, config: ClipConfig) -> Half | None:
    if name in SAME_TEXT:
        other = SAME_TEXT[name]
        settings = open_clip.get_model_config(other)
        _cut(settings["text_cfg"], config.text)
        tower = open_clip.model._build_text_tower(settings["embed_dim"], settings["text_cfg"])
        return Half(tower, "" if config.layout == "flat" else "text.", f"open_clip's of {other}")
    if isinstance(config.text, HfTextConfig):
        encoder = transformers.AutoModel.from_config(_transformers_config(config.text))
        return Half(encoder, "text.transformer.", f"transformers' {config.text.model_type}")
    return None


def random_weights(module: nn.Module) -> None:
    """Noise on what the module was made with, so that no gain is one, no bias zero and no residual branch faint."""
    # Drawn once and repeated: no width divides a prime, so rows differ all the same.
    noise = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif value.is_floating_point() and key not in ("logit_scale", "logit_bias"):
                drawn = noise.repeat(-(-value.numel() // len(noise)))[: value.numel()].view(value.shape)
                value.add_(drawn, alpha=0.02 if value.ndim > 1 else 0.1)


def lay_out_with(config: ClipConfig, tensors: dict[str, Tensor]) -> clip_core.Clip:
    """Our model holding `tensors` themselves, so that both sides need their memory once."""
    model = lay_out(config)
    model.load_state_dict(tensors, assign=True)
    return model.eval()
