"""Recipes are held against what their sources print: numbers here are from those sources, not from our code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import clip_core
import clip_hub
from clip_core.errors import ConfigError
from clip_train import cli
from clip_train.config import groups
from clip_train.flags import parse, read
from clip_train.recipes import NOT_PUBLISHED, RECIPES, find, find_for_tag, vit
from clip_train.recipes.recipe import Recipe, recipe

PAGE = Path(__file__).with_name("pretrained_page.txt")
DATA = "a.tar"


def given_weights(made: Recipe) -> dict[str, str]:
    return {"pretrained": "weights.pt"} if made.begins_from else {}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_configuration_of_a_model_that_is_known(name: str) -> None:
    made = RECIPES[name]
    stated = made.stated()
    config = made(DATA, **given_weights(made))
    clip_core.get_config(config.model.model)
    assert made.summary.endswith(".")
    assert "\n" not in made.summary
    assert config.optim.batch_size * (made.processes or 1) == made.global_batch
    found = config.fields()
    for key, value in stated.items():
        given = {name: getattr(found[key], name) for name in value} if key == "aug_cfg" else found[key]
        assert given == value, key


@pytest.mark.parametrize("processes", [1, 8, 32])
def test_a_recipe_keeps_its_global_batch_on_any_number_of_processes(processes: int) -> None:
    for made in RECIPES.values():
        if made.global_batch % processes:
            with pytest.raises(ConfigError, match=f"{made.global_batch}, which {processes} processes cannot share"):
                made.fields(processes)
            continue
        fields = made.fields(processes)
        assert fields["batch_size"] * fields.get("accum_freq", 1) * processes == made.global_batch, made.name
        assert 2 <= fields["batch_size"] <= made.global_batch // (made.processes or 1), made.name


def test_the_tags_of_a_recipe_are_known_and_are_of_its_model() -> None:
    for made in RECIPES.values():
        for tag in made.tags:
            model = made.stated()["model"]
            row = clip_hub.find(*tag.split(":"))
            assert row.name == tag
            assert model.removesuffix("-quickgelu") == row.model
            # What activation it has to be trained with is a fact about the weights.
            config = clip_core.get_config(model)
            found = {getattr(tower, "activation", row.activation) for tower in (config.image, config.text)}
            assert found == {row.activation}, tag


def test_every_tag_of_the_page_of_pretrained_models_has_a_recipe_or_a_reason() -> None:
    names = PAGE.read_text(encoding="utf-8").split()
    assert len(names) == 86
    without = []
    for name in names:
        found, why = find_for_tag(name)
        assert bool(found) != bool(why), name
        if why:
            without.append(clip_hub.find(*name.split(":")).name)
    assert sorted(without) == sorted(NOT_PUBLISHED)


def test_the_card_of_vit_g_14_is_kept_to_the_letter() -> None:
    config = vit.vit_g_14_laion2b(DATA)
    assert config.optim.epochs * (config.data.train_num_samples or 0) == 34_560_000_000
    assert (config.optim.warmup, config.optim.lr, config.optim.wd, config.optim.batch_size) == (13500, 1e-3, 0.2, 60)
    assert (vit.vit_g_14_laion2b.global_batch, vit.vit_g_14_laion2b.processes) == (88800, 1480)


def test_the_fine_tunes_of_the_soup_have_the_published_samples_and_rates() -> None:
    published = {1e-4: 3.2e9, 6e-5: 2e9, 5e-5: 2.5e9}
    found = {}
    for made in find_for_tag("convnext_large_d_320:laion2b_s29b_b131k_ft_soup")[0]:
        fields = made.stated()
        found[fields["lr"]] = fields["epochs"] * fields["train_num_samples"]
    assert found == pytest.approx(published, rel=0.03)


def test_what_is_seen_is_what_the_name_of_the_weights_says() -> None:
    """A tag like laion2b_s34b_b88k states samples and batch; a recipe that differs says so."""
    billions = {"s13m": 0.0128, "s128m": 0.128, "s1b": 1.28}
    for made in RECIPES.values():
        for tag in made.tags:
            seen = next((part for part in tag.split("_") if part in billions or part[1:-1].isdigit()), None)
            if (
                seen is None
                or seen[0] != "s"
                or "_ft" in tag
                or "finetuned" in tag
                or "rewind" in tag
                or "_336" in made.name
            ):
                continue
            expected = billions.get(seen) or float(seen[1:-1])
            fields = made.stated()
            total = fields["epochs"] * fields["train_num_samples"] / 1e9
            assert total == pytest.approx(expected, rel=0.05) or "where the name says" in made.differs, (tag, total)


def test_names_may_have_dashes_and_a_tag_finds_its_recipe() -> None:
    assert find("ViT-H-14-laion2b") is find("ViT-H-14:laion2b_s32b_b79k") is vit.vit_h_14_laion2b


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit_h_14_laion", "Did you mean .*vit_h_14_laion2b"),
        ("convnext_xxlarge:laion2b_s34b_b82k_augreg_soup", "several recipes: convnext_xxlarge_laion2b_augreg, conv"),
        ("ViT-bigG-14:laion2b_s39b_b160k", "no recipe: its model card"),
        ("ViT-B-32:metaclip_400m", "no procedure is known"),
    ],
)
def test_a_name_without_a_recipe_says_why(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        find(name)


def test_flags_and_files_win_over_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("warmup = 5\nlr = 0.5\n", encoding="utf-8")
    words = ["--recipe", "vit-h-14-laion2b", "--lr", "0.25", "--config", str(file), "--train-data", DATA]
    config = parse(words)[0]
    assert (config.optim.epochs, config.optim.warmup, config.optim.lr) == (256, 5, 0.25)
    origins = read(words).origins
    assert [origins[name] for name in ("epochs", "warmup", "lr")] == ["recipe", str(file), "flag"]


def test_a_recipe_is_shared_by_the_processes_that_were_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--recipe", "vit-b-32-laion400m", "--train-data", DATA]
    for name, value in {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    optim = parse(words)[0].optim
    assert (optim.batch_size, optim.accum_freq) == (256, 16)
    # What somebody states is theirs.
    optim = parse([*words, "--batch-size", "4"])[0].optim
    assert (optim.batch_size, optim.accum_freq) == (4, 1)


def test_a_recipe_that_begins_from_weights_asks_for_them() -> None:
    with pytest.raises(ConfigError, match=r"begins from convnext_large_d:laion2b.*--pretrained"):
        parse(["--recipe", "convnext_large_d_320_ft", "--train-data", DATA])
    with pytest.raises(ConfigError, match=r"--pretrained"):
        find("convnext_large_d_320_ft")(DATA)
    lit = find("xlm_roberta_large_vit_h_14_laion5b")(DATA, pretrained_image_path="h14").model
    assert (lit.lock_image, lit.lock_text, lit.pretrained_text) == (True, False, True)


def test_the_commands_list_show_and_train(shards: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*RECIPES, *NOT_PUBLISHED))
    assert cli.main(["recipes", "vit-b-16-plus-240-laion400m"]) == 0
    told = capsys.readouterr().out
    assert "Learning rate and warm-up are not stated" in told
    assert "35840 of 224 processes" in told
    for before in ([], ["recipe"], ["--recipe"]):
        assert cli.main(["show", *before, "vit-b-16-plus-240-laion400m", "--train-data", shards]) == 0
        optim = json.loads(capsys.readouterr().out)["optim"]
        assert optim["batch_size"] * optim["accum_freq"] == 35840
    assert cli.main(["show", "vit-b-16-plus-laion400m", "--train-data", shards]) == 2
    assert "Did you mean vit_b_16_plus_240_laion400m" in capsys.readouterr().err
    words = [
        "vit-b-32-laion400m", "--train-data", shards, "--model", "tiny", "--batch-size", "8", "--epochs", "1",
        "--workers", "0", "--device", "cpu", "--precision", "fp32", "--logs", str(tmp_path),
    ]  # fmt: skip
    assert cli.main(["recipe", *words]) == 0
    out, err = capsys.readouterr()
    assert "5 steps and 40 samples" in out
    assert "The published global batch is 32768; this run's is 8." in err


def test_two_recipes_of_one_name_are_a_mistake_that_this_test_finds() -> None:
    fields = {field for record in groups().values() for field in record.__dataclass_fields__}
    assert not set(RECIPES) & fields
    before = dict(RECIPES)
    try:

        @recipe(source="nowhere", global_batch=8)
        def made_here() -> dict[str, object]:
            """A recipe of a test."""
            return {"model": "tiny"}

        assert made_here(DATA).optim.batch_size == 8
    finally:
        RECIPES.clear()
        RECIPES.update(before)
