"""OpenCLIP 3.3.0's names: `import clip_hub.open_clip as open_clip`, or this module in `sys.modules["open_clip"]`.

Models are clip-core's, weights come through clip-hub's verified download, and an argument that is not honoured is
refused. The files of this package only carry OpenCLIP's names; what they do is in `clip_hub.drop_in`.
"""

from __future__ import annotations

from typing import NoReturn

from clip_hub.open_clip.coca_model import CoCa
from clip_hub.open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from clip_hub.open_clip.factory import (
    add_model_config,
    create_loss,
    create_model,
    create_model_and_transforms,
    create_model_from_pretrained,
    get_model_config,
    get_tokenizer,
    list_models,
    load_checkpoint,
)
from clip_hub.open_clip.loss import ClipLoss, CoCaLoss, DistillClipLoss
from clip_hub.open_clip.model import (
    CLIP,
    CLIPTextCfg,
    CLIPVisionCfg,
    CustomTextCLIP,
    convert_weights_to_fp16,
    convert_weights_to_lp,
    get_cast_dtype,
    get_input_dtype,
    get_model_preprocess_cfg,
    get_model_tokenize_cfg,
    set_model_preprocess_cfg,
)
from clip_hub.open_clip.openai import list_openai_models, load_openai_model
from clip_hub.open_clip.pretrained import (
    download_pretrained,
    download_pretrained_from_url,
    get_pretrained_cfg,
    get_pretrained_url,
    is_pretrained_cfg,
    list_pretrained,
    list_pretrained_models_by_tag,
    list_pretrained_tags_by_model,
)
from clip_hub.open_clip.push_to_hf_hub import push_pretrained_to_hf_hub, push_to_hf_hub
from clip_hub.open_clip.tokenizer import HFTokenizer, SimpleTokenizer, decode, tokenize
from clip_hub.open_clip.transform import AugmentationCfg, image_transform
from clip_hub.open_clip.version import __version__
from clip_hub.open_clip.zero_shot_classifier import build_zero_shot_classifier, build_zero_shot_classifier_legacy
from clip_hub.open_clip.zero_shot_metadata import (
    IMAGENET_CLASSNAMES,
    OPENAI_IMAGENET_TEMPLATES,
    SIMPLE_IMAGENET_TEMPLATES,
)

__all__ = [
    "CLIP",
    "IMAGENET_CLASSNAMES",
    "OPENAI_DATASET_MEAN",
    "OPENAI_DATASET_STD",
    "OPENAI_IMAGENET_TEMPLATES",
    "SIMPLE_IMAGENET_TEMPLATES",
    "AugmentationCfg",
    "CLIPTextCfg",
    "CLIPVisionCfg",
    "ClipLoss",
    "CoCa",
    "CoCaLoss",
    "CustomTextCLIP",
    "DistillClipLoss",
    "HFTokenizer",
    "SimpleTokenizer",
    "__version__",
    "add_model_config",
    "build_zero_shot_classifier",
    "build_zero_shot_classifier_legacy",
    "convert_weights_to_fp16",
    "convert_weights_to_lp",
    "create_loss",
    "create_model",
    "create_model_and_transforms",
    "create_model_from_pretrained",
    "decode",
    "download_pretrained",
    "download_pretrained_from_url",
    "get_cast_dtype",
    "get_input_dtype",
    "get_model_config",
    "get_model_preprocess_cfg",
    "get_model_tokenize_cfg",
    "get_pretrained_cfg",
    "get_pretrained_url",
    "get_tokenizer",
    "image_transform",
    "is_pretrained_cfg",
    "list_models",
    "list_openai_models",
    "list_pretrained",
    "list_pretrained_models_by_tag",
    "list_pretrained_tags_by_model",
    "load_checkpoint",
    "load_openai_model",
    "push_pretrained_to_hf_hub",
    "push_to_hf_hub",
    "set_model_preprocess_cfg",
    "tokenize",
]

_INSTEAD = {
    "convert": "clip_core.load, which reads big_vision's and others' weights",
    "hf_configs": "clip_core.config.HfTextConfig",
    "hf_model": "clip_core.config.HfTextConfig",
    "modified_resnet": "clip_core.config.ResNetConfig",
    "pos_embed": "create_model(..., force_image_size=...), which interpolates positions",
    "timm_model": "clip_core.config.TimmConfig",
    "trace_model": "torch.compile(model), or clip_core.export_onnx",
    "transformer": "clip_core.config.VitConfig and TextConfig",
    "utils": "torch itself",
}
"""What of OpenCLIP's is not here, and what serves instead."""


def __getattr__(name: str) -> NoReturn:
    instead = f"; use {_INSTEAD[name]}" if name in _INSTEAD else ""
    raise AttributeError(f"clip_hub.open_clip has no {name!r}{instead}")
