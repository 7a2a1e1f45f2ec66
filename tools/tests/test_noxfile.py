"""What the sessions share: which packages go together, what is handed to the installer, how arguments are read."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def noxfile() -> ModuleType:
    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_package_goes_with_those_to_its_left_only(noxfile: ModuleType) -> None:
    assert noxfile.up_to("clip-core") == ("clip-core",)
    assert noxfile.up_to("clip-eval") == ("clip-core", "clip-hub", "clip-eval")


def test_packages_lead_the_arguments_and_pytest_gets_the_rest(noxfile: ModuleType) -> None:
    choose = noxfile.choose
    assert choose([], noxfile.PACKAGES) == ([], [])
    assert choose(["clip-hub", "clip-core", "-k", "clip-eval"], noxfile.PACKAGES) == (
        ["clip-hub", "clip-core"],
        ["-k", "clip-eval"],
    )
    assert choose(["-m", "slow", "clip-core"], noxfile.PACKAGES) == ([], ["-m", "slow", "clip-core"])


def test_our_wheels_are_handed_over_by_path(noxfile: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    built = {name: Path(f"/built/{name}.whl") for name in noxfile.PACKAGES}
    monkeypatch.setattr(noxfile, "wheels", lambda: built)
    handed = noxfile.requirements(("clip-core", "clip-hub"), test=("clip-hub",))
    assert [text for text in handed if not text.startswith("--")] == [
        "/built/clip-core.whl",
        "/built/clip-hub.whl[test]",
    ]


def test_minimums_ask_for_every_declared_range_but_none_of_ours(noxfile: ModuleType) -> None:
    core, train = noxfile.declared("clip-core"), noxfile.declared("clip-train")
    assert "torch>=2.6" in core
    assert set(core) & set(train) >= {"torch>=2.6", "tqdm>=4.66.1"}
    assert "scikit-learn>=1.5" in set(train) - set(core)
    assert not [text for text in train if text.startswith("clip-")]
    assert len(train) == len(set(train))
