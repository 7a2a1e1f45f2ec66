"""Averages of checkpoints: equal to torch's of the state dicts, in memory that does not grow with them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import clip_core
from clip_core import Bundle
from clip_core.building import build
from clip_core.config import ResNetConfig, VitConfig
from clip_core.errors import CheckpointMismatch, ConfigError
from clip_core.presets.parts import model as whole_model
from clip_core.presets.parts import text_tower
from clip_core.weights import read_weights
from clip_hub.soup import _integers, extract_ema, interpolate, soup
from clip_hub.tensor_file import Entry
from fine_tunes import fine_tunes


def tensors(folder: Path) -> dict[str, Tensor]:
    return read_weights(folder / "model.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    return fine_tunes(tmp_path_factory.mktemp("runs"))


def changed(folder: Path, target: Path, **values: Tensor) -> Path:
    """The bundle in `folder` with other tensors, in `target`."""
    from safetensors.torch import save_file

    target.mkdir()
    (target / "clip_config.json").write_bytes((folder / "clip_config.json").read_bytes())
    save_file({**tensors(folder), **values}, target / "model.safetensors")
    return target


def test_a_uniform_soup_is_the_mean_of_the_state_dicts_bit_for_bit(runs: list[Path], tmp_path: Path) -> None:
    held = [tensors(run) for run in runs]
    found = tensors(soup(runs, tmp_path / "soup"))
    assert found.keys() == held[0].keys()
    for key, value in found.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, torch.stack([each[key] for each in held]).mean(0)), key
        assert torch.equal(value, (held[0][key] + held[1][key] + held[2][key]) / 3), key
    # As it is stored: the logarithm is averaged, not the scale.
    assert torch.equal(found["logit_scale"], sum(each["logit_scale"] for each in held) / 3)
    clip_core.load(tmp_path / "soup")


def test_weights_count_by_their_ratios(runs: list[Path], tmp_path: Path) -> None:
    a, b, c = (tensors(run) for run in runs)
    found = tensors(soup(runs, tmp_path / "soup", weights=[2, 0, 6]))
    for key, value in found.items():
        assert torch.equal(value, (a[key] * 2 + c[key] * 6) / 8)
        torch.testing.assert_close(
            value.double(), 0.25 * a[key].double() + 0.75 * c[key].double(), rtol=1e-6, atol=1e-8
        )
        assert not torch.equal(value, b[key])


def test_the_sum_is_in_float32_and_the_result_in_the_dtype_of_the_first(runs: list[Path], tmp_path: Path) -> None:
    halves = []
    for number, run in enumerate(runs):
        bundle = clip_core.load(run, precision="bf16")
        halves.append(clip_core.save(bundle, tmp_path / f"bf16-{number}"))
    held = [tensors(half) for half in halves]
    found = tensors(soup(halves, tmp_path / "soup"))
    whole = tensors(soup(halves, tmp_path / "whole", dtype="fp32"))
    for key, value in found.items():
        mean = torch.stack([each[key].float() for each in held]).mean(0)
        kept = key == "logit_scale"
        assert value.dtype == (torch.float32 if kept else torch.bfloat16)
        assert torch.equal(value, mean.to(value.dtype)), key
        assert torch.equal(whole[key], mean), key
    mixed = tensors(soup([runs[0], halves[1]], tmp_path / "mixed"))
    assert torch.equal(mixed["text_projection"], (tensors(runs[0])["text_projection"] + held[1]["text_projection"]) / 2)
    assert tensors(soup(runs, tmp_path / "fp16", dtype="fp16"))["text_projection"].dtype == torch.float16


def test_layouts_mix_and_their_tensors_are_found_by_our_names(runs: list[Path], tmp_path: Path) -> None:
    bundles = [clip_core.load(run) for run in runs]
    openclip = clip_core.export(bundles[0], tmp_path / "openclip")
    transformers = clip_core.export(bundles[1], tmp_path / "transformers", "transformers")
    wrapped = {f"module.{key}": value for key, value in bundles[2].model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": wrapped, "optimizer": {"state": {}}}, tmp_path / "epoch_3.pt")
    found = tensors(soup([openclip, transformers, f"tiny:{tmp_path / 'epoch_3.pt'}"], tmp_path / "soup"))
    for key, value in tensors(soup(runs, tmp_path / "plain")).items():
        assert torch.equal(found[key], value), key


def test_the_record_says_what_went_in(runs: list[Path], tmp_path: Path) -> None:
    import hashlib

    record = json.loads((soup(runs[:2], tmp_path / "soup", weights=[1, 3]) / "soup.json").read_text())
    assert record["kind"] == "soup"
    assert [entry["weight"] for entry in record["checkpoints"]] == [0.25, 0.75]
    assert [entry["name"] for entry in record["checkpoints"]] == [f".../{run.name}" for run in runs[:2]]
    for run, entry in zip(runs, record["checkpoints"], strict=False):
        digest = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
        assert entry["sha256"] == {"model.safetensors": digest}
    # A second time only when asked, and then the record is replaced with the rest.
    with pytest.raises(ConfigError, match="already exists"):
        soup(runs, tmp_path / "soup")
    assert (
        len(json.loads((soup(runs, tmp_path / "soup", overwrite=True) / "soup.json").read_text())["checkpoints"]) == 3
    )


def test_models_that_differ_are_refused_by_the_fields_that_do(runs: list[Path], tmp_path: Path) -> None:
    bundle = clip_core.load(runs[1])
    preprocess = dataclasses.replace(bundle.config.preprocess, mean=(0.5, 0.5, 0.5))
    other = dataclasses.replace(bundle.config, preprocess=preprocess)
    seen = clip_core.save(dataclasses.replace(bundle, config=other), tmp_path / "seen")
    with pytest.raises(CheckpointMismatch, match=r"preprocess.mean is \[0.48.*and \[0.5, 0.5, 0.5\]"):
        soup([runs[0], seen], tmp_path / "soup")
    quick = dataclasses.replace(bundle, config=bundle.config.with_activation("quick_gelu"))
    active = clip_core.save(quick, tmp_path / "active")
    with pytest.raises(CheckpointMismatch, match="image.activation is 'gelu' and 'quick_gelu'"):
        soup([runs[0], active], tmp_path / "soup")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["active", "seen"]


def test_of_counts_the_largest_is_taken_and_said(tmp_path: Path, caplog) -> None:
    image = ResNetConfig(image_size=64, layers=(1, 1, 1, 1), width=8, heads=4)
    torch.manual_seed(0)
    config = whole_model(32, image, text_tower(64, 1, 1, context_length=8))
    folders = [clip_core.save(Bundle.of(build(config)), tmp_path / name) for name in "ab"]
    found = tensors(soup(folders, tmp_path / "soup"))
    assert found["visual.bn1.num_batches_tracked"].dtype == torch.int64
    assert "largest_taken_of" not in json.loads((tmp_path / "soup" / "soup.json").read_text())
    name = "visual.bn1.num_batches_tracked"
    changes = {name: torch.tensor(7), "visual.bn1.running_var": torch.full_like(found["visual.bn1.running_var"], 3.0)}
    other = soup([changed(folders[1], tmp_path / "c", **changes), folders[0]], tmp_path / "other")
    assert int(tensors(other)[name]) == 7
    assert torch.equal(tensors(other)["visual.bn1.running_var"], torch.full_like(found["visual.bn1.running_var"], 2.0))
    assert json.loads((other / "soup.json").read_text())["largest_taken_of"] == [name]
    assert f"the largest is taken of 1 counts that differ: {name}" in caplog.text


def test_other_integers_must_be_equal() -> None:
    entry = Entry("table", torch.int64, (2,))
    parts = [torch.tensor([1, 2]), torch.tensor([1, 3])]
    sources = [SimpleNamespace(name=name) for name in "ab"]
    assert torch.equal(_integers(parts[:1] * 2, entry, sources), parts[0])
    with pytest.raises(
        CheckpointMismatch, match="table holds integers, which have no average, and differs between a and"
    ):
        _integers(parts, entry, sources)


def test_what_is_not_finite_is_named_and_nothing_is_left(runs: list[Path], tmp_path: Path) -> None:
    weight = tensors(runs[1])["text_projection"].clone()
    weight[3, 4] = torch.nan
    broken = changed(runs[1], tmp_path / "broken", text_projection=weight)
    with pytest.raises(CheckpointMismatch, match="text_projection of .*broken has values that are not finite"):
        soup([runs[0], broken], tmp_path / "soup")
    large = changed(runs[1], tmp_path / "large", text_projection=torch.full_like(weight, 3e5))
    with pytest.raises(CheckpointMismatch, match="text_projection of the result is beyond the range of torch.float16"):
        soup([runs[0], large], tmp_path / "soup", dtype="fp16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "large"]


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (1, {}, "no soup; give two or more"),
        (2, {"weights": [1]}, "1 weights for 2 checkpoints"),
        (2, {"weights": [1, -1]}, "allowed: finite numbers of 0 or more"),
        (2, {"weights": [0, 0]}, "not all 0"),
        (2, {"weights": [1, float("nan")]}, "allowed: finite"),
        (2, {"dtype": "int8"}, "dtype is 'int8'; allowed: fp32, bf16, fp16"),
    ],
)
def test_mistakes_are_named(runs: list[Path], tmp_path: Path, count: int, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        soup(runs[:count], tmp_path / "soup", **options)


def test_interpolation_begins_at_the_first_and_ends_at_the_second(runs: list[Path], tmp_path: Path) -> None:
    zero, some, one = interpolate(runs[0], runs[1], tmp_path / "line", alphas=[0, 0.3, 1])
    assert [path.name for path in (zero, some, one)] == ["alpha-0", "alpha-0.3", "alpha-1"]
    a, b = tensors(runs[0]), tensors(runs[1])
    for key in a:
        assert torch.equal(tensors(zero)[key], a[key])
        assert torch.equal(tensors(one)[key], b[key])
        assert torch.equal(tensors(some)[key], 0.7 * a[key] + 0.3 * b[key])
    record = json.loads((some / "soup.json").read_text())
    assert (record["kind"], record["alpha"]) == ("interpolation", 0.3)
    assert interpolate(runs[0], runs[1], tmp_path / "half") == [tmp_path / "half"]
    for wrong in ([], [1.5], [0.5, 0.5], [float("nan")]):
        with pytest.raises(ConfigError, match="allowed: numbers from 0"):
            interpolate(runs[0], runs[1], tmp_path / "other", alphas=wrong)


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema"])
def test_the_moving_average_of_a_training_checkpoint_is_taken_out(runs: list[Path], tmp_path: Path, key: str) -> None:
    averaged = {f"module.{name}": value for name, value in tensors(runs[1]).items()}
    torch.save({"epoch": 2, "state_dict": tensors(runs[0]), key: averaged}, tmp_path / "last.pth.tar.pt")
    found = tensors(extract_ema(f"tiny:{tmp_path / 'last.pth.tar.pt'}", tmp_path / "ema"))
    for name, value in tensors(runs[1]).items():
        assert torch.equal(found[name], value)
    assert json.loads((tmp_path / "ema" / "soup.json").read_text())["kind"] == "moving average"
    with pytest.raises(CheckpointMismatch, match="pass ema=True"):
        soup([runs[0], f"tiny:{tmp_path / 'last.pth.tar.pt'}"], tmp_path / "soup")
    torch.save({"state_dict": tensors(runs[0])}, tmp_path / "plain.pt")
    with pytest.raises(CheckpointMismatch, match="does not hold a moving average"):
        extract_ema(f"tiny:{tmp_path / 'plain.pt'}", tmp_path / "none")


CHILD = """
import ctypes, gc, json, re, sys
from clip_hub.soup import soup
def memory(field):
    return int(re.search(field + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
tiny, *cases = json.load(open(sys.argv[1]))
soup([tiny, tiny], tiny + "-soup")  # what is imported and made once
found = []
for names, folder in cases:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")  # the peak from here on
    base = memory("VmRSS")
    soup(names, folder)
    found.append(memory("VmHWM") - base)
print(json.dumps(found))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc of Linux")
def test_memory_is_that_of_pieces_and_not_of_checkpoints(runs: list[Path], tmp_path: Path) -> None:
    config = whole_model(
        128,
        VitConfig(image_size=64, patch_size=32, width=768, layers=5, heads=12, mlp_dim=3072, activation="gelu"),
        text_tower(128, 1, 2, context_length=8),
    )
    torch.manual_seed(0)
    bundle = Bundle.of(build(config))
    one = clip_core.save(bundle, tmp_path / "one")
    size = (one / "model.safetensors").stat().st_size
    assert size > 150e6
    openclip = clip_core.export(bundle, tmp_path / "openclip")
    transformers = clip_core.export(bundle, tmp_path / "transformers", "transformers")
    # Names of one file again and again: each is opened and mapped by itself.
    cases = [
        ([str(one), str(openclip), str(one), str(openclip)], str(tmp_path / "four")),
        ([str(transformers)] * 3, str(tmp_path / "rearranged")),
    ]
    (tmp_path / "cases.json").write_text(json.dumps([str(runs[0]), *cases]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path / "cases.json")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert not done.returncode, done.stderr
    four, rearranged = json.loads(done.stdout.splitlines()[-1])
    # Five files of this size are open; what is held is small pieces of each, and four models without values.
    assert four < size / 3, (four, size)
    # Query, key and value lie apart in transformers' files: those of one checkpoint are put together in memory.
    assert rearranged < size / 2, (rearranged, size)
