"""Every kind of data set, as it stands on disk: what is read, and what is said where something does not fit."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from clip_core.errors import DataError
from clip_eval.wds import Association, check_size, index_shard, open_dataset, read_each, read_image_bytes, shard_sha256
from clip_eval.wds.manifest import Manifest, ShardFacts, parse_manifest

Make = Callable[..., Path]


def npy(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values))
    return buffer.getvalue()


@pytest.fixture
def make(tmp_path: Path, png) -> Make:
    """Writes a set from the members of its samples, without images, and its text files."""

    def made(samples: Iterable[Mapping[str, bytes]], *shards: Iterable[Mapping[str, bytes]], **files: str) -> Path:
        folder = tmp_path / "set"
        (folder / "test").mkdir(parents=True, exist_ok=True)
        groups = [list(samples), *map(list, shards)]
        number = 0
        for shard, group in enumerate(groups):
            with webdataset.TarWriter(str(folder / "test" / f"{shard}.tar"), encoder=False) as writer:
                for members in group:
                    writer.write({"__key__": f"s{number:07d}", "png": png(number), **members})
                    number += 1
        (folder / "test" / "nshards.txt").write_text(f"{len(groups)}\n")
        files = {"classnames": "cat\ndog\nowl\n", "templates": "a {c}\n", **files}
        names = {"classnames": "classnames.txt", "templates": "zeroshot_classification_templates.txt"}
        for name, text in files.items():
            path = folder / names.get(name, {"kind": "dataset_type.txt", "about": "about.json"}.get(name, name))
            path.write_bytes(text.encode())
        return folder

    return made


def test_multilabel(make: Make) -> None:
    rows = [npy(np.float32([0, 1, 1])), npy([0, 0, 0]), npy(np.bool_([1, 0, 0]))]
    data = open_dataset(make([{"npy": row} for row in rows], kind="Multilabel\n"))
    assert (data.kind, data.present, data.labels, data.metadata) == ("multilabel", ((1, 2), (), (0,)), (), ())
    assert data.classnames == ("cat", "dog", "owl")


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy([0, 1]), r"s0000001\.npy has 2 entries, but classnames\.txt names 3"),
        (npy([0, -1, 1]), r"s0000001\.npy holds -1; allowed: 1"),
        (npy([0, 0.5, 1]), r"holds 0\.5"),
        (npy([0, float("nan"), 1]), "not finite"),
        (npy([[0, 1, 1]]), "must hold one row of numbers"),
        (npy("text"), "must hold one row of numbers"),
        (npy([0, 1, 1])[:-1], "not a readable array"),
        (b"", "not a readable array"),
    ],
)
def test_a_bad_vector(make: Make, member: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(make([{"npy": npy([0, 0, 1])}, {"npy": member}], kind="multilabel"))


def test_an_array_of_objects_is_not_unpickled(make: Make) -> None:
    with pytest.raises(DataError, match="not a readable array"):
        open_dataset(make([{"npy": npy(np.array([print, print, print], dtype=object))}], kind="multilabel"))


def test_metadata_beside_the_label(make: Make) -> None:
    samples = [{"cls": b"2", "npy": npy([3, 1.5])}, {"cls": b"0", "npy": npy([4, 2])}]
    folder = make(samples, about=json.dumps({"metadata_fields": ["region", "year"]}))
    data = open_dataset(folder)
    assert (data.labels, data.metadata, data.metadata_fields) == ((2, 0), ((3, 1.5), (4, 2)), ("region", "year"))
    assert open_dataset(folder, metadata_fields=["a", "b"]).metadata_fields == ("a", "b")
    with pytest.raises(DataError, match="metadata has 2 columns, and 1 names are given for them: a"):
        open_dataset(folder, metadata_fields=["a"])
    (folder / "about.json").write_text('{"metadata_fields": "region"}')
    with pytest.raises(DataError, match="'metadata_fields' is a list of names"):
        open_dataset(folder)
    (folder / "about.json").write_text("[]")
    with pytest.raises(DataError, match="must hold one object, not list"):
        open_dataset(folder)


def test_metadata_everywhere_or_nowhere(make: Make) -> None:
    with pytest.raises(DataError, match=r"'s0000001' has no \.npy"):
        open_dataset(make([{"cls": b"0", "npy": npy([1])}, {"cls": b"0"}]))
    with pytest.raises(DataError, match=r"s0000001\.npy has 2 numbers, and the first sample's 1"):
        open_dataset(make([{"cls": b"0", "npy": npy([1])}, {"cls": b"0", "npy": npy([1, 2])}]))


FACES = {
    "classnames": "race:black\nrace:white\ngender:male\ngender:\nage: 0-2: infant\n",
    "templates": "race:a photo of a {c} person\ngender:a {c}\nage:aged {c}\nage:an {c}\n",
}


def test_objectives_are_separate_questions(make: Make) -> None:
    folder = make([{"npy": npy([0, 1, 1])}, {"npy": npy([0, 0, 0])}], **FACES)
    fields = ("age", "gender", "race")
    race = open_dataset(folder, objective="race", metadata_fields=fields)
    assert (race.classnames, race.templates) == (("black", "white"), ("a photo of a {c} person",))
    assert (race.labels, race.objective) == ((1, 0), "race")
    gender = open_dataset(folder, objective="gender", metadata_fields=fields)
    assert (gender.classnames, gender.labels) == (("male", ""), (1, 0))
    age = open_dataset(folder, objective="age", metadata_fields=fields)
    assert (age.classnames, age.templates) == (("0-2: infant",), ("aged {c}", "an {c}"))  # split at the first colon
    with pytest.raises(DataError, match=r"asks several questions .* choose one of race, gender, age \(objective="):
        open_dataset(folder)
    with pytest.raises(DataError, match="has no objective 'toxic'; choose one of race"):
        open_dataset(folder, objective="toxic")
    with pytest.raises(DataError, match="nothing says the right answers of the objective 'race'"):
        open_dataset(folder, objective="race")
    with pytest.raises(DataError, match="column 'age' holds 1, but there are 1 classes"):
        open_dataset(folder, objective="age", metadata_fields=("gender", "race", "age"))


def test_a_colon_in_some_names_is_no_objective(make: Make) -> None:
    samples = [{"cls": b"0"}]
    folder = make(samples, classnames="sign: stop\nsign: yield\n", templates="a {c}\nitap of a: {c}\n")
    assert open_dataset(folder).classnames == ("sign: stop", "sign: yield")
    with pytest.raises(DataError, match="has no objective 'sign'"):
        open_dataset(folder, objective="sign")


def test_names_and_templates_from_elsewhere(make: Make) -> None:
    folder = make([{"cls": b"1"}])
    (folder / "classnames.txt").unlink()
    (folder / "zeroshot_classification_templates.txt").unlink()
    data = open_dataset(folder, classnames=["gatto", "cane"], templates=["una {c}"], name="animali")
    assert (data.name, data.classnames, data.templates) == ("animali", ("gatto", "cane"), ("una {c}",))
    with pytest.raises(DataError, match="holds the label 1, but"):
        open_dataset(folder, classnames=["gatto"], templates=["una {c}"])


def test_lines_as_other_editors_write_them(make: Make) -> None:
    folder = make(
        [{"cls": b"1\r\n"}],
        classnames="\ufeff cat\r\n\r\nowl\u2028s \r\n",
        templates="\ufeffa {c}\r\n",
        kind="\ufeffClassification\r\n",
    )
    (folder / "test" / "nshards.txt").write_bytes(b"\xef\xbb\xbf1\r\n")
    data = open_dataset(folder)
    assert data.classnames == ("cat", "", "owl\u2028s")
    assert data.templates == ("a {c}",)
    captions = "\ufeffa cat\r\n a\u2028dog \r\n".encode()
    assert open_dataset(make([{"txt": captions}], kind="retrieval")).captions == (("a cat", " a\u2028dog "),)


def choice(captions: str, **facts: object) -> dict[str, bytes]:
    return {"txt": captions.encode(), "json": json.dumps(facts).encode()}


def test_caption_choice(make: Make) -> None:
    samples = [
        choice("a dog bites a man\na man bites a dog", right=1, example="7", category="swap"),
        choice("a dog bites a man\na man bites a dog", right=0, example="7"),
        choice("a\nb", right=0),
    ]
    data = open_dataset(make(samples, kind="caption_choice"))
    assert (data.kind, data.right_captions, data.examples) == ("caption_choice", (1, 0, 0), ("7", "7", "s0000002"))
    assert data.categories == ("swap", "", "")
    assert data.captions[2] == ("a", "b")
    assert open_dataset(make(samples[1:], kind="caption_choice")).categories == ()


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (choice("a\nb", right=2), "'right' is the place of the right caption, 0 to 1, not 2"),
        (choice("a\nb"), "not None"),
        (choice("a\nb", right=True), "not True"),
        (choice("a", right=0), "has one caption, so there is nothing to choose"),
        (choice("a\nb", right=0, example=3), "'example' is a text, not 3"),
        ({"txt": b"a\nb", "json": b"[]"}, "must hold one object, not list"),
        ({"txt": b"a\nb", "json": b"{"}, "not valid JSON"),
        ({"txt": b"a\nb", "json": b"\xff"}, "not UTF-8"),
        ({"txt": b"a\nb"}, r"has no \.json"),
    ],
)
def test_a_bad_choice(make: Make, sample: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(make([sample], kind="caption_choice"))


def riddle(**facts: object) -> str:
    return json.dumps({"cue": "pipe", "candidates": ["s0000000", "s0000002"], "right": ["s0000002"], **facts})


def test_association(make: Make) -> None:
    folder = make([{}, {}], [{}], kind="association")
    lines = [riddle(), riddle(cue="wolf", candidates=["s0000001", "s0000000"], right=["s0000001"])]
    (folder / "test" / "associations.jsonl").write_text("\n".join(lines) + "\n")
    data = open_dataset(folder)
    assert data.associations == (Association("pipe", (0, 2), (2,)), Association("wolf", (1, 0), (1,)))
    assert len(data.samples) == 3
    check_size(data, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no riddle"),
        (riddle(cue=" "), "line 1: 'cue' is a word"),
        (riddle(right=["s0000001"]), "'right' names some of the candidates"),
        (riddle(right=["s0000000", "s0000002"]), "not all of them"),
        (riddle(right=[]), "'right' is a list of keys"),
        (riddle(candidates=["s0000000", "s0000000"]), "names an image twice"),
        (riddle(candidates=["s0000002", "x"]), "names the image 'x', which is in no shard"),
        (riddle() + "\n\n", "line 2: not valid JSON"),
    ],
)
def test_bad_associations(make: Make, text: str, message: str) -> None:
    folder = make([{}, {}, {}], kind="association")
    with pytest.raises(DataError, match=r"associations\.jsonl: no such file"):
        open_dataset(folder)
    (folder / "test" / "associations.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset(folder)


def test_a_key_twice_cannot_be_named(make: Make) -> None:
    folder = make([{}], kind="association")
    (folder / "test" / "1.tar").write_bytes((folder / "test" / "0.tar").read_bytes())
    (folder / "test" / "nshards.txt").write_text("2")
    (folder / "test" / "associations.jsonl").write_text(riddle())
    with pytest.raises(DataError, match="hold a key twice"):
        open_dataset(folder)


def test_an_unknown_kind(make: Make) -> None:
    with pytest.raises(DataError, match="'segmentation'; allowed: classification, multilabel, retrieval, caption_ch"):
        open_dataset(make([{}], kind="segmentation"))


def test_the_size_is_checked(make: Make) -> None:
    data = open_dataset(make([{"cls": b"0"}, {"cls": b"1"}]))
    check_size(data, 2, classes=3)
    with pytest.raises(DataError, match="set has 2 samples here and 50000 where"):
        check_size(data, 50_000)
    with pytest.raises(DataError, match="set has 3 class names here and 1000 where"):
        check_size(data, 2, classes=1000)


def test_the_size_of_a_choice_is_its_examples(make: Make) -> None:
    data = open_dataset(make([choice("a\nb", right=place, example="7") for place in (0, 1)], kind="caption_choice"))
    check_size(data, 1)
    with pytest.raises(DataError, match="set has 1 samples here and 2 where"):
        check_size(data, 2)


def test_the_name_of_a_repository(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "datasets--clip-benchmark--wds_vtab-cifar10" / "snapshots" / ("0" * 40)
    folder.parent.mkdir(parents=True)
    make([{"cls": b"0"}]).rename(folder)
    assert open_dataset(folder).name == "wds_vtab-cifar10"


def manifest_of(folder: Path, **changed: Any) -> Path:
    paths = sorted((folder / "test").glob("*.tar"))
    shards = [ShardFacts(len(index_shard(path)), path.stat().st_size, shard_sha256(path)) for path in paths]
    facts = {"samples": sum(shard.samples for shard in shards), "shards": tuple(shards), "classes": 3, **changed}
    (folder / "test" / "manifest.json").write_text(json.dumps(Manifest(**facts).to_json()))
    return folder


def test_a_manifest_is_compared(make: Make) -> None:
    folder = manifest_of(make([{"cls": b"0"}, {"cls": b"1"}], [{"cls": b"2"}]))
    assert open_dataset(folder).labels == (0, 1, 2)
    path = folder / "test" / "1.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 1  # in the bytes of an image
    path.write_bytes(data)
    assert open_dataset(folder, verify=False).labels == (0, 1, 2)
    with pytest.raises(DataError, match=r"1\.tar: its bytes are not those that manifest\.json names"):
        open_dataset(folder)
    path.write_bytes(data + bytes(512))
    with pytest.raises(DataError, match=rf"1\.tar: has {len(data) + 512} bytes, manifest\.json says {len(data)}"):
        open_dataset(folder, verify=False)
    (folder / "test" / "nshards.txt").write_text("1")
    path.unlink()
    with pytest.raises(DataError, match=r"holds 1 shard\(s\), its manifest\.json names 2"):
        open_dataset(folder)


def test_a_manifest_of_something_else(make: Make) -> None:
    folder = make([{"cls": b"0"}])
    manifest_of(folder, samples=7)
    with pytest.raises(DataError, match=r"test: holds 1 samples, manifest\.json says 7"):
        open_dataset(folder)
    manifest_of(folder, classes=4)
    with pytest.raises(DataError, match="3 class names, its manifest says 4"):
        open_dataset(folder)
    shard = folder / "test" / "0.tar"
    facts = ShardFacts(2, shard.stat().st_size, shard_sha256(shard))
    manifest_of(folder, shards=(facts,))
    with pytest.raises(DataError, match=r"0\.tar: holds 1 samples, manifest\.json says 2"):
        open_dataset(folder)
    for text in ("{", "[]", "{}", '{"schema": 1, "samples": 1, "shards": [{}]}'):
        with pytest.raises(DataError, match="not a manifest"):
            parse_manifest(text.encode(), "it")
    with pytest.raises(DataError, match="a manifest of schema 9"):
        parse_manifest(b'{"schema": 9, "samples": 1, "shards": []}', "it")


def test_read_each_opens_a_shard_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make([{"cls": b"0"}, {"cls": b"1"}], [{"cls": b"2"}])
    samples = open_dataset(folder).samples
    opened = []
    real = open
    monkeypatch.setattr("builtins.open", lambda path, *rest: (opened.append(str(path)), real(path, *rest))[1])
    assert list(read_each(samples, "cls")) == [b"0", b"1", b"2"]
    assert [re.sub(r".*/", "", path) for path in opened] == ["0.tar", "1.tar"]


def test_sets_that_clip_benchmark_wrote() -> None:
    golden = Path(__file__).parent / "golden" / "clip_benchmark"  # bench/bench_layout.py --write
    names, templates = ("cat", "", "owl"), ("a {c}", "the {c}")
    data = open_dataset(golden / "classification")
    assert (data.classnames, data.templates, data.labels) == (names, templates, (0, 1))
    for number, sample in enumerate(data.samples):
        pixels = np.random.RandomState(number).randint(0, 256, (20, 30, 3), dtype=np.uint8)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(read_image_bytes(sample)[0])).convert("RGB")), pixels)
    data = open_dataset(golden / "multilabel")
    assert (data.classnames, data.templates, data.present) == (names, templates, ((1,), (0, 1)))
    assert open_dataset(golden / "retrieval").captions == (("one, and more", "two\\nlines"),) * 2
