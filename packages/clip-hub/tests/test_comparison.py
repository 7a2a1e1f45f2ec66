"""What `compare` says of two checkpoints, against differences that were put there."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import clip_core
from clip_hub.comparison import compare
from clip_hub.probe import run_probe
from fine_tunes import fine_tunes


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    return fine_tunes(tmp_path_factory.mktemp("runs"), 2)


def test_one_model_in_two_layouts_is_the_same(runs: list[Path], tmp_path: Path) -> None:
    other = clip_core.export(clip_core.load(runs[0]), tmp_path / "transformers", "transformers")
    found = compare(runs[0], other)
    assert found.same
    assert found.changed == ()
    assert found.compared == len(load_file(runs[0] / "model.safetensors"))
    assert found.cosine == pytest.approx(1, abs=1e-12)
    assert found.image_cosine == pytest.approx(1, abs=1e-6)
    assert found.to_json()["same"] is True


def test_values_are_compared_tensor_by_tensor(runs: list[Path]) -> None:
    first, second = (load_file(run / "model.safetensors") for run in runs)
    found = compare(*runs)
    assert not found.same
    assert len(found.changed) == len(first)
    for entry in found.changed:
        a, b = first[entry.name].double(), second[entry.name].double()
        assert entry.largest == float((a - b).abs().max())
        assert entry.relative == pytest.approx(float((a - b).abs().max() / a.abs().max()))
    assert [entry.relative for entry in found.changed] == sorted((e.relative for e in found.changed), reverse=True)
    flat = [torch.cat([held[key].double().reshape(-1) for key in first]) for held in (first, second)]
    assert found.cosine == pytest.approx(float(torch.cosine_similarity(flat[0], flat[1], dim=0)), abs=1e-9)
    probes = [run_probe(clip_core.load(run)) for run in runs]
    assert found.image_cosine == pytest.approx(
        float(torch.cosine_similarity(probes[0].image, probes[1].image).min()), abs=1e-5
    )
    assert found.text_cosine == pytest.approx(
        float(torch.cosine_similarity(probes[0].text, probes[1].text).min()), abs=1e-5
    )
    assert compare(*runs, features=False).image_cosine is None


def test_dtype_and_what_only_training_reads_leave_a_model_the_same(runs: list[Path], tmp_path: Path) -> None:
    bundle = clip_core.load(runs[0], precision="bf16")
    image = dataclasses.replace(bundle.config.image, patch_dropout=0.5)
    trained = dataclasses.replace(bundle.config, image=image)
    half = clip_core.save(dataclasses.replace(bundle, config=trained), tmp_path / "half")
    again = clip_core.save(clip_core.load(half), tmp_path / "again")
    found = compare(half, again, features=False)
    assert found.same
    assert {entry.dtypes for entry in found.changed} == {("bfloat16", "float32")}
    assert {entry.largest for entry in found.changed} == {0.0}
    assert compare(runs[0], half, features=False).other_fields == {"image.patch_dropout": (0.0, 0.5)}


def test_configurations_and_names_of_tensors_are_compared(runs: list[Path], tmp_path: Path) -> None:
    config = clip_core.get_config("tiny")
    image = dataclasses.replace(config.image, layers=2, mlp_dim=200)
    other = clip_core.ClipConfig.from_json({**config.to_json(), "image": image.to_json()})
    small = clip_core.save(clip_core.Bundle.of(clip_core.building.build(other)), tmp_path / "small")
    found = compare(runs[0], small)
    assert found.config == {"image.layers": (3, 2), "image.mlp_dim": (384, 200)}
    assert len(found.missing) == 12
    assert all(".resblocks.2." in name for name in found.missing)
    assert found.added == ()
    assert found.shapes["visual.transformer.resblocks.0.mlp.c_fc.bias"] == ((384,), (200,))
    assert compare(small, runs[0], features=False).added == found.missing


def test_values_that_are_no_numbers_are_not_lost(runs: list[Path], tmp_path: Path) -> None:
    folders = []
    for name, value in (("nan", torch.nan), ("one", 1.0)):
        tensors = load_file(runs[0] / "model.safetensors")
        tensors["ln_final.bias"][0] = value
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        (folders[-1] / "clip_config.json").write_bytes((runs[0] / "clip_config.json").read_bytes())
        save_file(tensors, folders[-1] / "model.safetensors")
    found = compare(*folders, features=False)
    assert [entry.name for entry in found.changed] == ["ln_final.bias"]
    assert math.isnan(found.changed[0].largest)
    assert not found.same
    assert compare(folders[0], folders[0], features=False).same
