"""Zero-shot classifier weights against open_clip's."""

from __future__ import annotations

import open_clip
import pytest
import torch

import clip_core
from clip_core.errors import ConfigError
from clip_core.zero_shot import (
    build_multilingual_classifiers,
    build_zero_shot_classifier,
    class_prompts,
    encode_texts,
    fill_template,
)

pytestmark = pytest.mark.parity

NAMES = ["tench", "goldfish", "great white shark", "tench"]
TEMPLATES = ["a photo of a {c}.", "art of the {c}.", "a {c}, not a {c}"]


def test_weights_equal_open_clip() -> None:
    torch.manual_seed(0)
    peer = open_clip.create_model("ViT-S-32-alt").eval()
    ours = clip_core.create_model("ViT-S-32-alt")
    ours.load_state_dict(peer.state_dict())
    expected = open_clip.build_zero_shot_classifier(
        peer,
        open_clip.get_tokenizer("ViT-S-32-alt"),
        NAMES,
        [lambda name, t=template: t.replace("{c}", name) for template in TEMPLATES],
        device="cpu",
    )
    tokenizer = clip_core.get_tokenizer("ViT-S-32-alt")
    weights = build_zero_shot_classifier(ours, tokenizer, NAMES, TEMPLATES, batch_size=4)
    assert weights.shape == (256, 4)
    torch.testing.assert_close(weights, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(weights.norm(dim=0), torch.ones(4))
    called = build_zero_shot_classifier(ours, tokenizer, NAMES, [lambda name: f"a photo of a {name}."])
    stated = build_zero_shot_classifier(ours, tokenizer, NAMES, TEMPLATES[:1])
    torch.testing.assert_close(called, stated)


def test_each_distinct_prompt_is_encoded_once(tiny: clip_core.Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = tiny.model.text_features
    monkeypatch.setattr(
        tiny.model, "text_features", lambda tokens, lengths=None: (seen.append(len(tokens)), original(tokens))[1]
    )
    build_zero_shot_classifier(tiny.model, tiny.tokenizer, NAMES, TEMPLATES, batch_size=2)
    assert sum(seen) == 9
    assert max(seen) == 2


def test_prompts_in_full_are_the_filled_templates(tiny: clip_core.Bundle) -> None:
    names = NAMES[:3]
    in_full = dict(zip(names, class_prompts(names, TEMPLATES), strict=True))
    assert in_full["tench"] == ["a photo of a tench.", "art of the tench.", "a tench, not a tench"]
    torch.testing.assert_close(
        build_zero_shot_classifier(tiny.model, tiny.tokenizer, in_full),
        build_zero_shot_classifier(tiny.model, tiny.tokenizer, names, TEMPLATES),
        atol=1e-6,
        rtol=0,
    )
    uneven = {"cat": ["a cat"], "dog": ["a dog", "a puppy"]}
    weights = build_zero_shot_classifier(tiny.model, tiny.tokenizer, uneven)
    features = encode_texts(tiny.model, tiny.tokenizer, ["a cat", "a dog", "a puppy"])
    torch.testing.assert_close(weights[:, 0], features[0], atol=1e-6, rtol=0)
    mean = features[1:].mean(dim=0)
    torch.testing.assert_close(weights[:, 1], mean / mean.norm(), atol=1e-6, rtol=0)


def test_each_language_has_its_classifier_and_shared_prompts_are_encoded_once(
    tiny: clip_core.Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    languages = {"en": (["hand", "dog"], ["a {}"]), "de": (["Hand", "Hund"], ["{}", lambda name: f"ein {name}"])}
    separate = {
        language: build_zero_shot_classifier(tiny.model, tiny.tokenizer, *parts)
        for language, parts in languages.items()
    }
    seen: list[int] = []
    original = tiny.model.text_features
    monkeypatch.setattr(
        tiny.model, "text_features", lambda tokens, lengths=None: (seen.append(len(tokens)), original(tokens))[1]
    )
    together = build_multilingual_classifiers(tiny.model, tiny.tokenizer, languages)
    assert seen == [6]
    assert list(together) == ["en", "de"]
    for language, weights in together.items():
        torch.testing.assert_close(weights, separate[language], atol=1e-5, rtol=0)
    build_multilingual_classifiers(tiny.model, tiny.tokenizer, {"en": languages["en"], "again": languages["en"]})
    assert seen == [6, 2]


def test_encode_texts_keeps_the_order(tiny: clip_core.Bundle) -> None:
    texts = [f"number {i}" for i in range(7)]
    together = encode_texts(tiny.model, tiny.tokenizer, texts, batch_size=3)
    alone = torch.cat([encode_texts(tiny.model, tiny.tokenizer, [text]) for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_what_cannot_be_a_classifier_is_refused(tiny: clip_core.Bundle) -> None:
    with pytest.raises(ConfigError, match="'a photo' has no place for the class"):
        fill_template("a photo", "cat")
    with pytest.raises(ConfigError, match="bring their own prompts"):
        class_prompts({"cat": ["a cat"]}, TEMPLATES)
    with pytest.raises(ConfigError, match="The prompts of class 'cat' is 'a cat'; allowed: a list"):
        class_prompts({"cat": "a cat"})
    with pytest.raises(ConfigError, match=r"different numbers of classes \({'en': 1, 'de': 2}\)"):
        build_multilingual_classifiers(tiny.model, tiny.tokenizer, {"en": (["a"], ["{}"]), "de": (["a", "b"], ["{}"])})
    for names, templates, title in (
        ([], TEMPLATES, "classnames"),
        ("dog", TEMPLATES, "classnames"),
        (NAMES, [], "templates"),
        (NAMES, "a {c}", "templates"),
    ):
        with pytest.raises(ConfigError, match=f"{title} is .*; allowed: a list of one or more"):
            build_zero_shot_classifier(tiny.model, tiny.tokenizer, names, templates)
    for texts in ([], "a dog"):
        with pytest.raises(ConfigError, match="texts is .*; allowed: a list of one or more"):
            encode_texts(tiny.model, tiny.tokenizer, texts)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        encode_texts(tiny.model, tiny.tokenizer, ["a dog"], batch_size=0)


def test_features_can_be_trained_on(tiny: clip_core.Bundle) -> None:
    layer = torch.nn.Linear(128, 2)
    layer(encode_texts(tiny.model, tiny.tokenizer, ["a dog"])).sum().backward()
    assert layer.weight.grad is not None


def test_names_that_are_no_strings_are_refused(tiny: clip_core.Bundle) -> None:
    for classname, template in ((1, "a {c}"), ("cat", 3)):
        with pytest.raises(ConfigError, match="allowed: strings, or a callable as template"):
            build_zero_shot_classifier(tiny.model, tiny.tokenizer, [classname], [template])
