"""Published weights are found under every name that open_clip has for them, with the same facts."""

from __future__ import annotations

from collections import Counter

import open_clip
import pytest

import clip_core
import clip_hub
from clip_core.errors import CheckpointMismatch, UnknownModel
from clip_hub.registry import all_tags, rows_of

pytestmark = pytest.mark.parity

# Later than open_clip 3.3.0.
NEWER = {("ViT-B-16-SigLIP2-naflex", "webli"), ("ViT-SO400M-16-SigLIP2-naflex", "webli")}
# open_clip 3.3.0 names the repository of laion400m_e31 here, and so loads other weights than it says.
OTHER_REPOSITORY = {("ViT-B-16-plus-240", "laion400m_e32"): "timm/vit_base_patch16_plus_clip_240.laion400m_e31"}
# OpenCLIP states this activation with the architecture, not with the weights.
QUICK_GELU_ARCHITECTURES = {"roberta-ViT-B-32"}

# The pairs that OpenCLIP listed when it had 87 of them: model, then its tags.
FIRST_87 = """
RN50 openai yfcc15m cc12m
RN50-quickgelu openai yfcc15m cc12m
RN101 openai yfcc15m
RN101-quickgelu openai yfcc15m
RN50x4 openai
RN50x16 openai
RN50x64 openai
ViT-B-32 openai laion400m_e31 laion400m_e32 laion2b_e16 laion2b_s34b_b79k datacomp_m_s128m_b4k
ViT-B-32 commonpool_m_clip_s128m_b4k commonpool_m_laion_s128m_b4k commonpool_m_image_s128m_b4k
ViT-B-32 commonpool_m_text_s128m_b4k commonpool_m_basic_s128m_b4k commonpool_m_s128m_b4k datacomp_s_s13m_b4k
ViT-B-32 commonpool_s_clip_s13m_b4k commonpool_s_laion_s13m_b4k commonpool_s_image_s13m_b4k
ViT-B-32 commonpool_s_text_s13m_b4k commonpool_s_basic_s13m_b4k commonpool_s_s13m_b4k
ViT-B-32-quickgelu openai laion400m_e31 laion400m_e32
ViT-B-16 openai laion400m_e31 laion400m_e32 laion2b_s34b_b88k datacomp_l_s1b_b8k commonpool_l_clip_s1b_b8k
ViT-B-16 commonpool_l_laion_s1b_b8k commonpool_l_image_s1b_b8k commonpool_l_text_s1b_b8k
ViT-B-16 commonpool_l_basic_s1b_b8k commonpool_l_s1b_b8k
ViT-B-16-plus-240 laion400m_e31 laion400m_e32
ViT-L-14 openai laion400m_e31 laion400m_e32 laion2b_s32b_b82k datacomp_xl_s13b_b90k commonpool_xl_clip_s13b_b90k
ViT-L-14 commonpool_xl_laion_s13b_b90k commonpool_xl_s13b_b90k
ViT-L-14-336 openai
ViT-H-14 laion2b_s32b_b79k
ViT-g-14 laion2b_s12b_b42k laion2b_s34b_b88k
ViT-bigG-14 laion2b_s39b_b160k
roberta-ViT-B-32 laion2b_s12b_b32k
xlm-roberta-base-ViT-B-32 laion5b_s13b_b90k
xlm-roberta-large-ViT-H-14 frozen_laion5b_s13b_b90k
convnext_base laion400m_s13b_b51k
convnext_base_w laion2b_s13b_b82k laion2b_s13b_b82k_augreg laion_aesthetic_s13b_b82k
convnext_base_w_320 laion_aesthetic_s13b_b82k laion_aesthetic_s13b_b82k_augreg
convnext_large_d laion2b_s26b_b102k_augreg
convnext_large_d_320 laion2b_s29b_b131k_ft laion2b_s29b_b131k_ft_soup
convnext_xxlarge laion2b_s34b_b82k_augreg laion2b_s34b_b82k_augreg_rewind laion2b_s34b_b82k_augreg_soup
coca_ViT-B-32 laion2b_s13b_b90k mscoco_finetuned_laion2b_s13b_b90k
coca_ViT-L-14 laion2b_s13b_b90k mscoco_finetuned_laion2b_s13b_b90k
EVA01-g-14 laion400m_s11b_b41k
EVA01-g-14-plus merged2b_s11b_b114k
EVA02-B-16 merged2b_s8b_b131k
EVA02-L-14 merged2b_s4b_b131k
EVA02-L-14-336 merged2b_s6b_b61k
EVA02-E-14 laion2b_s4b_b115k
EVA02-E-14-plus laion2b_s9b_b144k
"""


def test_every_pair_of_open_clip_is_listed_and_found() -> None:
    ours, theirs = clip_hub.list_pretrained(), open_clip.list_pretrained()
    assert Counter(ours) == Counter([*theirs, *NEWER])
    for model, tag in ours:
        assert clip_hub.find(model, tag) is clip_hub.find_name(f"{model}:{tag}")


def test_the_first_87_pairs_are_listed() -> None:
    lines = (line.split() for line in FIRST_87.split("\n") if line)
    pairs = {(model, tag) for model, *tags in lines for tag in tags}
    assert len(pairs) == 87
    assert pairs <= set(clip_hub.list_pretrained())


@pytest.mark.parametrize("pair", open_clip.list_pretrained(), ids=":".join)
def test_each_pair_has_open_clips_file_preprocessing_and_activation(pair: tuple[str, str]) -> None:
    row, theirs = clip_hub.find(*pair), open_clip.get_pretrained_cfg(*pair)
    repo, _, file = theirs["hf_hub"].rpartition("/")
    assert repo == OTHER_REPOSITORY.get(pair, row.repo)
    assert file in row.files if file else "open_clip_pytorch_model.bin" in row.files
    assert theirs["url"] == (row.url or "")
    assert (row.activation == "quick_gelu") == (bool(theirs.get("quick_gelu")) or pair[0] in QUICK_GELU_ARCHITECTURES)
    assert (row.mean, row.std) == (tuple(theirs["mean"]), tuple(theirs["std"]))
    assert (row.interpolation, row.resize_mode) == (theirs["interpolation"], theirs["resize_mode"])


@pytest.mark.parametrize("row", all_tags(), ids=lambda row: row.name)
def test_each_row_builds_the_architecture_of_its_name(row: clip_hub.Tag) -> None:
    config = row.config()
    preprocess = config.preprocess
    assert (preprocess.mean, preprocess.std) == (row.mean, row.std)
    assert (preprocess.interpolation, preprocess.resize_mode) == (row.interpolation, row.resize_mode)
    named = {getattr(tower, "activation", None) for tower in (config.image, config.text)} - {None}
    assert named == {row.activation} - {None}
    if (row.model, row.tag) in NEWER:
        return
    theirs = open_clip.get_model_config(row.model)
    assert config.embed_dim == theirs["embed_dim"]
    assert preprocess.size == theirs["vision_cfg"].get("image_size", 224)
    assert config.text.context_length == theirs["text_cfg"].get("context_length", 77)


@pytest.mark.parametrize("pair", sorted(NEWER), ids=":".join)
def test_newer_rows_are_those_of_later_releases_of_open_clip(pair: tuple[str, str]) -> None:
    row = clip_hub.find(*pair)
    assert row.repo == f"timm/{pair[0]}"
    assert (row.mean, row.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (row.interpolation, row.resize_mode) == ("bicubic", "squash")
    assert row.config().text.context_length == 64


def test_the_l_14_of_laion_2b_has_its_own_mean() -> None:
    assert clip_hub.find("ViT-L-14", "laion2b_s32b_b82k").config().preprocess.mean == (0.5, 0.5, 0.5)
    assert clip_core.get_config("ViT-L-14").preprocess.mean != (0.5, 0.5, 0.5)


def test_tags_by_model_and_models_by_tag_are_open_clips() -> None:
    models = {model for model, _ in open_clip.list_pretrained()}
    assert all(Counter(clip_hub.list_tags(m)) == Counter(open_clip.list_pretrained_tags_by_model(m)) for m in models)
    tags = {tag for _, tag in open_clip.list_pretrained()}
    for tag in tags:
        ours = {model for model in clip_hub.list_models_with(tag) if (model, tag) not in NEWER}
        assert ours == set(open_clip.list_pretrained_models_by_tag(tag))
    assert clip_hub.list_tags("ViT-S-16") == []
    with pytest.raises(UnknownModel, match="Unknown pretrained tag 'laion2b_s34b'. Did you mean laion2b_s34b_b79k, "):
        clip_hub.list_models_with("laion2b_s34b")
    assert clip_hub.list_models_with("LAION400M-e32") == clip_hub.list_models_with("laion400m_e32")
    with pytest.raises(UnknownModel, match="Did you mean ViT-L-14"):
        clip_hub.list_tags("ViT-L14")


def test_a_tag_is_found_under_both_names_of_its_model() -> None:
    row = clip_hub.find("ViT-B-32", "OpenAI")
    assert row is clip_hub.find("ViT-B-32-quickgelu", "openai")
    assert row.activation == "quick_gelu"
    assert clip_hub.find("ViT-B-32", "laion2b-s34b-b79k") is clip_hub.find("ViT-B-32", "laion2b_s34b_b79k")


def test_unknown_names_list_the_nearest() -> None:
    with pytest.raises(UnknownModel, match="'laion2b_s34b_b79'. Did you mean laion2b_s34b_b79k"):
        clip_hub.find("ViT-B-32", "laion2b_s34b_b79")
    with pytest.raises(UnknownModel, match="Unknown model 'ViT-B-33'. Did you mean ViT-B-32"):
        clip_hub.find("ViT-B-33", "openai")
    with pytest.raises(UnknownModel, match="No published weights of ViT-S-16"):
        clip_hub.find("ViT-S-16", "openai")
    with pytest.raises(UnknownModel, match="'laion2b_s34b_b79k' is a tag of ViT-B-32"):
        clip_hub.find("ViT-L-14", "laion2b_s34b_b79k")
    with pytest.raises(UnknownModel, match="'ViT-H-14' names an architecture without weights.*laion2b_s32b_b79k"):
        clip_hub.find_name("ViT-H-14")
    with pytest.raises(UnknownModel, match="no published weights of it are known here"):
        clip_hub.find_name("ViT-S-16:")


def test_what_begins_with_the_asked_tag_is_offered_first_and_case_is_pointed_out() -> None:
    with pytest.raises(UnknownModel, match=r"'laion2b'. Did you mean laion2b_s32b_b82k\? "):
        clip_hub.find_name("ViT-L-14:laion2b")
    for name in ("vit-l-14:laion2b_s32b_b82k", "VIT-L/14:laion2b"):
        with pytest.raises(UnknownModel, match=r"Did you mean ViT-L-14:laion2b_s32b_b82k\? Case matters"):
            clip_hub.find_name(name)
    with pytest.raises(UnknownModel, match=r"'vit-l-14'. Did you mean ViT-L-14\?"):
        clip_hub.find_name("vit-l-14")
    assert [row.name for row in rows_of("timm/ViT-B-16-SigLIP")] == ["ViT-B-16-SigLIP:webli"]


def test_the_wrong_activation_is_refused_with_the_right_name() -> None:
    with pytest.raises(CheckpointMismatch, match="trained with activation 'gelu'.*Use the name 'ViT-B-32'"):
        clip_hub.find("ViT-B-32-quickgelu", "laion2b_s34b_b79k")


def test_every_model_of_a_row_is_known_to_clip_core() -> None:
    assert {model for model, _ in clip_hub.list_pretrained()} <= set(clip_core.list_models())
