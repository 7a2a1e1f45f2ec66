"""Prepare and check the release of one package.

`python tools/release.py bump clip-core minor` writes the next version into `__about__.py` and, with today's date, into
the changelog's top heading, and widens the ranges of the packages that depend on it where the new version falls outside
them. `same` instead of `minor` dates the version that is already there: the first release.
`python tools/release.py check clip-core-v0.2.0` refuses where tag, `__about__.py` and top heading differ, or where the
heading has no date; on success it prints `package=`, `version=` and `folder=` lines for the release workflow.
Nothing here commits, tags or uploads.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import re
import sys
from pathlib import Path

__all__ = ["Heading", "Refused", "bump", "check", "main", "next_version", "top_heading"]

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("major", "minor", "patch")
_VERSION = r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)"
_ABOUT = re.compile(rf'^__version__ = "(?P<version>{_VERSION})"$', re.MULTILINE)
_HEADING = re.compile(rf"^## (?P<version>{_VERSION})(?: \((?P<date>unreleased|\d{{4}}-\d{{2}}-\d{{2}})\))?\s*$")
_OPEN = re.compile(r"^## unreleased\s*$", re.IGNORECASE)


class Refused(Exception):
    """The release cannot go on; the message says what differs and what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Heading:
    """A changelog's heading: 1-based line, version, and the date, None while it is unreleased."""

    line: int
    version: str
    date: str | None


def top_heading(text: str) -> Heading | None:
    """The first heading of a changelog that names a version; None where its first section is something else.

    A section `## Unreleased` above it gathers lines for the next version and is passed over.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.startswith("## ") or _OPEN.match(line):
            continue
        found = _HEADING.match(line)
        if found is None:
            return None
        date = found["date"]
        return Heading(number, found["version"], None if date == "unreleased" else date)
    return None


def next_version(version: str, part: str) -> str:
    """`version` with `part` ("major", "minor", "patch") counted up and what follows it zeroed; "same" is itself."""
    if part == "same":
        return version
    numbers = [int(number) for number in version.split(".")]
    place = PARTS.index(part)
    return ".".join(str(number) for number in [*numbers[:place], numbers[place] + 1, *[0] * (2 - place)])


def check(root: Path, tag: str) -> tuple[str, str]:
    """(package, version) that `tag` releases. `Refused` where tag, version and changelog do not agree."""
    parsed = re.fullmatch(rf"(?P<package>[a-z][a-z0-9-]*)-v(?P<version>{_VERSION})", tag)
    if parsed is None:
        raise Refused(f"tag {tag!r}: a release tag is <package>-v<major>.<minor>.<patch>, for example clip-core-v0.1.0")
    package, version = parsed["package"], parsed["version"]
    about = _current(root, package)
    if about != version:
        raise Refused(
            f"tag {tag} names {version}, but __about__.py of {package} says {about}: bump first, or mend the tag"
        )
    changelog = _folder(root, package) / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    heading = top_heading(text)
    if heading is None or heading.version != version:
        says = "no version" if heading is None else heading.version
        raise Refused(f"tag {tag} names {version}, but the top heading of {changelog.relative_to(root)} names {says}")
    if heading.date is None:
        raise Refused(
            f"{changelog.relative_to(root)}: {version} is unreleased: `release.py bump {package} same` dates it"
        )
    if any(_OPEN.match(line) for line in text.splitlines()[: heading.line]):
        raise Refused(f"{changelog.relative_to(root)} has lines under Unreleased: bump, so that they get a version")
    return package, version


def bump(root: Path, package: str, part: str, today: datetime.date) -> list[str]:
    """Write the next version of `package`; one sentence per file changed. `Refused` where nothing is to release."""
    old = _current(root, package)
    new = next_version(old, part)
    folder = _folder(root, package)
    changelog = folder / "CHANGELOG.md"
    text = _dated(changelog.read_text(encoding="utf-8"), old, new, today, str(changelog.relative_to(root)))
    about = _about(root, package)
    about.write_text(_ABOUT.sub(f'__version__ = "{new}"', about.read_text(encoding="utf-8")), encoding="utf-8")
    changelog.write_text(text, encoding="utf-8")
    done = [f"{about.relative_to(root)}: {old} -> {new}", f"{changelog.relative_to(root)}: ## {new} ({today})"]
    for path in sorted(root.glob("packages/*/pyproject.toml")):
        before = path.read_text(encoding="utf-8")
        after = _ranges(before, package, new)
        if after != before:
            path.write_text(after, encoding="utf-8")
            done.append(f"{path.relative_to(root)}: depends on {package}{_range(new)}; release it too")
    return done


def _dated(text: str, old: str, new: str, today: datetime.date, name: str) -> str:
    """The changelog with its open section headed by the new version and the date."""
    lines = text.splitlines()
    heading = top_heading(text)
    if heading is None or heading.version != old:
        raise Refused(f"{name}: the top heading does not name {old}, the version of __about__.py")
    opened = [number for number, line in enumerate(lines[: heading.line]) if _OPEN.match(line)]
    if opened and heading.date is None:
        raise Refused(f"{name}: both an Unreleased section and {old} (unreleased): make them one")
    if not opened and heading.date is not None:
        raise Refused(
            f"{name}: nothing to release since {old}: a change brings its line under a heading `## Unreleased`"
        )
    if opened and new == old:
        raise Refused(f"{name}: {old} is out since {heading.date}: choose {', '.join(PARTS)}")
    place = opened[0] if opened else heading.line - 1
    following = (number for number in range(place + 1, len(lines)) if lines[number].startswith("## "))
    if not any(line.strip() for line in lines[place + 1 : next(following, len(lines))]):
        raise Refused(f"{name}: the section of {new} is empty: say what changed, in the user's words")
    lines[place] = f"## {new} ({today})"
    return "\n".join(lines) + "\n"


def _range(version: str) -> str:
    """The range that dependants declare: up to the next minor while major is 0, else up to the next major."""
    major, minor, _ = version.split(".")
    return f">=0.{minor},<0.{int(minor) + 1}" if major == "0" else f">={major}.{minor},<{int(major) + 1}"


def _ranges(text: str, package: str, version: str) -> str:
    """A pyproject.toml whose requirement on `package` admits `version`; unchanged where it does already."""
    numbers = tuple(int(number) for number in version.split("."))

    def widened(found: re.Match[str]) -> str:
        low, high = (tuple(int(number) for number in found[name].split(".")) for name in ("low", "high"))
        inside = low <= numbers < high
        return found[0] if inside else f'"{package}{found["extra"]}{_range(version)}"'

    pattern = rf'"{re.escape(package)}(?P<extra>(?:\[[\w,-]+\])?)>=(?P<low>[\d.]+),<(?P<high>[\d.]+)"'
    return re.sub(pattern, widened, text)


def _folder(root: Path, package: str) -> Path:
    folder = root / "packages" / package
    if not (folder / "pyproject.toml").is_file():
        known = sorted(path.parent.name for path in root.glob("packages/*/pyproject.toml"))
        raise Refused(f"unknown package {package!r}; there are: {', '.join(known)}")
    return folder


def _about(root: Path, package: str) -> Path:
    return _folder(root, package) / "src" / package.replace("-", "_") / "__about__.py"


def _current(root: Path, package: str) -> str:
    about = _about(root, package)
    found = _ABOUT.search(about.read_text(encoding="utf-8"))
    if found is None:
        raise Refused(f'{about.relative_to(root)} has no line such as __version__ = "0.1.0"')
    return found["version"]


def main(arguments: list[str]) -> int:
    """Exit code: 0, 1 where the release is refused, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(prog="release.py", description="Prepare and check the release of one package.")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("check", help="refuse where tag, __about__.py and changelog differ")
    one.add_argument("tag", help="for example clip-core-v0.1.0")
    two = commands.add_parser("bump", help="write the next version, date the changelog, widen dependants' ranges")
    two.add_argument("package", help="for example clip-core")
    two.add_argument("part", choices=(*PARTS, "same"), help="what to count up; same: release the version that is there")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "check":
            package, version = check(ROOT, chosen.tag)
            print(f"package={package}\nversion={version}\nfolder=packages/{package}")
        else:
            today = datetime.datetime.now(tz=datetime.UTC).date()
            print("\n".join(bump(ROOT, chosen.package, chosen.part, today)))
    except Refused as error:
        print(f"release.py: refused: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
