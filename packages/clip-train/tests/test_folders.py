"""Folders of images, made-up pictures and data sets of Hugging Face: `image_folder`, `synthetic`, `huggingface`."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from clip_core.errors import DataError, ImageError
from clip_train.data.huggingface import HuggingFaceSource
from clip_train.data.image_folder import ImageFolderSource
from clip_train.data.synthetic import SyntheticSource


@pytest.fixture
def folder(tmp_path: Path, make: Any) -> Path:
    for number, name in enumerate(("golden_retriever/a.png", "golden_retriever/deep/b.PNG", "cat/c.png", "top.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(make.png(number))
    (tmp_path / "cat" / "c.txt").write_text("a cat on a mat\n")
    (tmp_path / "cat" / "notes.md").write_text("no image")
    return tmp_path


def test_captions_are_texts_beside_the_images_or_names_of_folders(folder: Path, make: Any) -> None:
    source = pickle.loads(pickle.dumps(ImageFolderSource(str(folder), template="a photo of a {}.")))
    found = {source.label(n).removeprefix(f"{folder}/"): source.read(n) for n in range(len(source))}
    assert found == {
        "cat/c.png": (make.png(2), b"a cat on a mat\n"),
        "golden_retriever/a.png": (make.png(0), b"a photo of a golden retriever."),
        "golden_retriever/deep/b.PNG": (make.png(1), b"a photo of a golden retriever."),
    }
    assert [Path(group).name for group in source.groups] == ["cat", "golden_retriever"]
    assert [source.group(n) for n in range(3)] == [0, 1, 1]
    # An image without a folder and without a text has no caption.
    assert source.facts()["left_out_by_shard"] == {str(folder): 1}


def test_the_fingerprint_of_a_folder_is_of_its_images(folder: Path, make: Any) -> None:
    before = ImageFolderSource(str(folder), template="{}")
    (folder / "cat" / "d.png").write_bytes(make.png(9))
    after = ImageFolderSource(str(folder), template="{}")
    assert (len(before), len(after)) == (3, 4)
    assert before.fingerprint != after.fingerprint == ImageFolderSource(str(folder), template="{}").fingerprint
    (folder / "cat" / "d.png").unlink()
    with pytest.raises(ImageError, match=r"d\.png"):
        after.read(1)


def test_a_folder_without_captions_is_an_error(tmp_path: Path, make: Any) -> None:
    (tmp_path / "x.png").write_bytes(make.png(0))
    with pytest.raises(DataError, match="no image with a caption"):
        ImageFolderSource(str(tmp_path), template="{}")
    with pytest.raises(DataError, match="no such folder"):
        ImageFolderSource(str(tmp_path / "gone"), template="{}")


def test_made_up_pictures_are_functions_of_their_number() -> None:
    source = SyntheticSource(500)
    for number in (0, 499):
        assert source.read(number) == SyntheticSource(7).read(number)
    images = {source.read(n)[0] for n in range(50)}
    captions = [source.read(n)[1].decode() for n in range(50)]
    assert len(images) == len(set(captions)) == 50
    assert PIL.Image.open(io.BytesIO(source.read(3)[0])).size == (256, 256)
    assert captions[3].endswith("number 3")
    assert source.fingerprint != SyntheticSource(7).fingerprint


def test_a_made_up_picture_shows_what_its_caption_says() -> None:
    source = SyntheticSource(200)
    checked = 0
    for number in range(200):
        words = source.read(number)[1].decode().split()
        if words[1:4] == ["large", "red", "square"]:
            image = PIL.Image.open(io.BytesIO(source.read(number)[0]))
            pixels = image.resize((32, 32)).tobytes()
            colours = zip(pixels[::3], pixels[1::3], pixels[2::3], strict=True)
            red = sum(abs(r - 214) < 30 and abs(g - 40) < 30 and abs(b - 40) < 30 for r, g, b in colours)
            assert red / 1024 > 0.4
            checked += 1
    assert checked


@pytest.fixture
def saved(tmp_path: Path, make: Any) -> Any:
    datasets = pytest.importorskip("datasets")
    rows = {
        "picture": [{"bytes": make.png(n), "path": None} for n in range(4)],
        "words": [["one", "two"], ["three"], [], ["four", " "]],
    }
    features = datasets.Features({"picture": datasets.Image(), "words": [datasets.Value("string")]})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "set"))
    return tmp_path / "set"


def test_a_data_set_of_hugging_face_is_read_undecoded(saved: Path, make: Any) -> None:
    source = HuggingFaceSource(str(saved), split="train", image_column="picture", caption_column="words")
    assert len(source) == 4
    assert source.read(1) == (make.png(1), b"three")
    assert {source.read(0, draw)[1] for draw in range(4)} == {b"one", b"two"}
    assert source.read(2)[1] == b""
    assert pickle.loads(pickle.dumps(source)).read(3) == (make.png(3), b"four")
    with pytest.raises(DataError, match=r"no column 'wordz'. Did you mean words\?"):
        HuggingFaceSource(str(saved), split="train", image_column="picture", caption_column="wordz")
    with pytest.raises(DataError, match="cannot be loaded by datasets"):
        HuggingFaceSource(str(saved.parent / "gone"), split="train", image_column="picture", caption_column="words")
