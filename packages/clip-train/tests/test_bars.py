from __future__ import annotations

import pytest

from clip_train import bars


def test_indexing_that_takes_long_has_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with bars.indexing_bar(True) as show:
        show(1, 3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(bars, "_SECONDS", 0.0)
    with bars.indexing_bar(True) as show:
        for done in range(4):
            show(done, 3)
        assert "indexing" in capsys.readouterr().err
    with bars.indexing_bar(False) as show:
        show(1, 3)
    with bars.training_bar(10, 4, True) as step:
        step(6, 1.25)
    err = capsys.readouterr().err
    assert "10.0/10.0" in err
    assert "loss 1.2500" in err
