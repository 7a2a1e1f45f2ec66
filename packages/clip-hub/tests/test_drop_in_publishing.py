"""OpenCLIP's calls for publishing: what arrives loads as the model that was pushed."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

import clip_hub
import clip_hub.open_clip as open_clip
from clip_core.errors import ConfigError

REPO = "someone/pushed"


def test_a_model_is_pushed_with_its_preprocessing_and_a_readme_that_is_there_stays(hub) -> None:
    model, _, _ = open_clip.create_model_and_transforms("tiny", image_mean=(0.5, 0.5, 0.5), image_std=(0.4, 0.5, 0.6))
    tokenizer = open_clip.get_tokenizer("tiny")
    card = {"description": "A trial.", "license": "mit"}
    config = open_clip.get_model_config("tiny")
    done = open_clip.push_to_hf_hub(model, tokenizer, config, REPO, token=hub.token, model_card=card, revision="trial")
    assert done.plan.branch == "trial"
    assert not hub.repositories[REPO].refs["main"].files
    open_clip.push_to_hf_hub(model, tokenizer, None, REPO, "Again", hub.token, model_card=card, private=True)
    assert hub.repositories[REPO].refs["main"].title == "Again"
    assert "A trial." in hub.files[REPO, "README.md"].decode()
    assert not any(name.endswith(".bin") for _, name in hub.files)
    loaded = clip_hub.load(REPO)
    assert torch.equal(loaded.model.text_projection, model.text_projection)
    assert loaded.config.preprocess.mean == (0.5, 0.5, 0.5)
    assert json.loads(hub.files[REPO, "open_clip_config.json"])["preprocess_cfg"]["std"] == [0.4, 0.5, 0.6]
    hub.files[REPO, "README.md"] = b"---\nlicense: mit\n---\n# Somebody's words\n"
    with torch.no_grad():
        model.text_projection += 1
    open_clip.push_to_hf_hub(model, tokenizer, None, REPO, token=hub.token)
    assert hub.files[REPO, "README.md"].endswith(b"words\n")
    assert torch.equal(clip_hub.load(REPO).model.text_projection, model.text_projection)


def test_a_readme_that_cannot_be_asked_for_is_not_taken_for_none(hub) -> None:
    from clip_hub.download import DownloadError
    from clip_hub.drop_in.publishing import _readme

    assert _readme(REPO, "main", hub.token) is None  # no such repository
    hub.files[REPO, "a.txt"] = b"a"
    assert _readme(REPO, "main", hub.token) is None
    assert _readme(REPO, "trial", hub.token) is None
    hub.files[REPO, "README.md"] = b"# Somebody's words\n"
    hub.repositories[REPO].gated = True
    with pytest.raises(DownloadError, match="gated"):
        _readme(REPO, "main", False)
    hub.repositories[REPO].gated = False
    other = "someone/other"
    hub.files[other, "README.md"] = b"# Somebody's words\n"
    hub.fail("503", "README.md")
    with pytest.raises(DownloadError, match="503"):
        _readme(other, "main", hub.token)


def test_published_weights_are_pushed_by_name(hub, monkeypatch) -> None:
    from safetensors.torch import save

    import clip_core

    row = clip_hub.find_name("ViT-B-32:laion2b_s34b_b79k")
    monkeypatch.setattr(type(row), "config", lambda _: clip_core.get_config("tiny"))
    state = clip_core.create_model("tiny").state_dict()
    hub.files[row.repo, row.files[0]] = save(state)
    monkeypatch.setattr("clip_hub.drop_in.publishing.get_tokenizer", lambda *_, **__: open_clip.get_tokenizer("tiny"))
    open_clip.push_pretrained_to_hf_hub("ViT-B-32", row.tag, REPO, token=hub.token, image_resize_mode="squash")
    loaded = clip_hub.load(REPO)
    assert torch.equal(loaded.model.text_projection, state["text_projection"])
    assert loaded.config.preprocess.resize_mode == "squash"


def test_what_is_not_honoured_is_refused(hub) -> None:
    model, tokenizer = open_clip.create_model("tiny"), open_clip.get_tokenizer("tiny")
    for options, message in (
        ({"safe_serialization": False}, "allowed: True or 'both'. Pickles run code"),
        ({"model_card": {"usage": "x"}}, "model_card has 'usage'; allowed: description, license"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_clip.push_to_hf_hub(model, tokenizer, None, REPO, token=hub.token, **options)
    with pytest.raises(ConfigError, match="gives other ids"):
        open_clip.push_to_hf_hub(model, open_clip.get_tokenizer("tiny", context_length=8), None, REPO, token=hub.token)
    with pytest.raises(ConfigError, match="model_config says .* and the model has"):
        open_clip.push_to_hf_hub(model, tokenizer, open_clip.get_model_config("ViT-B-32"), REPO, token=hub.token)
    assert REPO not in hub.repositories


@torch.no_grad()
def test_a_model_becomes_one_of_another_dtype_and_still_computes() -> None:
    model = open_clip.create_model("tiny").eval()
    tokens = open_clip.get_tokenizer("tiny")(["two dogs"])
    before = model.encode_text(tokens)
    assert open_clip.convert_weights_to_fp16 is open_clip.convert_weights_to_lp
    open_clip.convert_weights_to_lp(model, torch.bfloat16)
    assert model.logit_scale.dtype == torch.float32
    assert model.visual.ln_post.weight.dtype == torch.bfloat16
    torch.testing.assert_close(model.encode_text(tokens).float(), before, atol=0.1, rtol=0.1)
    with pytest.raises(ConfigError, match="dtype is torch.int8"):
        open_clip.convert_weights_to_lp(model, torch.int8)


def test_records_of_towers_make_an_architecture(tmp_path) -> None:
    vision = open_clip.CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=16, image_size=32)
    text = open_clip.CLIPTextCfg(context_length=8, width=32, heads=2, layers=1)
    content = {"embed_dim": 16, "vision_cfg": dataclasses.asdict(vision), "text_cfg": dataclasses.asdict(text)}
    (tmp_path / "made-here.json").write_text(json.dumps(content))
    open_clip.add_model_config(tmp_path / "made-here.json")
    assert open_clip.create_model("made-here").visual.image_size in (32, (32, 32))
