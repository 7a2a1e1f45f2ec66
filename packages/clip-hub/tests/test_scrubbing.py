"""Nothing that is published says whose folder it came from."""

from __future__ import annotations

import json

import pytest

from clip_hub.scrubbing import scrubbed, scrubbed_command, scrubbed_json, scrubbed_names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/alice/data/{00..31}.tar", ".../{00..31}.tar"),
        ("/srv/John Doe/x.tar", ".../x.tar"),
        ("/data", ".../data"),
        ("~/runs/a/", ".../a"),
        ("~alice/runs/a", ".../a"),
        ("C:\\work\\alice\\x.pt", ".../x.pt"),
        ("file:///srv/alice/x.tar", ".../x.tar"),
        ("ViT-B-32:/srv/alice/x.pt", "ViT-B-32:.../x.pt"),
        ("/a/b/x.tar::/a/c/y.tar", ".../x.tar::.../y.tar"),
        ("the file /srv/alice/x.tar is damaged", "the file .../x.tar is damaged"),
        ("pipe:cat /srv/alice/x.tar", "pipe:cat .../x.tar"),
        ("https://host/a/b.tar", "https://host/a/b.tar"),
        ("s3://bucket/a/{0..9}.tar", "s3://bucket/a/{0..9}.tar"),
        ("see https://host/a/b.", "see https://host/a/b."),
        ("runs/a/bundle", "runs/a/bundle"),
        ("ViT-B/32, cats and/or dogs, 3 / 4", "ViT-B/32, cats and/or dogs, 3 / 4"),
        ("org/name", "org/name"),
        ("", ""),
    ],
)
def test_absolute_paths_lose_their_folders_and_nothing_else_changes(text: str, expected: str) -> None:
    assert scrubbed(text) == expected


def test_names_that_become_one_are_numbered() -> None:
    names = ["/srv/a/bundle", "/srv/b/bundle", "/srv/a/bundle", "runs/c/bundle"]
    assert list(scrubbed_names(names).values()) == [".../bundle", ".../bundle (2)", "runs/c/bundle"]


def test_commands_and_json_are_scrubbed_word_by_word() -> None:
    command = "/srv/alice/venv/bin/clip-eval run '/srv/John Doe/b' --output=/tmp/x --name 'a b'"
    assert scrubbed_command(command) == ".../clip-eval run .../b --output=.../x --name 'a b'"
    assert scrubbed_command("it's /srv/alice/x") == "it's .../x"
    plain = '{"a": [1, 2],\n "b": "runs/x"}'
    assert scrubbed_json(plain) == plain
    assert scrubbed_json('{"a": [1, 2],\n "b": "/runs/x/y"}') == '{"a": [1, 2],\n "b": ".../y"}'
    told = {"command": command, "a": [{"path": "/srv/alice/x"}, 3, None], "accuracy": 0.5}
    assert json.loads(scrubbed_json(json.dumps(told))) == {
        "command": scrubbed_command(command),
        "a": [{"path": ".../x"}, 3, None],
        "accuracy": 0.5,
    }
