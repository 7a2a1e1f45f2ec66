"""Captions in other languages beside the shards, and what does not fit."""

from __future__ import annotations

import pytest

from clip_core.errors import DataError
from clip_eval import open_dataset
from clip_eval.languages import captions_in, languages_of
from clip_eval.places import describe_dataset, fetch_dataset
from hub_server import HubServer


@pytest.fixture
def folder(make_retrieval):
    made = make_retrieval(["a cat\na pet", "a dog"])
    (made / "test" / "captions").mkdir()
    return made


def write(folder, name: str, text: str) -> None:
    (folder / "test" / "captions" / name).write_bytes(text.encode())


def test_lines_follow_the_images(folder) -> None:
    # XTD10's Chinese file has no line end at its end; U+2028 and a carriage return are no line ends.
    write(folder, "zh.txt", "一只\u2028猫\r\n狗")
    write(folder, "ja.jsonl", '["猫", "ねこ"]\n[]\n')
    write(folder, "notes.md", "no captions")
    dataset = open_dataset(folder)
    assert languages_of(dataset) == ("ja", "zh")
    assert captions_in(dataset, "zh") == (("一只\u2028猫",), ("狗",))
    assert captions_in(dataset, "ja") == (("猫", "ねこ"), ())
    assert captions_in(dataset) == (("a cat", "a pet"), ("a dog",))


def test_the_language_of_the_shards_has_a_name_where_it_is_stated(folder) -> None:
    dataset = open_dataset(folder)
    with pytest.raises(DataError, match="no captions in 'en'; allowed: none, or no language"):
        captions_in(dataset, "en")
    (folder / "about.json").write_text('{"language": "en"}')
    assert captions_in(dataset, "en") == dataset.captions
    assert languages_of(dataset) == ("en",)
    (folder / "about.json").write_text('{"language": 3}')
    with pytest.raises(DataError, match="'language' is a text, not 3"):
        languages_of(dataset)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("de.txt", "Katze\n", "holds 1 lines for 2 images"),
        ("de.txt", "Katze\nHund\n\n", "holds 3 lines for 2 images"),
        ("de.txt", "\n \n", "holds no caption"),
        ("de.jsonl", '["Katze"]\n["Hund"\n', "line 2: not valid JSON"),
        ("de.jsonl", '["Katze"]\n"Hund"\n', "line 2: must be a list of captions"),
        ("de.jsonl", '["Katze", " "]\n[]\n', "line 1: must be a list of captions, none of them blank"),
    ],
)
def test_what_does_not_fit_is_refused(folder, name: str, text: str, reason: str) -> None:
    write(folder, name, text)
    with pytest.raises(DataError, match=reason):
        captions_in(open_dataset(folder), "de")


def test_one_language_has_one_file(folder) -> None:
    write(folder, "de.txt", "Katze\nHund\n")
    write(folder, "de.jsonl", '["Katze"]\n["Hund"]\n')
    with pytest.raises(DataError, match="both de.txt and de.jsonl"):
        captions_in(open_dataset(folder), "de")


CAPTIONS = {
    "test/captions/de.txt": b"Katze\nHund\nEule\nKatze\nHund\nEule\n",
    "test/captions/zh.jsonl": b"[]\n" * 5 + b'["a"]\n',
}


def test_captions_come_with_a_set_from_a_web_server(wds_files, tmp_path) -> None:
    import fsspec

    files = wds_files() | CAPTIONS | {"about.json": b'{"languages": ["de", "zh"]}'}
    fsspec.filesystem("memory").store.clear()
    for name, data in files.items():
        with fsspec.open(f"memory://spoken/{name}", "wb") as file:
            file.write(data)
    folder = fetch_dataset("memory://spoken", cache_dir=tmp_path)
    assert {name: (folder / name).read_bytes() for name in files} == files
    assert languages_of(open_dataset(folder)) == ("de", "zh")
    assert describe_dataset("memory://spoken", cache_dir=tmp_path).files == len(files)
    for wrong in (b'{"languages": ["../../de"]}', b'{"languages": "de"}', b'{"languages": [3]}'):
        with fsspec.open("memory://spoken/about.json", "wb") as file:
            file.write(wrong)
        with pytest.raises(DataError, match="'languages' is a list of their names"):
            fetch_dataset("memory://spoken", cache_dir=tmp_path)
    fsspec.filesystem("memory").store.clear()


def test_captions_come_with_a_repository_of_the_hub(wds_files, tmp_path, monkeypatch) -> None:
    import huggingface_hub

    files = wds_files() | CAPTIONS
    with HubServer() as server:
        server.attract(monkeypatch, tmp_path / "huggingface")
        for name, data in files.items():
            server.files["datasets/someone/wds_spoken", name] = data
        folder = fetch_dataset("someone/wds_spoken")
        assert {name: (folder / name).read_bytes() for name in files} == files
        assert captions_in(open_dataset(folder), "de")[2] == ("Eule",)
        getattr(huggingface_hub, "close_session", lambda: None)()
