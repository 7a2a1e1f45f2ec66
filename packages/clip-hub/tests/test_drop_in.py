"""The drop-in module by itself: what it fetches, what it refuses, and that a failure never gives a random model."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import clip_core
import clip_hub
import clip_hub.open_clip as open_clip
from clip_core.errors import CheckpointMismatch, ConfigError, TokenTooLong, UnknownModel
from clip_hub import DownloadError
from clip_hub.drop_in.captions import generate_captions
from clip_hub.drop_in.creation import create_model
from clip_hub.drop_in.loading import fill_tower, load_checkpoint
from clip_hub.drop_in.models import CLIP, CoCa, CustomTextCLIP, present
from clip_hub.drop_in.pretrained import download_pretrained, download_pretrained_from_url
from clip_hub.drop_in.sources import find_source, get_tokenizer, parse_model_name
from clip_hub.drop_in.tokenizers import HFTokenizer, SimpleTokenizer
from clip_hub.drop_in.transforms import image_transform
from clip_hub.drop_in.zero_shot import build_zero_shot_classifier

WORDS = ("<pad>", "</s>", "<unk>", "a", "photo", "of", "cat", "dog")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Weights of the architecture `tiny`."""
    torch.manual_seed(0)
    save_file(clip_core.create_model("tiny").state_dict(), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The same in OpenCLIP's layout."""
    torch.manual_seed(0)
    return clip_core.export(clip_core.create("tiny"), tmp_path / "exported")


def vocabulary() -> dict[str, str]:
    """A tokenizer of Hugging Face with eight words."""
    tokens = [{"id": i, "content": word, "special": True} for i, word in enumerate(WORDS[:3])]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content = {
        "version": "1.0",
        "added_tokens": [token | flags for token in tokens],
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(WORDS)}, "unk_token": "<unk>"},
    }
    return {"tokenizer.json": json.dumps(content), "tokenizer_config.json": json.dumps({"pad_token": "<pad>"})}


@torch.no_grad()
def test_a_name_of_the_hub_brings_config_weights_and_preprocessing(hub, exported: Path) -> None:
    for path in exported.iterdir():
        hub.files["someone/small", path.name] = path.read_bytes()
    torch.manual_seed(0)
    expected = clip_core.create_model("tiny")
    images = torch.randn(2, 3, *expected.visual.image_size)
    model, transform = open_clip.create_model_from_pretrained("hf-hub:someone/small", cache_dir=hub.cache)
    assert torch.equal(model.eval().encode_image(images), expected.encode_image(images))
    assert transform.transforms[-1].mean == expected.config.preprocess.mean
    assert open_clip.get_tokenizer("hf-hub:someone/small", cache_dir=hub.cache).context_length == model.context_length
    layout = open_clip.create_model("hf-hub:someone/small", load_weights=False, cache_dir=hub.cache)
    assert layout.state_dict().keys() == model.state_dict().keys()
    assert not torch.equal(layout.visual.proj, model.visual.proj)


@pytest.mark.parametrize("fault", ["500", "503", "401", "404"])
def test_a_failed_download_raises_and_gives_no_random_model(hub, fault: str, exported: Path) -> None:
    repo = clip_hub.find("ViT-B-32", "laion2b_s34b_b79k").repo
    hub.files[repo, "open_clip_model.safetensors"] = b"something"
    for path in exported.iterdir():
        hub.files["someone/small", path.name] = path.read_bytes()
    hub.fail(fault)
    with pytest.raises(DownloadError):
        open_clip.create_model_and_transforms("ViT-B-32", "laion2b_s34b_b79k", cache_dir=hub.cache)
    with pytest.raises(DownloadError):
        open_clip.create_model("hf-hub:someone/small", cache_dir=hub.cache)


def test_weights_that_lack_at_the_hub_give_no_random_model(hub, exported: Path) -> None:
    hub.files["someone/small", "open_clip_config.json"] = (exported / "open_clip_config.json").read_bytes()
    with pytest.raises(DownloadError):
        open_clip.create_model("hf-hub:someone/small", cache_dir=hub.cache)


def test_a_tag_brings_its_activation_whatever_the_name_says(hub, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert find_source("ViT-B-32", "openai").config.image.activation == "quick_gelu"
    assert "bring QuickGELU" in caplog.text
    with pytest.raises(CheckpointMismatch, match="trained with activation 'gelu'"):
        open_clip.create_model("ViT-B-32", "laion2b_s34b_b79k", force_quick_gelu=True, cache_dir=hub.cache)


def test_a_tag_is_fetched(hub, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = clip_hub.Tag(model="tiny", tag="mine", repo="someone/tiny", mean=(0.5, 0.5, 0.5), resize_mode="squash")
    monkeypatch.setattr("clip_hub.registry.find", lambda name, tag: {("tiny", "mine"): row}[name, tag])
    hub.files["someone/tiny", "open_clip_model.safetensors"] = tiny.read_bytes()
    model = open_clip.create_model("tiny", "mine", cache_dir=hub.cache)
    torch.manual_seed(0)
    assert torch.equal(model.visual.proj, clip_core.create_model("tiny").visual.proj)
    assert model.visual.preprocess_cfg["mean"] == (0.5, 0.5, 0.5)
    assert model.visual.preprocess_cfg["resize_mode"] == "squash"
    path = download_pretrained({"hf_hub": "someone/tiny/"}, cache_dir=hub.cache)
    assert Path(path).read_bytes() == tiny.read_bytes()
    assert download_pretrained({"file": path}) == path
    assert download_pretrained({}) == ""


def test_what_is_not_honoured_is_refused_with_what_to_do(tiny: Path) -> None:
    for arguments, message in (
        ({"jit": True}, "jit is True; allowed: False. torch.compile"),
        ({"weights_only": False}, "weights_only is False"),
        ({"precision": "fp8"}, "precision is 'fp8'; allowed: fp32"),
        ({"vision_cfg": {}}, "vision_cfg.*add_model_config"),
        ({"pretrained": None, "pretrained_image": True}, "pretrained_image_path"),
        ({"pretrained": None, "require_pretrained": True}, "Weights are required"),
        ({"pretrained": "no/such.pt"}, "no/such.pt"),
        ({"force_preprocess_cfg": {"interpolation": "lanczos"}}, "interpolation"),
        ({"pretrained_image_path": "no/such.pt"}, "no file of weights"),
    ):
        with pytest.raises((ConfigError, UnknownModel), match=message):
            create_model("tiny", **{"pretrained": tiny, **arguments})
    with pytest.raises(UnknownModel, match="ViT-B-32"):
        create_model("ViT-B-23")
    with pytest.raises(UnknownModel, match="laion2b_s34b_b79k"):
        create_model("ViT-B-32", "laion2b_s34b_b97k")
    with pytest.raises(ConfigError, match="patch_dropout"):
        create_model("RN50", force_patch_dropout=0.5)
    with pytest.raises(ConfigError, match="no such folder"):
        create_model("local-dir:/no/such")
    with pytest.raises(ConfigError, match="names nothing"):
        parse_model_name("hf-hub:")
    with pytest.raises(UnknownModel):
        get_tokenizer("ViT-B-23")
    with pytest.raises(ConfigError, match="sha256"):
        download_pretrained_from_url("https://example.org/weights.pt")
    with pytest.raises(ConfigError, match="aug_cfg has mixup"):
        image_transform(32, True, aug_cfg={"mixup": 1.0})
    model = create_model("tiny", tiny)
    with pytest.raises(ConfigError, match="not the causal mask"):
        model.transformer(torch.randn(1, 3, model.transformer.width), attn_mask=torch.zeros(3, 3))


def test_a_model_without_weights_says_that_it_is_random(caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(create_model("tiny"), CLIP)
    assert "tiny has new random weights: no pretrained weights were asked for" in caplog.text


def test_weights_of_another_model_are_refused(tmp_path: Path, exported: Path) -> None:
    with pytest.raises(CheckpointMismatch):
        create_model("tiny", exported, force_quick_gelu=True)
    model = create_model("tiny")
    torch.save({**model.state_dict(), "ln_final.weight": torch.ones(3)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointMismatch, match="do not fit the model: .*ln_final"):
        load_checkpoint(model, tmp_path / "other.pt")
    with pytest.raises(CheckpointMismatch, match="ln_final"):
        create_model("tiny", tmp_path / "other.pt")


def test_towers_take_weights_of_their_own(tmp_path: Path) -> None:
    source, other = create_model("tiny"), create_model("tiny")
    text = {name: value for name, value in source.state_dict().items() if not name.startswith(("visual.", "logit_"))}
    torch.save(source.visual.state_dict(), tmp_path / "image.pt")
    torch.save(text, tmp_path / "text.pt")
    model = create_model(
        "tiny", pretrained_image_path=tmp_path / "image.pt", pretrained_text_path=str(tmp_path / "text.pt")
    )
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    nested = create_model("tiny", force_custom_text=True, pretrained_text_path=tmp_path / "text.pt")
    assert isinstance(nested, CustomTextCLIP)
    assert torch.equal(nested.text.token_embedding.weight, source.token_embedding.weight)
    assert not fill_tower(other, "visual", tmp_path / "text.pt")
    torch.save({name: value[:1] for name, value in text.items()}, tmp_path / "cut.pt")
    with pytest.raises(CheckpointMismatch, match="the model has"):
        fill_tower(other, "text", tmp_path / "cut.pt")


def test_a_state_dict_is_loaded_in_place(tiny: Path) -> None:
    model = create_model("tiny", precision="bf16", init_logit_bias=-10.0)
    before = model.visual.proj
    assert list(load_checkpoint(model, tiny).missing_keys) == []
    assert model.visual.proj is before
    assert model.visual.proj.dtype == torch.bfloat16
    assert model.logit_bias.item() == 0


def test_a_text_tower_of_transformers_starts_with_its_own_encoder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []
    made = clip_core.create_model("tiny")  # in place of the real one, which takes transformers and half a gigabyte
    monkeypatch.setattr("clip_hub.drop_in.creation.build", lambda *_, **__: made)
    monkeypatch.setattr("clip_hub.drop_in.creation.fetch_model", lambda repo, cache_dir: f"folder of {repo}")
    monkeypatch.setattr("clip_hub.drop_in.creation.load_text_tower", lambda _, folder: asked.append(folder))
    create_model("roberta-ViT-B-32")
    create_model("roberta-ViT-B-32", pretrained_text=False)
    create_model("roberta-ViT-B-32", pretrained_text_path=tmp_path)
    assert asked == ["folder of FacebookAI/roberta-base", tmp_path]


def test_captions_are_asked_for_in_clip_cores_words() -> None:
    asked = []

    def generate(image, prompt=None, **options):
        asked.append((prompt, options))
        return torch.full((2, 4), 5)

    decoder = clip_core.get_config("coca_ViT-B-32").decoder
    images, prompt = torch.zeros(2, 3, 4, 4), torch.tensor([49406, 3])
    shared = {"max_length": 30, "min_length": 5, "repetition_penalty": 1.0}
    generate_captions(generate, decoder, images, eos_token_id=[7, 9])
    assert asked.pop() == (None, {"method": "beam", "beams": 2, "stop_ids": (7, 9), **shared})
    generate_captions(generate, decoder, images, prompt, generation_type="top_k")
    assert asked.pop() == (prompt, {"method": "greedy", **shared})
    generate_captions(generate, decoder, images, generation_type="top_k", top_k=4, temperature=0.5)
    assert asked.pop() == (None, {"method": "sample", "top_k": 4, "temperature": 0.5, **shared})
    found = generate_captions(generate, decoder, images, generation_type="top_p", seq_len=9, fixed_output_length=True)
    assert asked.pop()[1] == {"method": "sample", "top_p": 0.1, "temperature": 1.0, **shared, "max_length": 9}
    assert found.tolist() == [[5] * 4 + [decoder.pad_id] * 5] * 2
    for options, message in (
        ({"stopping_criteria": [1]}, "stopping_criteria"),
        ({"pad_token_id": 3}, "pad_token_id is 3; allowed: None or 0"),
        ({"num_beams": 5}, "a divisor of num_beams 5"),
        ({"max_seq_len": 5}, "max_seq_len is 5"),
        ({"generation_type": "best"}, "generation_type is 'best'"),
    ):
        with pytest.raises(ConfigError, match=message):
            generate_captions(generate, decoder, images, **options)


@torch.no_grad()
def test_coca_writes_captions() -> None:
    torch.manual_seed(0)
    model = present(_small_coca(), {"mean": (0.5,) * 3, "std": (0.5,) * 3})
    assert isinstance(model, CoCa)
    images = torch.randn(2, 3, 32, 32)
    found = model.generate(images, seq_len=9, min_seq_len=3)
    assert torch.equal(found, clip_core.coca.CoCa.generate(model, images, max_length=9, min_length=3))
    assert model.training
    greedy = model.generate(images[:1], torch.tensor([49406, 8]), seq_len=7, generation_type="top_k")
    assert greedy.ndim == 1
    assert greedy[:2].tolist() == [49406, 8]


def _small_coca() -> clip_core.Clip:
    from clip_core.building import build
    from clip_core.convert.openclip_config import from_openclip

    sizes = {"width": 32, "layers": 1}
    text = {"context_length": 76, "vocab_size": 49408, "heads": 2, **sizes}
    image = {"image_size": 32, "patch_size": 16, "head_width": 16, "attentional_pool": True, "attn_pooler_heads": 2}
    return build(
        from_openclip(
            {
                "embed_dim": 32,
                "vision_cfg": {**image, **sizes},
                "text_cfg": {**text, "embed_cls": True},
                "multimodal_cfg": text,
            }
        )
    )


def test_tokenizers_of_hugging_face(hub, tmp_path: Path, exported: Path) -> None:
    for name, text in vocabulary().items():
        hub.files["someone/words", name] = text.encode()
    tokenizer = HFTokenizer("someone/words", context_length=6, cache_dir=hub.cache)
    assert tokenizer("a photo of a cat").tolist() == [[3, 4, 5, 3, 6, 1]]
    assert tokenizer(["a dog"], context_length=4).tolist() == [[3, 7, 1, 0]]
    assert HFTokenizer("someone/words", 4, strip_sep_token=True, cache_dir=hub.cache)("a").tolist() == [[3, 0, 0, 0]]
    tokenizer.save_pretrained(tmp_path / "kept")
    kept = pickle.loads(pickle.dumps(HFTokenizer(tmp_path / "kept", 5)))
    assert isinstance(kept, HFTokenizer)
    assert kept("dog").tolist() == [[7, 1, 0, 0, 0]]
    (tmp_path / "kept" / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="which id it pads with"):
        HFTokenizer(tmp_path / "kept")
    with pytest.raises(ConfigError, match="tokenizer_mode='clips'"):
        HFTokenizer("someone/words", tokenizer_mode="clips")
    # A repository whose configuration names the vocabulary of another one.
    content = json.loads((exported / "open_clip_config.json").read_text())
    content["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "someone/words", "context_length": 7}
    hub.files["someone/model", "open_clip_config.json"] = json.dumps(content).encode()
    named = get_tokenizer("hf-hub:someone/model", cache_dir=hub.cache)
    assert named("cat").tolist() == [[6, 1, 0, 0, 0, 0, 0]]
    assert get_tokenizer("hf-hub:someone/words", 3, cache_dir=hub.cache)("cat").tolist() == [[6, 1, 0]]


def test_clips_own_tokenizer() -> None:
    tokenizer = SimpleTokenizer(context_length=8, reduction_mask="simple")
    assert tokenizer(["x " * 20]).shape == (1, 8)
    assert pickle.loads(pickle.dumps(tokenizer)).reduction_mask == "simple"
    assert get_tokenizer()("a").shape == (1, 77)
    assert open_clip.get_tokenizer("ViT-B/32", context_length=16)("a").shape == (1, 16)
    with pytest.raises(TokenTooLong):
        SimpleTokenizer(context_length=8)("x " * 20, truncate=False)
    for arguments in ({"bpe_path": "bpe.txt.gz"}, {"clean": "canonicalize"}, {"additional_special_tokens": ["<x>"]}):
        with pytest.raises(ConfigError, match=next(iter(arguments))):
            SimpleTokenizer(**arguments)


def test_added_configurations(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(open_clip.get_model_config("tiny")))
    (tmp_path / "other.json").write_text("{}")
    open_clip.add_model_config(tmp_path)
    assert "mine" in open_clip.list_models()
    assert find_source("mine", None).config == clip_core.get_config("tiny")
    assert open_clip.get_tokenizer("mine")("a").shape == (1, clip_core.get_config("tiny").text.context_length)
    with pytest.raises(ConfigError, match="states no model"):
        open_clip.add_model_config(tmp_path / "other.json")
    with pytest.raises(ConfigError, match="has no tags"):
        create_model("mine", "openai")


@torch.no_grad()
def test_classifiers_lie_where_they_are_asked_for(tiny: Path) -> None:
    model, tokenizer = create_model("tiny", tiny).eval(), get_tokenizer("tiny")
    weights = build_zero_shot_classifier(model, tokenizer, ["cat", "dog"], ["a {}.", "the {}"], device="cpu")
    assert weights.shape == (model.config.embed_dim, 2)
    torch.testing.assert_close(weights.norm(dim=0), torch.ones(2))
    with pytest.raises(ConfigError, match="has no place"):
        build_zero_shot_classifier(model, tokenizer, ["cat"], ["a dog"])
