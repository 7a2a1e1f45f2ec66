"""Names with a ResNet or a tower of timm: keys and shapes against open_clip 3.3.0, and the sizes that it publishes.

Covers clip_core.presets.resnet, convnext, eva, vitamin, mobileclip, pe, siglip, naflex and timm_vit.
"""

from __future__ import annotations

import open_clip
import pytest
import torch
from open_clip.factory import get_model_config
from torch import nn

import clip_core
from clip_core.config import ResNetConfig, TimmConfig
from clip_core.presets import convnext, eva, mobileclip, naflex, pe, resnet, siglip, timm_vit, vitamin

pytestmark = pytest.mark.parity

FAMILIES = (resnet, convnext, eva, vitamin, mobileclip, pe, siglip, naflex, timm_vit)
NAMES = [name for family in FAMILIES for name in family.PRESETS]
PUBLISHED = [name for name in NAMES if name in open_clip.list_models()]

# Of open_clip's docs/model_profile.csv: millions of parameters of the model and of its image tower.
MILLIONS = {
    "RN50": (102.01, 38.32),
    "RN101": (119.69, 56.26),
    "RN50x4": (178.3, 87.14),
    "RN50x16": (290.98, 167.33),
    "RN50x64": (623.26, 420.38),
    "convnext_tiny": (92.3, 28.61),
    "convnext_small": (113.28, 49.85),
    "convnext_base": (151.52, 88.09),
    "convnext_base_w": (179.39, 88.22),
    "convnext_base_w_320": (179.39, 88.22),
    "convnext_large": (321.06, 197.41),
    "convnext_large_d": (351.77, 199.77),
    "convnext_large_d_320": (351.77, 199.77),
    "convnext_xlarge": (653.89, 350.25),
    "convnext_xxlarge": (1200.58, 846.54),
    "convnext_xxlarge_320": (1200.58, 846.54),
    "EVA01-g-14": (1136.44, 1012.59),
    "EVA01-g-14-plus": (1366.62, 1012.59),
    "EVA02-B-16": (149.69, 86.26),
    "EVA02-L-14": (427.76, 304.11),
    "EVA02-L-14-336": (428.08, 304.43),
    "EVA02-E-14": (4704.59, 4350.56),
    "EVA02-E-14-plus": (5044.89, 4350.56),
    "ViT-B-16-SigLIP": (203.16, 92.88),
    "ViT-B-16-SigLIP-256": (203.2, 92.93),
    "ViT-B-16-SigLIP-384": (203.45, 93.18),
    "ViT-B-16-SigLIP-512": (203.79, 93.52),
    "ViT-B-16-SigLIP-i18n-256": (370.63, 92.93),
    "ViT-L-16-SigLIP-256": (652.15, 315.96),
    "ViT-L-16-SigLIP-384": (652.48, 316.28),
    "ViT-SO400M-14-SigLIP": (877.36, 427.68),
    "ViT-SO400M-14-SigLIP-384": (877.96, 428.23),
    "swin_base_patch4_window7_224": (178.56, 87.4),
    "vit_medium_patch16_gap_256": (102.04, 38.61),
    "vit_relpos_medium_patch16_cls_224": (101.94, 38.51),
}
# Small ones of every family, which every run looks at.
SMALL = [
    "RN50",
    "convnext_tiny",
    "convnext_large_d",
    "EVA01-g-14",
    "EVA02-B-16",
    "ViTamin-S",
    "MobileCLIP-S1",
    "MobileCLIP-B",
    "MobileCLIP2-S3",
    "PE-Core-T-16-384",
    "ViT-B-16-SigLIP",
    "ViT-SO400M-14-SigLIP",
    "ViT-SO400M-16-SigLIP-i18n-256",
    "ViT-B-32-SigLIP2-256",
    "swin_base_patch4_window7_224",
    "vit_medium_patch16_gap_256",
    "vit_relpos_medium_patch16_cls_224",
]


def marked(names: list[str]) -> list[object]:
    return [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in names]


def peer_on_meta(name: str) -> nn.Module:
    settings = dict(get_model_config(name))
    kind = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    with torch.device("meta"):
        model: nn.Module = kind(**settings)
    return model


@pytest.mark.parametrize("name", marked(PUBLISHED))
def test_keys_shapes_and_dtypes_are_the_peers(name: str) -> None:
    ours, peer = clip_core.create_model(name, device="meta"), peer_on_meta(name)
    describe = {key: (value.shape, value.dtype) for key, value in peer.state_dict().items()}
    assert {key: (value.shape, value.dtype) for key, value in ours.state_dict().items()} == describe
    assert ours.context_length == peer.context_length
    assert ours.visual.image_size == tuple(torch.broadcast_to(torch.tensor(peer.visual.image_size), (2,)).tolist())
    settings = get_model_config(name)
    assert ours.config.logit_bias == settings.get("init_logit_bias")
    assert isinstance(ours.config.image, (ResNetConfig, TimmConfig))
    drop_path = settings["vision_cfg"].get("timm_drop_path")
    assert getattr(ours.config.image, "drop_path", drop_path) == drop_path
    assert getattr(ours.config.tokenizer, "source", None) == settings["text_cfg"].get("hf_tokenizer_name")


@pytest.mark.parametrize("name", marked(sorted(MILLIONS)))
def test_the_number_of_parameters_is_the_published_one(name: str) -> None:
    model = clip_core.create_model(name, device="meta")
    total, image = MILLIONS[name]
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(total, abs=0.006)
    assert sum(parameter.numel() for parameter in model.visual.parameters()) / 1e6 == pytest.approx(image, abs=0.006)


@pytest.mark.parametrize("name", PUBLISHED)
def test_preprocessing_is_that_of_the_published_weights(name: str) -> None:
    ours = clip_core.get_config(name).preprocess
    for tag in open_clip.list_pretrained_tags_by_model(name):
        theirs = open_clip.get_pretrained_cfg(name, tag)
        for field in ("mean", "std", "interpolation", "resize_mode"):
            if theirs.get(field) is not None:
                expected = theirs[field]
                assert getattr(ours, field) == (tuple(expected) if isinstance(expected, (list, tuple)) else expected)


@pytest.mark.parametrize("name", ["RN50", "EVA02-B-16", "ViT-B-16-SigLIP2-naflex"])
def test_a_configuration_goes_to_json_and_back(name: str) -> None:
    config = clip_core.get_config(name)
    assert clip_core.ClipConfig.from_json(config.to_json()) == config
    assert type(clip_core.ClipConfig.from_json(config.to_json()).image) is type(config.image)


def test_quickgelu_names_change_the_text_tower_of_a_resnet() -> None:
    for name in resnet.PUBLISHED_WITH_QUICK_GELU:
        assert clip_core.get_config(f"{name}-quickgelu").text.activation == "quick_gelu"
        assert f"{name}-quickgelu" in clip_core.list_models()
        assert open_clip.get_pretrained_cfg(name, "openai")["quick_gelu"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "RN50",
        "RN50-quickgelu",
        "convnext_tiny",
        "EVA02-B-16",
        "ViTamin-S",
        "MobileCLIP-S1",
        "MobileCLIP-B",
        "MobileCLIP2-S0",
        "PE-Core-T-16-384",
        "ViT-B-16-SigLIP",
        "ViT-B-32-SigLIP2-256",
        "swin_base_patch4_window7_224",
        "vit_medium_patch16_gap_256",
        "vit_relpos_medium_patch16_cls_224",
    ],
)
def test_features_and_gradients_of_whole_models_are_the_peers(name: str) -> None:
    torch.manual_seed(0)
    peer = open_clip.create_model(name).eval()
    ours = clip_core.building.lay_out(clip_core.get_config(name)).eval()
    clip_core.weights.load_weights(ours, {k: v.clone() for k, v in peer.state_dict().items()}, "open_clip")
    images = torch.randn(2, 3, *ours.visual.image_size)
    tokens = torch.randint(2, ours.vocab_size, (2, ours.context_length))
    for model in (peer, ours):
        image, text = model.encode_image(images, normalize=True), model.encode_text(tokens, normalize=True)
        (image @ text.T).square().sum().backward()
        if model is peer:
            expected = image, text
    torch.testing.assert_close(image, expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(text, expected[1], atol=1e-5, rtol=0)
    theirs = dict(peer.named_parameters())
    for key, parameter in ours.named_parameters():
        if theirs[key].grad is not None:
            scale = theirs[key].grad.abs().max().item()
            torch.testing.assert_close(parameter.grad, theirs[key].grad, atol=1e-4 * scale + 1e-7, rtol=0, msg=key)
