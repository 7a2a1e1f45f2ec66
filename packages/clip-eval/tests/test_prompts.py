"""The words that come with the package (`clip_eval.prompts.packaged`), and a user's own (`clip_eval.prompts.files`)."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from clip_core.errors import ClipError, ConfigError, DataError
from clip_eval.catalogue import entries, find
from clip_eval.prompts import check_class_prompts, languages_for, prompts_for, read_classnames, read_templates

# How many templates CLIP_benchmark has for each set, counted by hand in its file.
_TEMPLATES = {
    "imagenet1k": 80,
    "imagenetv2": 80,
    "imagenet_sketch": 80,
    "imagenet-a": 80,
    "imagenet-r": 80,
    "objectnet": 80,
    "fer2013": 6,
    "voc2007": 1,
    "voc2007_multilabel": 1,
    "sun397": 2,
    "cars": 8,
    "fgvc_aircraft": 2,
    "mnist": 1,
    "stl10": 2,
    "gtsrb": 3,
    "country211": 5,
    "renderedsst2": 1,
    "food101": 1,
    "vtab/caltech101": 34,
    "vtab/cifar10": 18,
    "vtab/cifar100": 18,
    "vtab/clevr_count_all": 1,
    "vtab/dmlab": 1,
    "vtab/dtd": 8,
    "vtab/clevr_closest_object_distance": 1,
    "vtab/diabetic_retinopathy": 1,
    "vtab/eurosat": 3,
    "vtab/flowers": 1,
    "vtab/dsprites_label_orientation": 4,
    "vtab/dsprites_label_x_position": 1,
    "vtab/pets": 1,
    "vtab/pcam": 2,
    "vtab/kitti_closest_vehicle_distance": 1,
    "vtab/resisc45": 4,
    "vtab/smallnorb_label_azimuth": 4,
    "vtab/smallnorb_label_elevation": 4,
    "vtab/svhn": 6,
}
_LANGUAGES = {"en": 80, "it": 49, "jp": 37, "cn": 80, "ar": 55}


@pytest.mark.parametrize(("name", "count"), _TEMPLATES.items())
def test_templates_of_each_set(name: str, count: int) -> None:
    templates = prompts_for(name).templates
    assert isinstance(templates, tuple)
    assert len(templates) == count
    assert all("{c}" in template for template in templates)


def test_class_names_are_as_many_as_the_classes() -> None:
    named = 0
    for entry in entries():
        for language in languages_for(entry.name):
            names = prompts_for(entry.name, language).classnames
            if names is not None:
                named += 1
                assert len(names) == entry.classes, (entry.name, language)
    assert named > 20


def test_a_set_without_words_is_read_with_its_own() -> None:
    assert prompts_for("cars").classnames is None
    assert prompts_for("objectnet").classnames is None
    # No templates of ImageNet step in.
    assert prompts_for("vtab/dsprites_label_y_position") == (None, None)
    assert prompts_for("a set of one's own") == (None, None)


def test_languages_of_imagenet() -> None:
    assert languages_for("imagenet1k") == tuple(_LANGUAGES)
    for language, count in _LANGUAGES.items():
        names, templates = prompts_for("imagenet1k", language)
        assert names is not None
        assert len(names) == 1000
        assert templates is not None
        assert len(templates) == count
    assert prompts_for("imagenet1k", "zh") == prompts_for("imagenet1k", "cn")
    assert prompts_for("imagenet1k", "ja") == prompts_for("imagenet1k", "jp")


def test_what_is_odd_is_kept() -> None:
    names = prompts_for("imagenet1k").classnames
    assert names is not None
    assert {name for name, count in Counter(names).items() if count > 1} == {"missile", "sunglasses"}
    assert (names[657], names[744], names[836], names[837]) == ("missile", "missile", "sunglasses", "sunglasses")
    distances = prompts_for("vtab/clevr_closest_object_distance").classnames
    assert distances is not None
    assert distances[3] == ""
    assert len(distances) == 6


def test_other_languages_name_more_classes_alike() -> None:
    doubled = {}
    for language in _LANGUAGES:
        names = prompts_for("imagenet1k", language).classnames
        assert names is not None
        doubled[language] = 1000 - len(set(names))
    assert doubled == {"en": 2, "it": 20, "jp": 9, "cn": 1, "ar": 4}


def test_the_variants_of_imagenet_have_a_part_of_its_names_in_its_order() -> None:
    every = prompts_for("imagenet1k").classnames
    italian = prompts_for("imagenet1k", "it").classnames
    assert every is not None
    assert italian is not None
    for name in ("imagenet-a", "imagenet-r", "imagenet-o"):
        part, other = prompts_for(name).classnames, prompts_for(name, "it").classnames
        assert part is not None
        assert other is not None
        assert len(part) == len(other) == 200
        places = [every.index(word) for word in part]
        assert places == sorted(places)
        assert [italian[place] for place in places] == list(other)
    # n01498041, the first class of ImageNet-A, is the stingray.
    assert prompts_for("imagenet-a").classnames[0] == every[6] == "stingray"  # type: ignore[index]


@pytest.mark.parametrize(("name", "language"), [("mnist", "it"), ("imagenet1k", "fr"), ("own", "de")])
def test_a_language_without_words_is_refused(name: str, language: str) -> None:
    with pytest.raises(ConfigError, match=f"no class names and templates in '{language}'. Languages that come"):
        prompts_for(name, language)


def test_captions_have_no_prompts() -> None:
    with pytest.raises(ConfigError, match=r"flickr30k: has captions, no classes. Languages of its captions: en, zh"):
        prompts_for("flickr30k", "zh")


def _write(path: Path, words: object) -> Path:
    path.write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
    return path


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    digits = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
    _write(tmp_path / "de_classnames.json", {"mnist": digits, "cifar10": ["Flugzeug"]})
    _write(tmp_path / "de_zeroshot_classification_templates.json", {"mnist": ["ein Foto der Zahl {c}."]})
    assert prompts_for("mnist", "de", folder=tmp_path) == (tuple(digits), ("ein Foto der Zahl {c}.",))
    # Found with and without the prefix; its templates are missing.
    with pytest.raises(ConfigError, match=r"there are no templates in 'de'"):
        prompts_for("wds/vtab/cifar10", "de", folder=tmp_path)
    # One's own words go before those of the package, which fill what is missing in the same language only.
    _write(tmp_path / "it_zeroshot_classification_templates.json", {"imagenet1k": ["una foto di {c}"]})
    assert prompts_for("imagenet1k", "it", folder=tmp_path).templates == ("una foto di {c}",)
    assert len(prompts_for("imagenet1k", "it", folder=tmp_path).classnames or ()) == 1000
    with pytest.raises(ConfigError, match="no such folder"):
        prompts_for("mnist", "de", folder=tmp_path / "nowhere")


def test_full_prompts_of_each_class(tmp_path: Path) -> None:
    path = _write(tmp_path / "full.json", {"own": {"cat": ["a cat with whiskers"], "dog": ["a dog", "a hound"]}})
    prompts = read_templates(path, "own")
    assert prompts == {"cat": ("a cat with whiskers",), "dog": ("a dog", "a hound")}
    assert isinstance(prompts, dict)
    check_class_prompts(prompts, ["dog", "cat", "cat"], "full.json")
    with pytest.raises(DataError, match=r"1 classes have no prompts \('cow'\); 1 names are no class \('dog'\)"):
        check_class_prompts(prompts, ["cat", "cow"], "full.json")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ({"own": ["a photo"]}, "no placeholder"),
        ({"own": {"cat": ["a {c}"]}}, "has a placeholder"),
        ({"own": []}, "one or more texts"),
        ({"own": [1]}, "one or more texts"),
        ({"other": ["{c}"]}, "has nothing for own; it has other"),
        ("text", "must be an object"),
    ],
)
def test_templates_that_are_wrong(tmp_path: Path, words: object, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        read_templates(_write(tmp_path / "bad.json", words), "own")


def test_class_names_of_a_file(tmp_path: Path) -> None:
    assert read_classnames(_write(tmp_path / "list.json", ["a", ""]), "own") == ("a", "")
    for path in (_write(tmp_path / "bad.json", {"own": "cat"}), tmp_path / "missing.json"):
        with pytest.raises(ClipError):
            read_classnames(path, "own")


def test_the_catalogue_promises_the_languages_that_there_are() -> None:
    for entry in entries():
        if entry.kind == "classification" and len(entry.languages) > 1:
            assert entry.languages == (languages_for(entry.name) or entry.languages)
    assert find("imagenet1k").languages == tuple(_LANGUAGES)
