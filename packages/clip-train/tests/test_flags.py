from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import pytest

from clip_core.errors import ConfigError
from clip_core.schema import Schema
from clip_train import flags
from clip_train.beginnings import complete
from clip_train.config import KeyValues
from clip_train.config.flag import flag as declare
from clip_train.flags import build_parser, not_built, parse, read
from clip_train.peer_flags import MAIN, NEVER, NOT_NEEDED, VERSION_3

pytestmark = pytest.mark.parity

BASE = ["--train-data", "a.tar", "--model", "tiny"]


def config(*words: str) -> Any:
    return parse([*BASE, *words])[0]


@pytest.fixture(scope="module")
def peer() -> argparse.ArgumentParser:
    """open_clip's parser, taken at the moment at which it parses."""
    from open_clip_train import params

    taken: list[argparse.ArgumentParser] = []

    class Taken(Exception):
        pass

    def take(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        taken.append(self)
        raise Taken

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", take)
        with pytest.raises(Taken):
            params.parse_args([])
    return taken[0]


def flags_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {flag: action for action in parser._actions for flag in action.option_strings if flag.startswith("--")}


def test_every_flag_of_open_clip_is_known(peer: argparse.ArgumentParser) -> None:
    assert not set(flags_of(peer)) - set(flags_of(build_parser()))


def test_the_rows_of_3_3_0_are_those_of_its_parser(peer: argparse.ArgumentParser) -> None:
    assert {f"--{name}" for name in VERSION_3} | {"--help"} == set(flags_of(peer))
    # 145 flags in both versions together, one of them with two names.
    assert (len(VERSION_3), len(set(MAIN)), len({*VERSION_3, *MAIN} - {"visual-layer-decay"})) == (90, 143, 145)


def test_every_flag_of_either_version_is_a_field_or_refused_by_name() -> None:
    here, later = flags_of(build_parser()), not_built()
    for name in {*VERSION_3, *MAIN}:
        refused = type(here[f"--{name}"]).__name__ == "_Refuse"
        assert refused == (name in later or name in NEVER), name


@pytest.mark.parametrize("version", [VERSION_3, MAIN], ids=["3.3.0", "main"])
def test_a_beginning_that_is_unique_there_means_the_same_flag_here(version: tuple[str, ...]) -> None:
    known = [*flags_of(build_parser()), "--save-final", "--no-reset", "--wands"]
    checked = 0
    for flag in version:
        for end in range(1, len(flag) + 1):
            there = [other for other in (*version, "help") if other.startswith(flag[:end])]
            if len(there) == 1:
                assert complete([f"--{flag[:end]}", f"--{flag[:end]}=3 4"], known) == [f"--{flag}", f"--{flag}=3 4"]
                checked += 1
    assert checked > 600


def test_no_flag_of_ours_is_a_beginning_of_one_of_open_clips() -> None:
    theirs = [f"--{name}" for name in {*VERSION_3, *MAIN}]
    for ours in set(flags_of(build_parser())) - set(theirs) - {"--help"}:
        assert not [name for name in theirs if name.startswith(ours)], ours


def test_a_beginning_of_several_flags_names_them() -> None:
    with pytest.raises(ConfigError, match="--csv is the beginning of --csv-caption-key, --csv-img-key, --csv-sep"):
        config("--csv", "3")


def test_a_beginning_may_be_a_flag_of_ours_and_a_value_is_left_alone() -> None:
    assert parse([*BASE, "--progr"])[1].progress is True
    assert config("--name", "--lr is low", "--clip-grad", "2").run.name == "--lr is low"
    assert config("--clip-grad=2").optim.grad_clip_norm == 2
    assert config("--batch_size=3", "--name", "a_b").optim.batch_size == 3


def test_defaults_are_those_of_open_clip_unless_the_readme_says_so(peer: argparse.ArgumentParser) -> None:
    resolved = config().fields()
    theirs = {action.dest: action.default for action in peer._actions}
    given = {"train_data", "model"}
    # open_clip fills Adam's in later, from the name of the model, which test_config compares.
    later = {"lr", "beta1", "beta2", "eps"}
    other = {"device", "precision", "loss_dist_impl", "aug_cfg"}
    compared = set(resolved) & set(theirs) - given - later - other
    assert len(compared) > 60
    assert {name: resolved[name] for name in compared} == {name: theirs[name] for name in compared}


def test_values_reach_their_fields() -> None:
    made = config(
        "--batch-size", "7", "--lr", "1e-3", "--beta2", "0.9", "--wd", "0.1", "--lr-scheduler", "const",
        "--image-mean", "0.1", "0.2", "0.3", "--aug-cfg", "scale=(0.5, 1.0)", "ratio=[0.9,1.1]",
        "--precision", "amp_bfloat16", "--pretrained", "", "--debug", "--name", "n",
    )  # fmt: skip
    assert (made.optim.batch_size, made.optim.lr, made.optim.beta2, made.optim.wd) == (7, 1e-3, 0.9, 0.1)
    assert made.optim.lr_scheduler == "const"
    assert made.model.image_mean == (0.1, 0.2, 0.3)
    assert made.data.aug_cfg.ratio == (0.9, 1.1)
    assert (made.run.precision, made.logging.debug, made.run.name) == ("amp_bf16", True, "n")


def test_the_ways_of_open_clips_sigmoid_loss_are_names_of_ours() -> None:
    ours = {None: "gather", "gather": "gather", "ring": "ring", "bidir": "ring", "shift": "ring", "reduce": "gather"}
    for given, resolved in ours.items():
        words = [] if given is None else ["--loss-dist-impl", given]
        assert config("--siglip", *words).objective.loss_dist_impl == resolved


def test_flags_of_the_loss_reach_their_fields() -> None:
    made = config("--siglip", "--local-loss", "--gather-with-grad").objective
    assert (made.siglip, made.local_loss, made.gather_with_grad) == (True, True, True)


def test_aug_cfg_takes_the_spelling_that_a_shell_leaves() -> None:
    assert config("--aug-cfg", "scale=(0.5, 1.0)").data.aug_cfg.scale == (0.5, 1.0)


def test_the_augmentation_of_the_convnext_card_is_understood() -> None:
    made = config("--aug-cfg", "use_timm=True", "scale=(0.5, 1.0)", "re_prob=0.4").data.aug_cfg
    assert (made.use_timm, made.scale, made.re_prob) == (True, (0.5, 1.0), 0.4)


def test_open_clips_word_for_patches_in_aug_cfg_goes_with_its_flag() -> None:
    flags = ["--use-naflex", "--aug-cfg", "use_timm=True", "scale=(0.5, 1.0)"]
    assert config(*flags, "naflex=True") == config(*flags)
    assert config("--aug-cfg", "naflex=False") == config()
    for words in (["--aug-cfg", "use_timm=True", "naflex=True"], [*flags, "naflex=False"]):
        with pytest.raises(ConfigError, match=r"aug_cfg has naflex=(True|False), which goes by --use-naflex"):
            config(*words)


def test_a_later_flag_overrides_an_earlier_one() -> None:
    assert config("--epochs", "3", "--epochs", "5").optim.epochs == 5


@pytest.mark.parametrize("flag", ["--grad-clip-norm", "--clip-grad-norm", "--grad-clip"])
def test_both_spellings_of_gradient_clipping(flag: str) -> None:
    assert config(flag, "1").optim.grad_clip_norm == 1.0


def test_progress_is_no_part_of_the_configuration() -> None:
    plain, bar = parse([*BASE]), parse([*BASE, "--progress"])
    assert plain[0] == bar[0]
    assert (plain[1].progress, bar[1].progress) == (None, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batchsize", "3"], r"Unknown flag --batchsize.*--batch-size"),
        (["--modle=tiny"], r"Unknown flag --modle.*--model"),
        (["--aug-cfg", "sclae=(0.5,1)"], r"'sclae'.*scale"),
        (["--aug-cfg", "scale"], r"'scale' is not key=value"),
        (["--aug-cfg", "scale=x=[1"], r"scale.*tuple"),
        (["--lr", "fast"], r"--lr.*'fast'"),
        (["--lr", "-1"], r"lr is -1.0"),
        (["--precision", "int3"], r"'int3'.*fp32"),
        (["--loss-dist-impl", "tree"], r"'tree': allowed: gather, ring; open_clip's bidir, shift, reduce are taken"),
        (["--siglips"], r"Unknown flag --siglips\. Did you mean --siglip\?"),
        (["--progres-bar"], r"Did you mean --progress\?"),
        (["--horovodd"], r"Unknown flag --horovodd\. clip-train --help"),
        (["--horo", "--torchscript"], r"--horovod: .*--torchscript: "),
        (["--horovod"], r"--horovod: torch's own engine"),
        (["--audio-ext", "wav"], r"--audio-ext: .*not on sound"),
        (["stray"], r"Not understood: 'stray'"),
        (["--image-mean", "0.5"], r"image_mean"),
    ],
)
def test_what_is_wrong_is_named(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(*words)


def test_a_flag_that_is_not_needed_is_taken_and_named() -> None:
    given = read([*BASE, "--length-bucketing", "--bucket-pool", "2048", "--text-pad-mult=8"])
    assert given.resolve() == config()
    said = [sentence.split()[0] for sentence in given.not_needed]
    assert said == ["--length-bucketing", "--bucket-pool", "--text-pad-multiple"]
    assert not {*NOT_NEEDED} & {*not_built(), *NEVER}


@pytest.mark.parametrize("flag", [*not_built(), *NEVER])
def test_a_flag_that_is_not_built_is_never_ignored(flag: str) -> None:
    with pytest.raises(ConfigError, match=f"--{flag}: "):
        config(f"--{flag}")


def test_help_shows_every_field_and_no_flag_that_is_refused() -> None:
    refused = {*not_built(), *NEVER}
    for flag, action in flags_of(build_parser()).items():
        assert (action.help == argparse.SUPPRESS) == (flag.removeprefix("--") in refused), flag
        assert action.help, flag


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Every(Schema):
    """One field of each type that a flag may have."""

    names: tuple[str, ...] = declare((), help="any number of names")
    size: int | tuple[int, int] | None = declare(None, help="one or two")
    extras: KeyValues = declare((), help="pairs")
    quick: bool = declare(True, help="on unless told otherwise")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--names"], {"names": ()}),
        (["--names", "a", "b"], {"names": ("a", "b")}),
        (["--size", "224"], {"size": 224}),
        (["--size", "224", "320"], {"size": (224, 320)}),
        (["--extras", "b=2", "a=x=y"], {"extras": (("a", "x=y"), ("b", 2))}),
        (["--no-quick"], {"quick": False}),
    ],
)
def test_a_field_of_each_type_becomes_a_flag(
    words: list[str], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flags, "groups", lambda: {"run": Every})
    found = vars(flags.build_parser().parse_args(words))
    assert found == expected
    assert Every.from_json(Every(**found).to_json()) == Every(**found)
