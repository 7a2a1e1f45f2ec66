"""Names of architectures."""

from __future__ import annotations

import open_clip
import pytest

import clip_core
from clip_core.errors import UnknownModel

pytestmark = pytest.mark.parity


# Names that OpenCLIP's repository got after its release 3.3.0.
NEWER = {
    "ViT-B-16-SigLIP2-naflex",
    "ViT-SO400M-16-SigLIP2-naflex",
    "gte-modernbert-base-ViT-B-32-256",
    "moderntext-ViT-B-32-256",
    "moderntext-naflex_ViT-B-16",
    "moderntext-naflex_ViT-B-32",
    "moderntext-naflex_ViT-B-deep-16",
    "moderntext-naflex_ViT-SO150M2-16",
    "naflex_ViT-B-16",
    "naflex_ViT-B-32",
}


def test_names_are_sorted_unique_and_known_to_open_clip() -> None:
    names = clip_core.list_models()
    assert len(names) == len(set(names))
    assert {"tiny", "ViT-B-32", "ViT-B-32-quickgelu", "ViT-bigG-14"} <= set(names)
    assert set(names) - {"tiny"} - NEWER <= set(open_clip.list_models())
    assert names == sorted(names, key=str.lower)


def test_quickgelu_names_are_aliases_that_differ_in_the_activation_only() -> None:
    plain, alias = clip_core.get_config("ViT-B-32"), clip_core.get_config("ViT-B-32-quickgelu")
    assert (plain.image.activation, alias.image.activation, alias.text.activation) == ("gelu", *["quick_gelu"] * 2)
    assert alias.with_activation("gelu") == plain


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(UnknownModel, match=r"Unknown model 'vit-b32'. Did you mean ViT-B-32,"):
        clip_core.create_model("vit-b32")
    with pytest.raises(UnknownModel, match=r"'zzzzzz'. There are .+, .+ \.\.\.\. clip_core.list_models\(\)"):
        clip_core.get_tokenizer("zzzzzz")
    with pytest.raises(UnknownModel, match="is a string, not 3"):
        clip_core.create_model(3)  # type: ignore[arg-type]


def test_openais_spelling_is_understood() -> None:
    assert clip_core.get_config("ViT-B/32") is clip_core.get_config("ViT-B-32")
