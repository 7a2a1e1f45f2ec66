"""Data sets as they are written: the layout, what is kept of an image, and nothing after a failure."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from clip_core.errors import ClipError, ConfigError, DataError, ImageError, StorageError
from clip_eval.building import Example, Source, write_dataset
from clip_eval.building.pictures import picture_member
from clip_eval.building.shards import ShardWriter
from clip_eval.wds import Association, Kind, WdsDataset, index_shard, open_dataset, read_image_bytes, read_manifest

Png = Callable[..., bytes]
SCRIPT = Path(__file__).with_name("building_client.py")


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def simple(png: Png, count: int = 3, **changed: Any) -> Source:
    examples = (Example(image=png(number), label=number % 2) for number in range(count))
    return Source(**{"kind": "classification", "classnames": ("cat", "dog"), "examples": examples, **changed})


# Round trips

CAPTIONS = (
    "a cat",
    "one\u2028line",
    " spaces ",
    "tabs\tin it",
    "\\n",
    "ümlaut 猫",
    "next\x85line",
    "a\x0bb\x0cc",
    "{c}: x",
)
NAMES = ("", "cat", "race: x", "owl\u2028s", "{c}", "ümlaut", "0", "-1", "a/b", '"quoted"')


def random_source(kind: Kind, random_: random.Random, png: Png) -> Source:
    """What could stand in any data set of this kind."""
    names = tuple(random_.sample(NAMES, random_.randint(2, len(NAMES))))
    count = random_.randint(1, 24)
    fields = random_.randint(0, 3) if kind == "classification" else 0
    examples = []
    for number in range(count):
        captions = [random_.choice(CAPTIONS) for _ in range(random_.randint(2, 4))]
        examples.append(
            Example(
                image=png(number, 6),
                label=random_.randrange(len(names)),
                present=sorted(random_.sample(range(len(names)), random_.randint(0, len(names)))),
                captions=captions,
                metadata=[random_.choice([0, 3, -1.25, 1e6]) for _ in range(fields)],
                right=random_.randrange(len(captions)),
                example=f"ex {number // 2}",
                category=random_.choice(["", "swap"]),
            )
        )
    riddles = []
    for _ in range(3 if count > 2 else 0):
        candidates = random_.sample(range(count), random_.randint(2, count))
        riddles.append(Association(random_.choice(CAPTIONS), tuple(candidates), tuple(candidates[:1])))
    return Source(
        kind=kind,
        examples=examples,
        classnames=names,
        templates=("a {c}", "the {c}: {c}"),
        metadata_fields=tuple(f"field {number}" for number in range(fields)),
        associations=tuple(riddles),
    )


def check_equal(data: WdsDataset, source: Source) -> None:
    examples: Sequence[Example] = list(source.examples)
    assert data.kind == source.kind
    assert [read_image_bytes(sample)[0] for sample in data.samples] == [example.image for example in examples]
    assert [sample.key for sample in data.samples] == [f"s{number:07d}" for number in range(len(examples))]
    if source.kind in ("classification", "multilabel"):
        assert (data.classnames, data.templates) == (source.classnames, source.templates)
    if source.kind == "classification":
        assert data.labels == tuple(example.label for example in examples)
        if source.metadata_fields:
            assert data.metadata == tuple(tuple(map(float, example.metadata)) for example in examples)
            assert data.metadata_fields == source.metadata_fields
        else:
            assert data.metadata == ()
    if source.kind == "multilabel":
        assert data.present == tuple(tuple(example.present) for example in examples)
    if source.kind in ("retrieval", "caption_choice"):
        assert data.captions == tuple(tuple(example.captions) for example in examples)
    if source.kind == "caption_choice":
        assert data.right_captions == tuple(example.right for example in examples)
        assert data.examples == tuple(example.example for example in examples)
        assert data.categories in ((), tuple(example.category for example in examples))
    if source.kind == "association":
        assert data.associations == source.associations


@pytest.mark.parametrize("kind", ["classification", "multilabel", "retrieval", "caption_choice", "association"])
def test_what_is_written_is_read(kind: Kind, png: Png, tmp_path: Path) -> None:
    random_ = random.Random(kind)
    most = 0
    for run in range(16):
        source = random_source(kind, random_, png)
        if kind == "association" and not source.associations:
            continue
        folder = write_dataset(tmp_path / str(run), source, max_count=random_.randint(1, 2), split="test/deep")
        data = open_dataset(folder, "test/deep")
        check_equal(data, source)
        most = max(most, len({sample.shard for sample in data.samples}))
    assert most > 10, "shards of two digits should occur"


def test_the_layout(png: Png, tmp_path: Path) -> None:
    about = {"title": "Tiere", "licence": "CC0"}
    folder = write_dataset(tmp_path / "set", simple(png, 5), max_count=2, about=about)
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    tars = ["test/0.tar", "test/1.tar", "test/2.tar"]
    texts = ["about.json", "classnames.txt", "test/manifest.json", "test/nshards.txt"]
    assert found == sorted([*tars, *texts, "zeroshot_classification_templates.txt"])
    assert (folder / "classnames.txt").read_bytes() == b"cat\ndog\n"
    assert (folder / "zeroshot_classification_templates.txt").read_bytes() == b"a photo of a {c}.\n"
    assert (folder / "test" / "nshards.txt").read_bytes() == b"3\n"
    assert json.loads((folder / "about.json").read_text()) == about
    with tarfile.open(folder / "test" / "1.tar") as tar:
        assert tar.getnames() == ["s0000002.cls", "s0000002.png", "s0000003.cls", "s0000003.png"]
        assert tar.extractfile("s0000003.cls").read() == b"1"
    manifest = read_manifest(folder / "test")
    assert manifest is not None
    assert (manifest.samples, manifest.classes, [shard.samples for shard in manifest.shards]) == (5, 2, [2, 2, 1])
    again = write_dataset(tmp_path / "again", simple(png, 5), max_count=2, about=about)
    assert all((again / name).read_bytes() == (folder / name).read_bytes() for name in found)


def test_webdataset_reads_it_as_clip_benchmark_does(png: Png, tmp_path: Path) -> None:
    source = Source(
        kind="retrieval", examples=[Example(image=png(number), captions=["one", "two\nlines"]) for number in range(3)]
    )
    folder = write_dataset(tmp_path / "set", source, max_count=2)
    assert (folder / "dataset_type.txt").read_bytes() == b"retrieval\n"
    images = webdataset.autodecode.ImageHandler("pil", extensions=["webp", "png", "jpg", "jpeg"])
    decoded = webdataset.autodecode.Decoder([images])
    read = []
    for number in range(2):
        with (folder / "test" / f"{number}.tar").open("rb") as file:
            for sample in group_by_keys(tar_file_expander([{"url": str(number), "stream": file}])):
                read.append(decoded(sample))
    assert [sample["txt"].splitlines() for sample in read] == [["one", "two\\nlines"]] * 3
    assert [sample["__key__"] for sample in read] == ["s0000000", "s0000001", "s0000002"]
    assert all(np.array_equal(np.asarray(sample["png"]), pixels(png(number))) for number, sample in enumerate(read))


def test_a_shard_ends_by_count_or_size(tmp_path: Path) -> None:
    for count, size, expected in (
        (2, 10**9, [2, 2, 1]),
        (10**9, 700, [2, 2, 1]),
        (10**9, 701, [3, 2]),
        (9, 1, [1] * 5),
    ):
        folder = tmp_path / f"{count} {size}"
        folder.mkdir()
        with ShardWriter(folder, count, size) as shards:
            for number in range(5):
                shards.add(f"s{number}", {"cls": b"0" * 50, "png": bytes(300)})
        assert [shard.samples for shard in shards.facts] == expected
        assert [len(index_shard(folder / f"{number}.tar")) for number in range(len(expected))] == expected


# Images


@pytest.mark.parametrize(("form", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_files_keep_their_bytes(form: str, extension: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((20, 10), 50).convert("RGB").save(buffer, form)
    path = tmp_path / "picture.with.any-ending"
    path.write_bytes(buffer.getvalue())
    assert picture_member(path, "png") == picture_member(str(path), "webp") == (extension, buffer.getvalue())
    assert picture_member(buffer.getvalue(), "png") == (extension, buffer.getvalue())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "1", "P", "LA", "CMYK", "I;16"])
@pytest.mark.parametrize("form", ["webp", "png"])
def test_other_pictures_lose_nothing(mode: str, form: Any) -> None:
    noise = np.random.RandomState(0).randint(0, 256, (9, 7, 4), dtype=np.uint8)
    image = Image.fromarray(noise, "RGBA") if mode != "I;16" else Image.fromarray(noise.view(np.uint16)[:, :, 0])
    image = (
        image
        if image.mode == mode
        else image.convert("RGB").convert(mode)
        if mode in ("P", "CMYK")
        else image.convert(mode)
    )
    assert image.mode == mode
    extension, data = picture_member(image, form)
    assert extension == ("png" if mode in ("L", "1", "I;16") else form)
    assert np.array_equal(pixels(data), np.asarray(image.convert("RGB")))
    buffer = io.BytesIO()
    image.save(buffer, "TIFF")
    assert np.array_equal(pixels(picture_member(buffer.getvalue(), form)[1]), np.asarray(image.convert("RGB")))


def test_arrays_and_giants() -> None:
    array = np.random.RandomState(1).randint(0, 256, (4, 5, 3), dtype=np.uint8)
    assert np.array_equal(pixels(picture_member(array, "webp")[1]), array)
    assert picture_member(Image.new("RGB", (16_384, 1)), "webp")[0] == "png"


def test_what_is_no_image(tmp_path: Path, png: Png) -> None:
    for image in (b"text", b"", png(1)[:30], tmp_path / "gone.png", np.zeros((2, 2), dtype=np.float32), 7):
        with pytest.raises(ImageError, match="Cannot open"):
            write_dataset(
                tmp_path / "set",
                Source(kind="classification", classnames=("a",), examples=[Example(image=image, label=0)]),
            )
        assert not list(tmp_path.iterdir())


# What does not fit


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"examples": []}, "has no example"),
        ({"classnames": ()}, "holds no class name"),
        ({"classnames": ("cat", "cat")}, "occur more than once"),
        ({"classnames": ("cat", "cat ")}, "occur more than once"),
        ({"classnames": ("cat", "a\nb")}, "has a line break"),
        ({"classnames": ("cat",)}, "holds the label 1, but classnames.txt names 1"),
        ({"templates": ("a photo",)}, "has no placeholder"),
        ({"kind": "segmentation"}, "kind='segmentation'; allowed: classification"),
        ({"kind": "retrieval"}, "has no list of captions"),
        ({"kind": "retrieval", "examples": [Example(image=b"", captions="a cat")]}, "Cannot open"),
        ({"kind": "association"}, "holds no riddle"),
    ],
)
def test_a_source_that_does_not_fit(png: Png, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ClipError, match=message):
        write_dataset(tmp_path / "set", simple(png, **changed))
    assert not list(tmp_path.iterdir())


def test_members_that_do_not_fit(png: Png, tmp_path: Path) -> None:
    for kind, example, message in (
        ("classification", {}, "has no label"),
        ("multilabel", {"present": [2]}, "has the label 2, but there are 2 classes"),
        ("retrieval", {"captions": ["a", " "]}, "one of its captions is blank"),
        ("retrieval", {"captions": "a cat"}, "has no list of captions"),
        ("caption_choice", {"captions": ["a", "b"], "right": 2}, "place of the right caption, 0 to 1, not 2"),
    ):
        with pytest.raises(DataError, match=message):
            write_dataset(tmp_path / "set", simple(png, kind=kind, examples=[Example(image=png(0), **example)]))


@pytest.mark.parametrize("split", ["", "../up", "/abs", "a//b", ".hidden", "a\\b"])
def test_a_name_that_is_no_split(png: Png, tmp_path: Path, split: str) -> None:
    with pytest.raises(ConfigError, match="no name of a split"):
        write_dataset(tmp_path / "set", simple(png), split=split)


def test_arguments_out_of_range(png: Png, tmp_path: Path) -> None:
    for changed in ({"max_count": 0}, {"max_size": 0}, {"image_format": "jpg"}):
        with pytest.raises(ConfigError, match="must be 1 or more|allowed: webp, png"):
            write_dataset(tmp_path / "set", simple(png), **changed)


def test_a_second_split(png: Png, tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "set", simple(png, 3))
    assert write_dataset(folder, simple(png, 4), split="train") == folder
    assert (len(open_dataset(folder).samples), len(open_dataset(folder, "train").samples)) == (3, 4)
    with pytest.raises(ConfigError, match="already exists"):
        write_dataset(folder, simple(png))
    with pytest.raises(DataError, match=r"classnames\.txt: differs .* 'dog' there, 'owl' here"):
        write_dataset(folder, simple(png, classnames=("cat", "owl")), split="other")
    with pytest.raises(DataError, match="2 lines there, 3 here"):
        write_dataset(folder, simple(png, classnames=("cat", "dog", "owl")), split="other")
    with pytest.raises(DataError, match="is a data set of classification, not of multilabel"):
        write_dataset(folder, simple(png, kind="multilabel"), split="other")
    with pytest.raises(DataError, match=r"columns of its metadata are \[\], those of the new split \['age'\]"):
        write_dataset(folder, simple(png, metadata_fields=("age",)), split="other")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something that is no data set"):
        write_dataset(tmp_path / "full", simple(png))
    with pytest.raises(ConfigError, match="is a file"):
        write_dataset(tmp_path / "full" / "thesis.txt", simple(png))


def test_duplicate_names_can_be_allowed(png: Png, tmp_path: Path) -> None:
    source = simple(png, classnames=("cat", "cat"))
    folder = write_dataset(tmp_path / "set", source, allow_duplicate_classnames=True)
    assert open_dataset(folder, allow_duplicate_classnames=True).classnames == ("cat", "cat")


# Failures


def test_an_error_in_the_middle_leaves_nothing(png: Png, tmp_path: Path) -> None:
    def failing() -> Any:
        yield Example(image=png(0), label=0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "set", simple(png, examples=failing()), max_count=1)
    assert not list(tmp_path.iterdir())
    folder = write_dataset(tmp_path / "set", simple(png))
    with pytest.raises(KeyboardInterrupt):
        write_dataset(folder, simple(png, examples=failing()), split="train", max_count=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
    assert not (folder / "train").exists()


def test_a_folder_that_cannot_be_written(png: Png, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="the data set cannot be written .* Nothing was left there"):
        write_dataset(tmp_path / "file" / "set", simple(png))


@pytest.mark.skipif(os.name != "posix", reason="processes are killed as POSIX does it")
def test_a_killed_build_leaves_nothing_that_opens(start_apart, png: Png, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    target = tmp_path / "set"
    process, _ = start_apart(SCRIPT, folder=target, image=tmp_path / "a.png", room=None)
    until = time.monotonic() + 60
    while len(list(tmp_path.glob(".set.*/test/*.tar"))) < 3:
        assert time.monotonic() < until
        time.sleep(0.01)
    process.kill()
    process.join()
    assert not target.exists()
    (left,) = tmp_path.glob(".set.*")
    with pytest.raises(DataError, match=r"nshards\.txt: missing"):
        open_dataset(left)
    assert len(open_dataset(write_dataset(target, simple(png))).samples) == 3


@pytest.mark.skipif(os.name != "posix", reason="limits of what a process may write")
def test_a_full_disk_is_said(start_apart, png: Png, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(0))
    process, answer = start_apart(SCRIPT, folder=tmp_path / "set", image=tmp_path / "a.png", room=100_000)
    told = answer.recv()
    process.join()
    assert "set: the data set cannot be written (File too large). Nothing was left there; make room" in told
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
