"""`embed` and its command line: the right rows in the right order, whatever happens on the way."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import weakref
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
import torch

import clip_core
import clip_core.embedding.parquet
import clip_core.embedding.run
from clip_core.__main__ import main
from clip_core.embedding import embed
from clip_core.embedding.run import weights_sha256
from clip_core.errors import CheckpointMismatch, ConfigError, DataError

COUNT = 11


@pytest.fixture
def photos(tmp_path: Path, photo: PIL.Image.Image) -> Path:
    """A folder of images, two of them broken, whose order on disk is not that of their names."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number in reversed(range(COUNT)):
        name = f"more/{number}.png" if number % 3 else f"{number}.png"
        photo.crop((number, 0, number + 90, 60 + 2 * number)).save(folder / name)
    (folder / "5.jpg").write_text("hello")
    (folder / "more" / "line\nbreak.png").write_bytes((folder / "0.png").read_bytes())
    return folder


def names_of(folder: Path) -> list[str]:
    good = [path.relative_to(folder).as_posix() for path in folder.rglob("*.png")]
    return sorted(name for name in good if "\n" not in name)


@pytest.mark.parametrize(("normalize", "workers"), [(False, 0), (True, 3)])
def test_rows_are_the_features_of_the_images_in_the_order_of_their_names(
    tmp_path, tiny, photos, normalize, workers
) -> None:
    target = tmp_path / "out" / "f.npy"
    done = embed(tiny, [photos], target, normalize=normalize, batch_size=4, workers=workers)
    assert (done.rows, done.dimensions, done.broken, done.resumed_at) == (COUNT, 128, 2, 0)
    rows = np.load(target)
    assert rows.dtype == np.float32
    names = (tmp_path / "out" / "f.npy.names.txt").read_text().splitlines()
    assert names == names_of(photos)
    with torch.no_grad():
        pixels = torch.stack([tiny.preprocess(photos / name) for name in names])
        expected = tiny.model.encode_image(pixels, normalize=normalize)
    assert np.abs(rows - expected.numpy()).max() < 1e-5


def test_broken_images_are_listed_with_their_reasons(tmp_path, tiny, photos) -> None:
    done = embed(tiny, [photos], tmp_path / "f.npy")
    listed = [json.loads(line) for line in done.broken_file.read_text().splitlines()]
    assert [entry["name"] for entry in listed] == ["5.jpg", "more/line\nbreak.png"]
    assert "5.jpg: its header is damaged" in listed[0]["reason"]
    assert "has a line break; rename the file" in listed[1]["reason"]


def test_a_tar_and_a_folder_give_the_same_rows(tmp_path, tiny, photos) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(photos, arcname="")
    embed(tiny, [photos], tmp_path / "a.npy")
    embed(tiny, [tmp_path / "shard.tar"], tmp_path / "b.npy")
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    names = (tmp_path / "b.npy.names.txt").read_text().splitlines()
    assert names == [f"shard.tar:{name}" for name in names_of(photos)]


def test_parquet_holds_the_same_rows_with_their_names(tmp_path, tiny, photos, monkeypatch) -> None:
    monkeypatch.setattr(clip_core.embedding.parquet, "_ROWS", 4)
    embed(tiny, [photos], tmp_path / "a.npy")
    embed(tiny, [photos], tmp_path / "a.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert table["name"].to_pylist() == names_of(photos)
    assert np.array_equal(np.array(table["embedding"].to_pylist(), np.float32), np.load(tmp_path / "a.npy"))
    record = json.loads((tmp_path / "a.parquet.json").read_text())
    assert json.loads(table.schema.metadata[b"clip_core"]) == record
    assert record["rows"] == COUNT


@pytest.mark.parametrize("ending", ["npy", "parquet"])
def test_nothing_but_broken_images_gives_no_rows(tmp_path, tiny, ending: str) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("hello")
    assert embed(tiny, [tmp_path / "bad"], tmp_path / f"f.{ending}").rows == 0
    if ending == "npy":
        assert np.load(tmp_path / "f.npy").shape == (0, 128)
    else:
        assert pyarrow.parquet.read_table(tmp_path / "f.parquet").num_rows == 0


def test_parquet_without_pyarrow_is_refused_before_anything_is_computed(tmp_path, tiny, photos, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'clip-core\[parquet\]'"):
        embed(tiny, [photos], tmp_path / "f.parquet")


def test_the_provenance_says_what_made_the_rows(tmp_path, tiny, photos) -> None:
    embed(tiny, [photos], tmp_path / "f.npy", normalize=True, batch_size=3)
    record = json.loads((tmp_path / "f.npy.json").read_text())
    digest = hashlib.sha256()
    for key, value in sorted(tiny.model.state_dict().items()):
        digest.update(f"{key} torch.float32 {tuple(value.shape)}\n".encode() + value.numpy().tobytes())
    assert record["settings"]["weights_sha256"] == digest.hexdigest()
    assert clip_core.ClipConfig.from_json(record["settings"]["model"]) == tiny.config
    assert (record["rows"], record["dimensions"], record["broken"], record["batch_size"]) == (COUNT, 128, 2, 3)
    assert (record["clip_core"], record["device"]) == (clip_core.__version__, "cpu")
    assert (record["settings"]["normalize"], record["settings"]["precision"]) == (True, "float32")


def test_another_model_other_settings_and_other_images_are_refused(tmp_path, tiny, photos) -> None:
    target = tmp_path / "f.npy"
    embed(tiny, [photos], target)
    with pytest.raises(ConfigError, match=r"normalize \(false there, true asked\)"):
        embed(tiny, [photos], target, normalize=True)
    with pytest.raises(ConfigError, match="weights_sha256"):
        embed(clip_core.create("tiny"), [photos], target)
    wide = dataclasses.replace(tiny.config.preprocess, resize_mode="squash")
    model = tiny.model
    other = dataclasses.replace(tiny, config=dataclasses.replace(tiny.config, preprocess=wide))
    with pytest.raises(ConfigError, match="exists with other settings: model"):
        embed(other, [photos], target)
    assert weights_sha256(model) == weights_sha256(tiny.model)
    (photos / "0.png").rename(photos / "00.png")
    with pytest.raises(ConfigError, match="images_sha256"):
        embed(tiny, [photos], target)


def test_batches_are_let_go_of(tmp_path, tiny, photo) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    photo.resize((40, 40)).save(folder / "0.png")
    for number in range(1, 200):
        os.link(folder / "0.png", folder / f"{number}.png")
    alive = most = 0

    def count(image) -> torch.Tensor:
        nonlocal alive, most
        pixels = tiny.preprocess(image)
        alive += 1
        most = max(most, alive)

        def release() -> None:
            nonlocal alive
            alive -= 1

        weakref.finalize(pixels, release)
        return pixels

    gc.disable()
    try:
        embed(dataclasses.replace(tiny, preprocess=count), [folder], tmp_path / "f.npy", batch_size=5, workers=2)
    finally:
        gc.enable()
    # The batch in the model, the one before it, and those that are decoded meanwhile.
    assert most <= 5 * 5
    assert alive <= 5


def test_a_disk_that_fails_stops_the_run_and_it_goes_on_later(tmp_path, tiny, photos, monkeypatch) -> None:
    target = tmp_path / "f.npy"
    embed(tiny, [photos], tmp_path / "whole.npy", batch_size=2)
    source = clip_core.embedding.run.ImageFile
    read = source.read

    def fail(image) -> bytes:
        if image.name == "more/4.png":
            raise OSError(5, "Input/output error")
        return read(image)

    monkeypatch.setattr(source, "read", fail)
    with pytest.raises(DataError, match=r"more/4.png: .*Input/output error.* to go on from here"):
        embed(tiny, [photos], target, batch_size=2)
    assert not target.exists()
    monkeypatch.setattr(source, "read", read)
    assert embed(tiny, [photos], target, batch_size=2).resumed_at > 0
    assert np.array_equal(np.load(target), np.load(tmp_path / "whole.npy"))


def test_what_cannot_be_done_is_said(tmp_path, tiny, photos) -> None:
    for message, changes in [
        ("allowed: names that end in .npy or .parquet", {"output": tmp_path / "f.csv"}),
        ("batch_size=0, workers=2; allowed: 1 or more", {"batch_size": 0}),
    ]:
        with pytest.raises(ConfigError, match=message):
            embed(**{"bundle": tiny, "sources": [photos], "output": tmp_path / "f.npy", **changes})
    with torch.no_grad():
        tiny.model.visual.proj.fill_(float("nan"))
    with pytest.raises(CheckpointMismatch, match="gives 0.png features that are not finite"):
        embed(tiny, [photos], tmp_path / "f.npy")


def test_the_command_counts_broken_images_in_its_exit_code(tmp_path, tiny, photos, capsys) -> None:
    clip_core.save(tiny, tmp_path / "b")
    command = ["embed", "--bundle", str(tmp_path / "b"), "--output", str(tmp_path / "f.npy"), str(photos)]
    assert main([*command, "--batch-size", "3", "--workers", "1", "--progress"]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'f.npy'}\t{COUNT} rows of 128\n"
    assert f"{COUNT + 2}/{COUNT + 2}" in captured.err
    assert f"2 of {COUNT + 2} images broken and without a row: see {tmp_path / 'f.npy.broken.jsonl'}" in captured.err
    assert main(command) == 1  # complete already
    assert capsys.readouterr().out == captured.out
    (photos / "5.jpg").unlink()
    (photos / "more" / "line\nbreak.png").unlink()
    assert main(command) == 2
    assert "other settings: images" in capsys.readouterr().err
    command[4] = str(tmp_path / "half.npy")
    assert main([*command, "--precision", "bf16", "--normalize"]) == 0
    half = np.load(tmp_path / "half.npy")
    whole = np.load(tmp_path / "f.npy")
    assert np.abs(half - whole / np.linalg.norm(whole, axis=1, keepdims=True)).max() < 0.03
    assert np.abs(np.linalg.norm(half, axis=1) - 1).max() < 1e-5
    assert json.loads((tmp_path / "half.npy.json").read_text())["settings"]["precision"] == "bfloat16"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_run_that_was_killed_goes_on_and_gives_the_same_file(tmp_path, tiny, photo) -> None:
    clip_core.save(tiny, tmp_path / "b")
    folder = tmp_path / "many"
    folder.mkdir()
    photo.resize((400, 300)).save(folder / "000.png")
    for number in range(1, 100):
        os.link(folder / "000.png", folder / f"{number:03}.png")
    for number in range(0, 100, 9):
        (folder / f"{number:03}x.png").write_text("hello")
    target, journal = tmp_path / "f.npy", tmp_path / "f.npy.journal"
    command = ["embed", "--bundle", str(tmp_path / "b"), str(folder), "--batch-size", "2", "--output"]
    process = subprocess.Popen([sys.executable, "-m", "clip_core", *command, str(target)])
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 4):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not target.exists()
    assert main([*command, str(target)]) == 1
    assert main([*command, str(tmp_path / "whole.npy")]) == 1
    assert target.read_bytes() == (tmp_path / "whole.npy").read_bytes()
    for beside in ("names.txt", "broken.jsonl", "json"):
        assert (tmp_path / f"f.npy.{beside}").read_bytes() == (tmp_path / f"whole.npy.{beside}").read_bytes()
    assert not journal.exists()
