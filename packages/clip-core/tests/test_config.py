"""Configuration records: strict in, exact out, as clip_core.schema reads and writes them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

import clip_core
from clip_core.config import ClipConfig, PreprocessConfig, VitConfig
from clip_core.errors import ConfigError

TINY = clip_core.get_config("tiny")


@pytest.mark.parametrize("name", clip_core.list_models())
def test_json_round_trip_is_exact(name: str) -> None:
    config = clip_core.get_config(name)
    assert ClipConfig.from_json(json.loads(json.dumps(config.to_json(), allow_nan=False))) == config


def changed(**changes: Any) -> dict[str, Any]:
    """TINY as JSON with dotted paths replaced; the value `...` removes the key."""
    data = json.loads(json.dumps(TINY.to_json()))
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = data
        for parent in parents:
            place = place[parent]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image__widht": 3}, r"ClipConfig.image has no key 'widht'. Did you mean width\?"),
        ({"zzz": 3}, r"ClipConfig has no key 'zzz'. Allowed: embed_dim, image"),
        ({"image__width": ...}, "ClipConfig.image lacks the key 'width'"),
        ({"image__width": "128"}, r"VitConfig.width is '128' \(str\); allowed: int"),
        ({"image__width": True}, r"VitConfig.width is True \(bool\)"),
        ({"image__width": 100}, "VitConfig.heads is 3; allowed: a divisor of width 100"),
        ({"image__layers": 0}, "VitConfig.layers is 0; allowed: above 0"),
        ({"image__norm_eps": 0.0}, r"VitConfig.norm_eps is 0.0; allowed: above 0\."),
        (
            {"text__pool": "eos", "text__eos_id": 49408},
            "TextConfig.eos_id is 49408; allowed: an id below vocab_size 49408",
        ),
        ({"text__pad_id": -1}, "TextConfig.pad_id is -1; allowed: an id below vocab_size"),
        (
            {"image__patch_size": 33},
            "VitConfig.image_size is 32; allowed: sides of at least one patch, patch_size 33",
        ),
        ({"image__image_size": [32, 7]}, r"VitConfig.image_size is \(32, 7\); allowed: sides of at least one patch"),
        (
            {"image__activation": "relu"},
            r"VitConfig.activation is 'relu' \(str\); allowed: 'gelu' or 'gelu_tanh'",
        ),
        ({"image__kind": "mlp"}, "ClipConfig.image.kind is 'mlp'; allowed: 'vit'"),
        ({"image__kind": []}, r"ClipConfig.image.kind is \[\]"),
        ({"image": 3}, r"ClipConfig.image is 3 \(int\); allowed: VitConfig"),
        ({"text__context_length": 2}, "TextConfig.context_length is 2; allowed: 3 or more"),
        ({"tokenizer__context_length": 77}, "a context_length equal to the text tower's 32"),
        ({"preprocess__size": 64}, "a size equal to the image tower's image_size 32"),
        ({"preprocess__mean": [0.5, 0.5]}, "allowed: a tuple of a finite number, a finite number, a finite number"),
        ({"preprocess__std": [0.5, 0.5, 0.0]}, "three numbers above 0"),
        ({"logit_scale": float("nan")}, "ClipConfig.logit_scale is nan"),
        ({"logit_bias": "no"}, "allowed: a finite number or None"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClipConfig.from_json(changed(**changes))


def test_text_is_no_record() -> None:
    with pytest.raises(ConfigError, match="takes a dict as json.load gives it, not str"):
        ClipConfig.from_json(json.dumps(TINY.to_json()))


def test_records_are_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.embed_dim = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        PreprocessConfig(32)  # type: ignore[misc,call-arg]
    assert isinstance(TINY.image, VitConfig)
    assert hash(TINY) == hash(ClipConfig.from_json(TINY.to_json()))
