"""Releases: a tag is refused unless version and changelog agree, and a bump leaves a tree that its tag then fits."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

import release

TODAY = datetime.date(2027, 1, 2)


def plant(root: Path, package: str, version: str, changelog: str, dependency: str = "numpy>=1.26") -> None:
    folder = root / "packages" / package
    source = folder / "src" / package.replace("-", "_")
    source.mkdir(parents=True)
    (source / "__about__.py").write_text(f'__version__ = "{version}"\n')
    (folder / "CHANGELOG.md").write_text(changelog)
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{package}"\ndependencies = [\n    "{dependency}",\n]\n')


@pytest.fixture
def root(tmp_path: Path) -> Path:
    plant(tmp_path, "clip-core", "0.1.0", "# Changelog\n\n## 0.1.0 (unreleased)\n\n- First.\n")
    plant(tmp_path, "clip-hub", "0.1.0", "# Changelog\n\n## 0.1.0 (2026-11-21)\n\n- First.\n", "clip-core>=0.1,<0.2")
    return tmp_path


def changelog(root: Path, package: str = "clip-core") -> Path:
    return root / "packages" / package / "CHANGELOG.md"


def test_a_tag_that_fits_is_accepted(root: Path) -> None:
    assert release.check(root, "clip-hub-v0.1.0") == ("clip-hub", "0.1.0")


@pytest.mark.parametrize(
    ("tag", "says"),
    [
        ("v0.1.0", "a release tag is"),
        ("clip-hub-v0.1", "a release tag is"),
        ("clip-hub-v0.01.0", "a release tag is"),
        ("clip-hub-v0.2.0", "says 0.1.0"),
        ("clip-hum-v0.1.0", "there are: clip-core, clip-hub"),
        ("clip-core-v0.1.0", "is unreleased"),
    ],
)
def test_a_tag_that_does_not_fit_is_refused(root: Path, tag: str, says: str) -> None:
    with pytest.raises(release.Refused, match=says):
        release.check(root, tag)


def test_a_tag_is_refused_where_the_changelog_names_another_version_or_holds_more(root: Path) -> None:
    changelog(root, "clip-hub").write_text("## 0.0.9 (2026-11-20)\n\n- Before.\n")
    with pytest.raises(release.Refused, match="names 0.0.9"):
        release.check(root, "clip-hub-v0.1.0")
    changelog(root, "clip-hub").write_text(
        "# Changelog\n\n## Unreleased\n\n- More.\n\n## 0.1.0 (2026-11-21)\n\n- First.\n"
    )
    with pytest.raises(release.Refused, match="Unreleased"):
        release.check(root, "clip-hub-v0.1.0")


def test_the_first_release_is_dated_and_then_accepted(root: Path) -> None:
    release.bump(root, "clip-core", "same", TODAY)
    assert changelog(root).read_text() == "# Changelog\n\n## 0.1.0 (2027-01-02)\n\n- First.\n"
    assert release.check(root, "clip-core-v0.1.0") == ("clip-core", "0.1.0")


@pytest.mark.parametrize(
    ("part", "version", "dependency"),
    [
        ("patch", "0.1.1", "clip-core>=0.1,<0.2"),
        ("minor", "0.2.0", "clip-core>=0.2,<0.3"),
        ("major", "1.0.0", "clip-core>=1.0,<2"),
    ],
)
def test_a_bump_makes_a_tree_that_its_tag_fits(root: Path, part: str, version: str, dependency: str) -> None:
    changelog(root).write_text("# Changelog\n\n## Unreleased\n\n- Second.\n\n## 0.1.0 (2026-11-21)\n\n- First.\n")
    told = release.bump(root, "clip-core", part, TODAY)
    assert release.check(root, f"clip-core-v{version}") == ("clip-core", version)
    text = changelog(root).read_text()
    assert text == f"# Changelog\n\n## {version} (2027-01-02)\n\n- Second.\n\n## 0.1.0 (2026-11-21)\n\n- First.\n"
    assert f'"{dependency}"' in (root / "packages/clip-hub/pyproject.toml").read_text()
    assert ("clip-hub" in " ".join(told)) == (part != "patch")


def test_a_bump_with_nothing_to_tell_is_refused_and_changes_nothing(root: Path) -> None:
    for text in (
        "## 0.1.0 (2026-11-21)\n\n- First.\n",  # all released
        "## Unreleased\n\n## 0.1.0 (2026-11-21)\n\n- First.\n",  # an empty section
        "## Unreleased\n\n- Second.\n\n## 0.1.0 (unreleased)\n\n- First.\n",  # two open sections
        "## 0.0.9 (unreleased)\n\n- First.\n",  # another version
        "- First.\n",  # no heading
    ):
        changelog(root).write_text(text)
        with pytest.raises(release.Refused):
            release.bump(root, "clip-core", "minor", TODAY)
        assert changelog(root).read_text() == text
        assert (root / "packages/clip-core/src/clip_core/__about__.py").read_text() == '__version__ = "0.1.0"\n'


def test_a_released_version_is_not_dated_again(root: Path) -> None:
    changelog(root).write_text("## Unreleased\n\n- Second.\n\n## 0.1.0 (2026-11-21)\n\n- First.\n")
    with pytest.raises(release.Refused, match="is out since 2026-11-21"):
        release.bump(root, "clip-core", "same", TODAY)


def test_a_range_with_an_extra_keeps_it(tmp_path: Path) -> None:
    plant(tmp_path, "clip-core", "0.9.0", "## 0.9.0 (unreleased)\n\n- First.\n")
    plant(tmp_path, "clip-hub", "0.1.0", "## 0.1.0 (unreleased)\n", "clip-core[hf]>=0.9,<0.10")
    release.bump(tmp_path, "clip-core", "minor", TODAY)
    assert '"clip-core[hf]>=0.10,<0.11"' in (tmp_path / "packages/clip-hub/pyproject.toml").read_text()


def test_command_line(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(release, "ROOT", root)
    assert release.main(["check", "clip-hub-v0.1.0"]) == 0
    assert capsys.readouterr().out == "package=clip-hub\nversion=0.1.0\nfolder=packages/clip-hub\n"
    assert release.main(["check", "clip-hub-v9.9.9"]) == 1
    assert "refused" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        release.main(["bump", "clip-hub", "huge"])
    assert caught.value.code == 2
