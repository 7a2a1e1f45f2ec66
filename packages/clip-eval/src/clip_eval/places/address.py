"""The address of a data set as a user writes it, taken apart: a folder here, a repository of the Hub, or a URL.

data/digits                                              a folder, where there is one of that name
file:///data/digits
org/name, org/name@revision                              a repository of the Hub
hf://datasets/org/name@revision/folder
https://huggingface.co/datasets/org/name/tree/revision/folder
s3://bucket/name, gs://..., memory://..., https://...    whatever fsspec reads
"""

from __future__ import annotations

import os
import re
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from clip_core.errors import DataError

__all__ = ["Folder", "HubRepository", "Place", "Url", "resolve_root", "take_apart", "without_secrets"]

_USER = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY = re.compile(r"(://[^\s?#]*)[?#]\S*")
_REVISION = r"(?:@(?P<revision>refs/(?:pr|convert)/[^/@]+|[^/@]+))?"
_NAME = r"(?P<repo>[\w.-]+/[\w.-]+)"
_SHORT = re.compile(_NAME + _REVISION)
_HF = re.compile(r"hf://datasets/" + _NAME + _REVISION + r"(?:/(?P<folder>.+?))?/*")
_PAGE = re.compile(
    r"/datasets/" + _NAME + r"(?:/(?:tree|resolve|blob|raw)/(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+)"
    r"(?:/(?P<folder>.+?))?)?/*"
)


@dataclass(frozen=True)
class Folder:
    """A folder of this machine."""

    path: Path


@dataclass(frozen=True)
class HubRepository:
    """A repository of the Hub, or a folder in one."""

    repo: str
    revision: str = "main"
    folder: str = ""
    """With "/" inside and none at the ends."""


@dataclass(frozen=True)
class Url:
    """A folder that fsspec or a web server knows."""

    url: str

    @property
    def name(self) -> str:
        """What to call the data set: the last part of the path."""
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.url).path).rstrip("/")
        last = path.rpartition("/")[2] or urllib.parse.urlsplit(self.url).netloc.rpartition("@")[2]
        return re.sub(r"[^\w.-]", "_", last).lstrip(".") or "dataset"


Place = Folder | HubRepository | Url


def resolve_root(address: str, root: str) -> str:
    """The address of the data set called `address` below `root`.

    `root` is a folder or URL that holds data sets, each under its name or as "wds_" and its name with "-" for "/"; or
    an address in which `{dataset}` and `{dataset_cleaned}` (with "-" for "/") stand for the name, as CLIP_benchmark
    writes it.
    """
    cleaned = address.replace("/", "-")
    if "{dataset" in root:
        return root.replace("{dataset_cleaned}", cleaned).replace("{dataset}", address)
    if "://" in root:
        return f"{root.rstrip('/')}/{address}"
    for name in (address, f"wds_{cleaned}", cleaned):
        if (Path(root) / name).is_dir():
            return str(Path(root) / name)
    raise DataError(f"{root}: holds no data set {address!r} (nor wds_{cleaned}). Check the name and the folder.")


def take_apart(address: str | os.PathLike[str]) -> Place:
    """The place that `address` names. Raises `DataError` for what is neither here nor an address."""
    from huggingface_hub import constants

    text = os.fspath(address)
    if Path(text).is_dir():
        return Folder(Path(text))
    if text.startswith("file://"):
        return Folder(Path(urllib.request.url2pathname(urllib.parse.urlsplit(text).path)))
    if text.startswith("hf://"):
        found = _HF.fullmatch(text)
        if found is None:
            raise DataError(f"{text}: not the address of a data set; write hf://datasets/org/name@revision.")
        return _repository(found)
    if text.startswith(("https://", "http://")):
        parts = urllib.parse.urlsplit(text)
        hubs = {urllib.parse.urlsplit(address).netloc for address in (constants.ENDPOINT, "https://huggingface.co")}
        if parts.netloc in hubs | {"hf.co"}:
            found = _PAGE.fullmatch(urllib.parse.unquote(parts.path))
            if found is None:
                raise DataError(
                    f"{text}: not the page of a data set; write https://huggingface.co/datasets/org/name/tree/revision."
                )
            return _repository(found)
    if "://" in text:
        return Url(text.rstrip("/"))
    found = _SHORT.fullmatch(text)
    if found is None or text.startswith("."):
        raise DataError(
            f"{text}: no such data set folder, and no address: org/name of the Hub, hf://datasets/org/name, s3://..., "
            "https://... `clip-eval build` writes data sets to disk."
        )
    return _repository(found)


def _repository(found: re.Match[str]) -> HubRepository:
    parts = found.groupdict()
    return HubRepository(parts["repo"], parts["revision"] or "main", (parts.get("folder") or "").strip("/"))


def without_secrets(text: str) -> str:
    """`text` with every URL in it lacking what may be secret: the user, the password, the query and the fragment."""
    return _QUERY.sub(r"\1", _USER.sub("", text))
