"""OpenCLIP's names, signatures, lists and words are all there and the same."""

from __future__ import annotations

import importlib
import inspect

import open_clip as peer
import pytest
import torch

import clip_hub.open_clip as ours
from clip_core.convert.openclip_config import from_openclip
from clip_core.errors import ConfigError
from clip_hub.drop_in.captions import generate_captions
from clip_hub.drop_in.imagenet import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES
from clip_hub.drop_in.losses import ClipLoss, CoCaLoss, DistillClipLoss, SigLipLoss, create_loss
from clip_hub.drop_in.tokenizers import SimpleTokenizer
from clip_hub.open_clip import _INSTEAD

pytestmark = pytest.mark.parity


def test_every_public_name_is_there_or_says_what_to_use() -> None:
    names = {name for name in vars(peer) if not name.startswith("_")}
    missing = {name for name in names if not hasattr(ours, name)}
    assert missing == set(_INSTEAD)
    with pytest.raises(AttributeError, match="'trace_model'; use torch.compile"):
        _ = ours.trace_model
    with pytest.raises(AttributeError, match="no 'nothing'$"):
        _ = ours.nothing
    assert all(hasattr(ours, name) for name in ours.__all__)


@pytest.mark.parametrize(
    "name",
    [
        "create_model",
        "create_model_and_transforms",
        "create_model_from_pretrained",
        "get_tokenizer",
        "tokenize",
        "decode",
        "list_models",
        "list_pretrained",
        "list_pretrained_models_by_tag",
        "list_pretrained_tags_by_model",
        "get_pretrained_cfg",
        "get_pretrained_url",
        "is_pretrained_cfg",
        "download_pretrained",
        "download_pretrained_from_url",
        "get_model_config",
        "add_model_config",
        "load_checkpoint",
        "load_openai_model",
        "build_zero_shot_classifier",
        "build_zero_shot_classifier_legacy",
        "image_transform",
        "get_input_dtype",
        "get_cast_dtype",
        "ClipLoss",
        "CoCaLoss",
        "DistillClipLoss",
        "ClipLoss.forward",
        "CoCaLoss.forward",
        "DistillClipLoss.forward",
        "AugmentationCfg",
        "SimpleTokenizer",
        "loss.SigLipLoss",
        "loss.SigLipLoss.forward",
        "transform.PreprocessCfg",
        "transform.image_transform_v2",
        "pretrained.download_pretrained_from_hf",
        "factory.load_state_dict",
        "CLIP.forward_intermediates",
        "CoCa.forward",
        "CLIPVisionCfg",
        "CLIPTextCfg",
        "convert_weights_to_lp",
        "convert_weights_to_fp16",
    ],
)
def test_arguments_have_open_clips_names_order_and_defaults(name: str) -> None:
    found = []
    for module in (ours, peer):
        target = module
        for part in name.split("."):
            target = getattr(target, part)
        found.append(inspect.signature(target).parameters.values())
    mine, theirs = ([(one.name, one.default) for one in parameters] for parameters in found)
    mine = [("bpe_path", peer.tokenizer.default_bpe()) if one == ("bpe_path", None) else one for one in mine]
    assert mine == theirs


@pytest.mark.parametrize("name", ["push_to_hf_hub", "push_pretrained_to_hf_hub"])
def test_publishing_takes_open_clips_arguments(name: str) -> None:
    # Of the peer there is a module of the same name as the function.
    theirs = inspect.signature(getattr(importlib.import_module("open_clip.push_to_hf_hub"), name)).parameters.values()
    mine = inspect.signature(getattr(ours, name)).parameters.values()
    assert [(one.name, one.default) for one in mine] == [(one.name, one.default) for one in theirs]


def test_generate_takes_open_clips_options() -> None:
    mine = list(inspect.signature(generate_captions).parameters.values())[3:]
    theirs = list(inspect.signature(peer.CoCa.generate).parameters.values())[2:]
    assert [(one.name, one.default) for one in mine] == [(one.name, one.default) for one in theirs]


def test_words_are_open_clips() -> None:
    assert IMAGENET_CLASSNAMES == peer.IMAGENET_CLASSNAMES
    for mine, theirs in (
        (OPENAI_IMAGENET_TEMPLATES, peer.OPENAI_IMAGENET_TEMPLATES),
        (SIMPLE_IMAGENET_TEMPLATES, peer.SIMPLE_IMAGENET_TEMPLATES),
    ):
        assert [template("red fox") for template in mine] == [template("red fox") for template in theirs]
    for name in ("OPENAI_DATASET_MEAN", "INCEPTION_STD", "HF_WEIGHTS_NAME", "HF_SAFE_WEIGHTS_NAME", "HF_CONFIG_NAME"):
        assert getattr(ours.constants, name) == getattr(peer.constants, name)
    assert ours.__version__ == peer.__version__


def test_lists_hold_what_open_clips_do_in_its_order() -> None:
    known = set(peer.list_models())
    assert [name for name in ours.list_models() if name in known] == sorted(known, key=peer.factory._natural_key)
    assert set(peer.list_pretrained()) <= set(ours.list_pretrained())
    assert set(peer.list_pretrained(as_str=True)) <= set(ours.list_pretrained(as_str=True))
    assert set(peer.list_pretrained_tags_by_model("ViT-L-14")) == set(ours.list_pretrained_tags_by_model("ViT-L-14"))
    assert set(peer.list_pretrained_models_by_tag("OpenAI")) == set(ours.list_openai_models())
    assert ours.list_pretrained_tags_by_model("no-such-model") == peer.list_pretrained_tags_by_model("no-such-model")


def test_each_set_of_weights_is_described_as_in_open_clip() -> None:
    for model, tag in peer.list_pretrained():
        mine, theirs = ours.get_pretrained_cfg(model, tag), peer.get_pretrained_cfg(model, tag)
        for key in ("mean", "std", "interpolation", "resize_mode"):
            assert mine[key] == theirs[key], (model, tag, key)
        # Some architectures have the activation themselves.
        quick_gelu = theirs.get("quick_gelu", False) or peer.get_model_config(model).get("quick_gelu", False)
        assert mine.get("quick_gelu", False) == quick_gelu, (model, tag)
        assert ours.is_pretrained_cfg(model, tag)
    assert not ours.is_pretrained_cfg("ViT-B-32", "no_such_tag")
    assert ours.get_pretrained_cfg("no-such-model", "openai") == {}
    assert ours.get_pretrained_url("ViT-B-32", "openai").startswith("https://openaipublic")


def test_configurations_say_the_same_model() -> None:
    for name in ("ViT-B-32", "RN50", "ViT-L-14-quickgelu", "coca_ViT-B-32", "ViT-B-16-SigLIP", "roberta-ViT-B-32"):
        mine, theirs = ours.get_model_config(name), peer.get_model_config(name)
        assert mine is not None
        theirs["text_cfg"].pop("hf_tokenizer_name", None)  # some leave its owner out
        mine["text_cfg"].pop("hf_tokenizer_name", None)
        assert from_openclip(mine) == from_openclip(theirs), name
    assert ours.get_model_config("no-such-model") is None


def test_the_vocabulary_is_spelled_as_open_clips() -> None:
    mine, theirs = SimpleTokenizer(), peer.SimpleTokenizer()
    assert mine.encoder == theirs.encoder
    assert mine.decoder == theirs.decoder


class Arguments:
    local_loss = gather_with_grad = horovod = distill = siglip = False
    rank, world_size, model, loss_dist_impl = 0, 1, "ViT-B-32", None
    coca_caption_loss_weight, coca_contrastive_loss_weight = 2.0, 1.0


def test_losses_and_their_gradients_are_open_clips() -> None:
    torch.manual_seed(0)
    pairs = [torch.nn.functional.normalize(torch.randn(7, 12, dtype=torch.float64), dim=-1) for _ in range(4)]
    scale, bias = torch.tensor(13.0, dtype=torch.float64), torch.tensor(-4.0, dtype=torch.float64)
    logits, labels = torch.randn(7, 5, 11, dtype=torch.float64), torch.randint(0, 11, (7, 5))
    for changes, kind, rest in (
        ({}, ClipLoss, (scale,)),
        ({"siglip": True}, SigLipLoss, (scale, bias)),
        ({"distill": True}, DistillClipLoss, (scale, pairs[2], pairs[3], scale / 2)),
        ({"model": "coca_ViT-B-32"}, CoCaLoss, (logits, labels, scale)),
    ):
        given = type("Given", (Arguments,), changes)
        results = []
        for module in (create_loss, peer.create_loss):
            inputs = [value.clone().requires_grad_() for value in pairs[:2]]
            loss = module(given)
            results.append([loss(*inputs, *rest, output_dict=True), inputs])
            sum(results[-1][0].values()).backward()
        assert isinstance(create_loss(given), kind)
        torch.testing.assert_close(results[0][0], results[1][0], atol=1e-9, rtol=1e-9)
        for mine, theirs in zip(results[0][1], results[1][1], strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-9, rtol=1e-9)


def test_losses_over_several_processes_are_named_where_they_are() -> None:
    for make in (ClipLoss, SigLipLoss):
        with pytest.raises(ConfigError, match=r"world_size=2; allowed: 1.*clip_train\.loss"):
            make(rank=1, world_size=2)
    with pytest.raises(ConfigError, match="use_horovod=True; allowed: False"):
        ClipLoss(use_horovod=True)


@pytest.mark.parametrize("precision", ["fp32", "amp", "fp16", "bf16", "pure_fp16", "pure_bf16"])
def test_dtypes_of_a_precision(precision: str) -> None:
    assert ours.get_input_dtype(precision) == peer.get_input_dtype(precision)
    assert ours.get_cast_dtype(precision) == peer.get_cast_dtype(precision)
