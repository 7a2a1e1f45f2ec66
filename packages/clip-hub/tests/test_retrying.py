"""The policy of tries: which, how often, after how long."""

from __future__ import annotations

import pytest

import clip_hub.retrying
from clip_hub.retrying import Broken, retry_after, retrying


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    taken: list[float] = []
    monkeypatch.setattr(clip_hub.retrying, "sleep", taken.append)
    return taken


def failing(*errors: Exception):
    waiting = list(errors)

    def action() -> str:
        if waiting:
            raise waiting.pop(0)
        return "done"

    return action


def test_pauses_grow_and_the_last_failure_is_passed_on(pauses, caplog) -> None:
    assert retrying(failing(*[Broken("no answer")] * 4), "a file") == "done"
    assert pauses == [1, 2, 4, 8]
    assert "a file: no answer; trying again in 8 s (4 of 5)" in caplog.text
    with pytest.raises(Broken, match="no answer, 5 times"):
        retrying(failing(*[Broken("no answer")] * 5), "a file")


def test_a_server_is_given_the_time_it_asks_for_within_reason(pauses) -> None:
    assert retrying(failing(Broken("busy", after=30)), "a file") == "done"
    assert pauses == [30]
    with pytest.raises(Broken, match="busy, for 3600 s"):
        retrying(failing(Broken("busy", after=3600)), "a file")
    assert retry_after({"Retry-After": " 7 "}) == 7
    assert retry_after({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}) is None
    assert retry_after({}) is None


def test_other_errors_are_not_tried_again(pauses) -> None:
    with pytest.raises(KeyError):
        retrying(failing(KeyError("mistake")), "a file")
    assert pauses == []
