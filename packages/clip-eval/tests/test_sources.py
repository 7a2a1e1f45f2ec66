"""What data sets are built from: image folders, tables, torchvision, Hugging Face, the authors' annotation files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clip_core.errors import ClipError, ConfigError, DataError, ImageError
from clip_eval.building import (
    huggingface_dataset,
    image_folder,
    sugar_crepe,
    table,
    torchvision_dataset,
    winogavil,
    winoground,
    write_dataset,
)
from clip_eval.cli import main
from clip_eval.wds import WdsDataset, open_dataset, read_image_bytes

Png = Callable[..., bytes]


@pytest.fixture
def pictures(tmp_path: Path, png: Png) -> Path:
    """A folder of 0.png to 5.png."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(png(number))
    return folder


def build(tmp_path: Path, source: Any) -> WdsDataset:
    return open_dataset(write_dataset(tmp_path / "set", source))


def images_of(data: WdsDataset) -> list[bytes]:
    return [read_image_bytes(sample)[0] for sample in data.samples]


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", encoding="utf-8-sig", newline="") as file:  # as Excel writes it
            writer = csv.DictWriter(file, rows[0].keys(), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


# Folders


def test_a_folder_of_images(tmp_path: Path, png: Png) -> None:
    root = tmp_path / "images"
    for number, name in enumerate(
        ("owl/b.png", "cat/deep/er/c.PNG", "cat/a.png", ".git/x.png", "owl/notes.txt", "x.png")
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(number))
    data = build(tmp_path, image_folder(root))
    assert (data.classnames, data.labels) == (("cat", "owl"), (0, 0, 1))
    assert images_of(data) == [png(2), png(1), png(0)]
    source = image_folder(root, classnames=["gatto", "gufo"], templates=["un {c}"])
    assert (source.classnames, source.templates, source.count) == (("gatto", "gufo"), ("un {c}",), 3)
    with pytest.raises(DataError, match="has 2 sub-folders, and 1 class names"):
        image_folder(root, classnames=["gatto"])
    (root / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds no image"):
        image_folder(root)
    with pytest.raises(DataError, match="has no sub-folders"):
        image_folder(root / "empty")
    with pytest.raises(DataError, match="no such folder"):
        image_folder(root / "gone")


# Tables


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_of_labels(ending: str, tmp_path: Path, pictures: Path, png: Png) -> None:
    rows = [{"image": f"{number}.png", "kind": name} for number, name in enumerate(("owl", "cat, wild", "owl"))]
    data = build(tmp_path, table(write_table(pictures / f"t.{ending}", rows), label="kind"))
    assert (data.classnames, data.labels) == (("cat, wild", "owl"), (1, 0, 1))
    assert images_of(data) == [png(number) for number in range(3)]


def test_names_before_numbers(tmp_path: Path, pictures: Path) -> None:
    rows = [{"image": "0.png", "label": label} for label in ("2", "owl", "0", "")]
    path = write_table(tmp_path / "t.csv", rows)
    source = table(path, label="label", images=pictures, classnames=["cat", "", "owl", "0"])
    assert [example.label for example in source.examples] == [2, 2, 3, 1]
    for names, told in (
        (["cat", "owls"], "'2' is none of the 2 classes"),
        (["a", "b", "ow", ""], "'owl' is none .* 'ow'"),
    ):
        with pytest.raises(DataError, match=told):
            list(table(path, label="label", images=pictures, classnames=names).examples)


def test_numbers_need_names(tmp_path: Path, pictures: Path) -> None:
    for ending, labels in (("csv", ("0", "1")), ("parquet", (0, 1))):
        path = write_table(pictures / f"t.{ending}", [{"image": "0.png", "label": label} for label in labels])
        with pytest.raises(DataError, match="holds numbers, which say nothing to a model"):
            table(path, label="label")
        assert [example.label for example in table(path, label="label", classnames=["a", "b"]).examples] == [0, 1]


def test_several_labels(tmp_path: Path, pictures: Path) -> None:
    rows = [{"image": f"{number}.png", "labels": text} for number, text in enumerate(("owl|cat", "", "dog"))]
    data = build(tmp_path, table(write_table(pictures / "t.csv", rows), labels="labels"))
    assert (data.classnames, data.present) == (("cat", "dog", "owl"), ((0, 2), (), (1,)))
    lists = [{"image": "0.png", "labels": [0, 2]}, {"image": "1.png", "labels": []}]
    source = table(write_table(pictures / "t.parquet", lists), labels="labels", classnames=["a", "b", "c"])
    assert [list(example.present) for example in source.examples] == [[0, 2], []]


def test_captions_of_one_image_may_stand_in_many_rows(tmp_path: Path, pictures: Path) -> None:
    texts = [("1.png", "one"), ("0.png", "zero"), ("1.png", "uno\u2028due"), ("0.png", "with\nbreak")]
    path = write_table(pictures / "t.tsv", [{"image": name, "title": text} for name, text in texts])
    data = build(tmp_path, table(path, captions=["title"]))
    assert data.captions == (("one", "uno\u2028due"), ("zero", "with\\nbreak"))


def test_bytes_in_parquet(tmp_path: Path, png: Png) -> None:
    rows = [
        {"image": {"bytes": png(0), "path": "x.png"}, "title": ["a", "b"], "more": "c", "year": 1999, "label": "cat"},
        {"image": {"bytes": png(1), "path": None}, "title": ["d"], "more": "e", "year": 2000, "label": "owl"},
    ]
    path = write_table(tmp_path / "t.parquet", rows)
    data = build(tmp_path, table(path, captions=["title", "more"]))
    assert (images_of(data), data.captions) == ([png(0), png(1)], (("a", "b", "c"), ("d", "e")))
    source = table(path, label="label", metadata=["year"])
    data = open_dataset(write_dataset(tmp_path / "labels", source))
    assert (data.metadata, data.metadata_fields) == (((1999,), (2000,)), ("year",))


def test_tables_that_do_not_fit(tmp_path: Path, pictures: Path) -> None:
    path = write_table(pictures / "t.csv", [{"image": "0.png", "label": "cat", "year": "new"}])
    for settings, message in (
        ({}, "Name the column of labels"),
        ({"label": "label", "captions": ["label"]}, "Name the column of labels"),
        ({"label": "lable"}, "has no column 'lable'. Did you mean 'label'"),
        ({"label": "label", "image": "file"}, r"has no column 'file'.* Its columns: image, label, year"),
        ({"label": "label", "metadata": ["year"]}, "'year' holds 'new'; metadata are numbers"),
        ({"label": "label", "images": tmp_path}, r"Cannot open image .*0\.png: No such file"),
    ):
        with pytest.raises(ClipError, match=message):
            write_dataset(tmp_path / "set", table(path, **settings))
    (pictures / "bad.csv").write_text("image,label\n0.png\n")
    (pictures / "bad.jsonl").write_text('{"image": "0.png", "label": "a"}\n[')
    (pictures / "bad.parquet").write_bytes(b"PAR1")
    (pictures / "bad.xlsx").write_bytes(b"")
    for name, message in (
        ("bad.csv", "line 2 has more or fewer cells"),
        ("bad.jsonl", "line 2 is not valid JSON"),
        ("bad.parquet", "not a readable parquet file"),
        ("bad.xlsx", "not a table; allowed"),
        ("gone.csv", "no such file"),
    ):
        with pytest.raises(DataError, match=message):
            list(table(pictures / name, captions=["label"], image="image").examples)
    write_table(pictures / "n.jsonl", [{"image": 3, "label": "cat"}])
    with pytest.raises(DataError, match="holds int; allowed: a path or the bytes"):
        list(table(pictures / "n.jsonl", label="label").examples)


# Libraries


def test_torchvision(tmp_path: Path) -> None:
    options = {"size": 3, "image_size": (3, 8, 9), "num_classes": 2}
    source = torchvision_dataset("FakeData", tmp_path, options=options, classnames=["a", "b"])
    data = build(tmp_path, source)
    from torchvision.datasets import FakeData

    peer = FakeData(**options)
    assert data.labels == tuple(int(peer[number][1]) for number in range(3))
    for number, data_of in enumerate(images_of(data)):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data_of))), np.asarray(peer[number][0]))
    assert all("webp" in sample.members for sample in data.samples)
    with pytest.raises(DataError, match="does not name its classes"):
        torchvision_dataset("FakeData", tmp_path)
    with pytest.raises(ConfigError, match="Unknown data set of torchvision 'CIFAR11'. Did you mean CIFAR10"):
        torchvision_dataset("CIFAR11", tmp_path)
    with pytest.raises(ConfigError, match="does not take"):
        torchvision_dataset("FakeData", tmp_path, options={"colour": 1})
    with pytest.raises(DataError, match="cannot be read from"):
        torchvision_dataset("CIFAR10", tmp_path)


def test_torchvision_keeps_files_where_it_can(tmp_path: Path, pictures: Path, png: Png) -> None:
    (tmp_path / "root" / "cat").mkdir(parents=True)
    (pictures / "3.png").rename(tmp_path / "root" / "cat" / "3.png")
    data = build(tmp_path, torchvision_dataset("ImageFolder", tmp_path / "root"))
    assert (data.classnames, images_of(data)) == (("cat",), [png(3)])


@pytest.mark.parametrize("saved", ["split", "dict"])
def test_a_huggingface_dataset(saved: str, tmp_path: Path, png: Png) -> None:
    import datasets

    rows = {
        "picture": [{"bytes": png(number), "path": None} for number in range(3)],
        "kind": [1, 0, 1],
        "tags": [[0, 1], [], [1]],
        "title": ["a", "b\u2028c", "d"],
        "more": [["e"], ["f", "g"], []],
    }
    names = datasets.ClassLabel(names=["cat", "owl"])
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "kind": names,
            "tags": datasets.Sequence(names),
            "title": datasets.Value("string"),
            "more": datasets.Sequence(datasets.Value("string")),
        }
    )
    made = datasets.Dataset.from_dict(rows, features=features)
    (made if saved == "split" else datasets.DatasetDict({"test": made})).save_to_disk(str(tmp_path / "saved"))
    data = build(tmp_path, huggingface_dataset(tmp_path / "saved", label="kind"))
    assert (data.classnames, data.labels, images_of(data)) == (("cat", "owl"), (1, 0, 1), [png(0), png(1), png(2)])
    source = huggingface_dataset(tmp_path / "saved", label="tags")
    assert open_dataset(write_dataset(tmp_path / "tags", source)).present == ((0, 1), (), (1,))
    source = huggingface_dataset(tmp_path / "saved", captions=["title", "more"])
    data = open_dataset(write_dataset(tmp_path / "titles", source))
    assert data.captions == (("a", "e"), ("b\u2028c", "f", "g"), ("d",))
    with pytest.raises(ConfigError, match="has 2 columns that could be the label; name one of kind, tags"):
        huggingface_dataset(tmp_path / "saved")
    with pytest.raises(ConfigError, match="has no column 'x'; its columns: picture"):
        huggingface_dataset(tmp_path / "saved", label="x")
    if saved == "dict":
        with pytest.raises(ConfigError, match="has no split 'train'; its splits: test"):
            huggingface_dataset(tmp_path / "saved", split="train")


# Annotations


def test_sugar_crepe(tmp_path: Path, pictures: Path, png: Png) -> None:
    entry = {"filename": "1.png", "caption": "a red cup", "negative_caption": "a blue cup"}
    path = tmp_path / "swap_att.json"
    path.write_text(json.dumps({"0": entry, "17": {**entry, "filename": "0.png"}}))
    data = build(tmp_path, sugar_crepe(path, pictures))
    assert (data.kind, data.captions[0], data.right_captions) == ("caption_choice", ("a red cup", "a blue cup"), (0, 0))
    assert (data.examples, data.categories) == (("0", "17"), ("swap_att", "swap_att"))
    assert images_of(data) == [png(1), png(0)]
    for text, message in (
        ("[]", "must hold an object"),
        ("{", "not a readable"),
        ('{"0": {"filename": "x"}}', "lacks 'caption'"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            list(sugar_crepe(path, pictures).examples)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_winoground(ending: str, tmp_path: Path, pictures: Path, png: Png) -> None:
    rows = []
    for number in range(2):
        images = [f"{2 * number}", f"{2 * number + 1}.png"]
        cells = images if ending == "jsonl" else [{"bytes": png(int(name[0])), "path": name} for name in images]
        texts = {"caption_0": "a dog on a cat", "caption_1": "a cat on a dog", "collapsed_tag": "Object"}
        rows.append({"id": 10 + number, "image_0": cells[0], "image_1": cells[1], **texts})
    path = write_table(tmp_path / f"examples.{ending}", rows)
    data = build(tmp_path, winoground(path, pictures))
    assert (data.right_captions, data.examples) == ((0, 1, 0, 1), ("10", "10", "11", "11"))
    assert data.captions == (("a dog on a cat", "a cat on a dog"),) * 4
    assert (data.categories, images_of(data)) == (("Object",) * 4, [png(number) for number in range(4)])


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_winogavil(ending: str, tmp_path: Path, pictures: Path, png: Png) -> None:
    riddles = [("pipe", ["1", "3", "0"], ["0"]), ("wolf", ["2", "1"], ["1"])]
    rows = []
    for cue, candidates, right in riddles:
        lists = {"candidates": candidates, "associations": right}
        if ending == "csv":  # the authors' own file has Python lists
            lists = {name: str(value) for name, value in lists.items()}
        if ending == "parquet":
            lists["candidate_images"] = [{"bytes": png(int(name)), "path": None} for name in candidates]
        rows.append({"cue": cue, **lists})
    path = write_table(tmp_path / f"riddles.{ending}", rows)
    data = build(tmp_path, winogavil(path, None if ending == "parquet" else pictures))
    assert images_of(data) == [png(1), png(3), png(0), png(2)]  # the image of two riddles once
    found = [(riddle.cue, riddle.candidates, riddle.right) for riddle in data.associations]
    assert found == [("pipe", (0, 1, 2), (2,)), ("wolf", (3, 0), (0,))]


def test_bad_riddles(tmp_path: Path, pictures: Path) -> None:
    for row, message in (
        ({"cue": "a", "candidates": ["1"], "associations": ["2"]}, "names '2', which is none of its candidates"),
        ({"cue": "a", "candidates": ["1", "1"], "associations": ["1"]}, "none of them twice"),
        ({"cue": "a", "candidates": [], "associations": []}, "must be some images"),
        ({"cue": "a", "candidates": ["1", "9"], "associations": ["1"]}, "names the image '9', which is not in"),
    ):
        with pytest.raises(DataError, match=message):
            list(winogavil(write_table(tmp_path / "t.jsonl", [row]), pictures).examples)


# The command


def test_the_command_builds_what_run_reads(tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "names.txt").write_text("cat\n\nowl\n")
    (tmp_path / "templates.txt").write_text("an {c}\n")
    command = [
        "build",
        "table",
        str(pictures / "t.csv"),
        "--label",
        "kind",
        "--output",
        str(tmp_path / "set"),
        "--quiet",
    ]
    write_table(
        pictures / "t.csv", [{"image": f"{number}.png", "kind": ("cat", "owl", "")[number % 3]} for number in range(4)]
    )
    texts = ["--classnames", str(tmp_path / "names.txt"), "--templates", str(tmp_path / "templates.txt")]
    assert main([*command, *texts, "--title", "Animals", "--max-count", "3"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'set'}\n"
    data = open_dataset(tmp_path / "set")
    assert (data.classnames, data.labels, data.templates) == (("cat", "", "owl"), (0, 2, 1, 0), ("an {c}",))
    assert json.loads((tmp_path / "set" / "about.json").read_text()) == {"title": "Animals"}
    assert len({sample.shard for sample in data.samples}) == 2
    assert main([*command, *texts]) == 2
    assert "already exists. Remove it, or choose another folder or split" in capsys.readouterr().err
    assert main([*command, *texts, "--split", "train"]) == 0
    assert open_dataset(tmp_path / "set", "train").labels == data.labels


def test_the_command_for_every_source(tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import datasets

    (tmp_path / "root" / "cat").mkdir(parents=True)
    (tmp_path / "root" / "cat" / "0.png").write_bytes((pictures / "0.png").read_bytes())
    entry = {"filename": "1.png", "caption": "a", "negative_caption": "b"}
    for name in ("add_att", "swap_obj"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"0": entry}))
    row = {"id": 0, "image_0": "0", "image_1": "1", "caption_0": "a b", "caption_1": "b a"}
    wino = write_table(tmp_path / "w.jsonl", [row])
    gavil = write_table(tmp_path / "g.jsonl", [{"cue": "a", "candidates": ["1", "2"], "associations": ["2"]}])
    made = datasets.Dataset.from_dict({"image": [str(pictures / "0.png")], "text": ["a"]})
    made.cast_column("image", datasets.Image()).save_to_disk(str(tmp_path / "saved"))
    crepe = [str(tmp_path / "add_att.json"), str(tmp_path / "swap_obj.json")]
    for words, kind in (
        (["folder", str(tmp_path / "root")], "classification"),
        (["torchvision", "ImageFolder", "--root", str(tmp_path / "root")], "classification"),
        (["huggingface", str(tmp_path / "saved"), "--caption", "text", "--read-split", "all"], "retrieval"),
        (["sugar-crepe", *crepe, "--images", str(pictures)], "caption_choice"),
        (["winoground", str(wino), "--images", str(pictures)], "caption_choice"),
        (["winogavil", str(gavil), "--images", str(pictures)], "association"),
    ):
        output = tmp_path / "out" / words[0]
        assert main(["build", *words, "--output", str(output), "--quiet"]) == 0, capsys.readouterr().err
        for folder in map(Path, capsys.readouterr().out.split()):
            assert open_dataset(folder).kind == kind
    assert sorted(path.name for path in (tmp_path / "out" / "sugar-crepe").iterdir()) == ["add_att", "swap_obj"]
    for options in ("{", "[]"):
        words = ["build", "torchvision", "FakeData", "--options", options, "--output", str(tmp_path / "x")]
        assert main(words) == 2
        assert f"--options {options}" in capsys.readouterr().err


def test_an_image_that_does_not_decode_is_named(tmp_path: Path) -> None:
    (tmp_path / "root" / "cat").mkdir(parents=True)
    (tmp_path / "root" / "cat" / "broken.png").write_bytes(b"no png")
    with pytest.raises(ImageError, match=r"broken\.png"):
        write_dataset(tmp_path / "set", image_folder(tmp_path / "root"))
