"""The rows in clip_hub.tags: complete, consistent with open_clip's registry, found by the names people use."""

from __future__ import annotations

import open_clip
import pytest

import clip_core
import clip_hub
from clip_core.errors import CheckpointMismatch, UnknownModel
from clip_hub.registry import all_tags

pytestmark = pytest.mark.parity


def test_pairs_are_those_of_open_clip_for_vit_b_32() -> None:
    ours = clip_hub.list_pretrained()
    assert len(ours) == len(set(ours))
    theirs = {pair for pair in open_clip.list_pretrained() if pair[0] in {model for model, _ in ours}}
    assert set(ours) >= theirs
    # The plain name takes every tag here, whatever its activation.
    assert {("ViT-B-32", "openai"), ("ViT-B-32-quickgelu", "openai"), ("ViT-B-32", "laion2b_s34b_b79k")} <= set(ours)
    assert ("ViT-B-32-quickgelu", "laion2b_s34b_b79k") not in ours


@pytest.mark.parametrize("tag", all_tags(), ids=lambda tag: f"{tag.model}:{tag.tag}")
def test_each_row_agrees_with_open_clip_where_that_has_it(tag: clip_hub.Tag) -> None:
    theirs = open_clip.get_pretrained_cfg(tag.names[-1], tag.tag)
    assert theirs["hf_hub"].strip("/") == tag.repo
    assert (tag.activation == "quick_gelu") == bool(theirs.get("quick_gelu"))
    assert (tag.mean, tag.std) == (tuple(theirs["mean"]), tuple(theirs["std"]))
    assert (tag.interpolation, tag.resize_mode) == (theirs["interpolation"], theirs["resize_mode"])
    assert tag.tag == tag.tag.lower()
    assert "/" in tag.repo
    for score in (tag.imagenet, tag.average_38):
        assert score is None or 0 < score < 1
    config = tag.config()
    assert config.image.activation == config.text.activation == tag.activation


def test_a_tag_is_found_under_both_names_of_its_model() -> None:
    row = clip_hub.find("ViT-B-32", "OpenAI")
    assert row is clip_hub.find("ViT-B-32-quickgelu", "openai")
    assert row.activation == "quick_gelu"


def test_unknown_names_list_the_nearest() -> None:
    with pytest.raises(UnknownModel, match="'laion2b_s34b_b79'. Did you mean laion2b_s34b_b79k"):
        clip_hub.find("ViT-B-32", "laion2b_s34b_b79")
    with pytest.raises(UnknownModel, match="Unknown model 'ViT-B-33'. Did you mean ViT-B-32"):
        clip_hub.find("ViT-B-33", "openai")
    with pytest.raises(UnknownModel, match="No published weights of ViT-S-16"):
        clip_hub.find("ViT-S-16", "openai")


def test_the_wrong_activation_is_refused_with_the_right_name() -> None:
    with pytest.raises(CheckpointMismatch, match="trained with activation 'gelu'.*Use the name 'ViT-B-32'"):
        clip_hub.find("ViT-B-32-quickgelu", "laion2b_s34b_b79k")


def test_every_model_of_a_row_is_known_to_clip_core() -> None:
    assert {model for model, _ in clip_hub.list_pretrained()} <= set(clip_core.list_models())
