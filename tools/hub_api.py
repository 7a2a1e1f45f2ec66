"""The addresses of a Hub that huggingface_hub's client asks for; see `hub_server`."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from typing import Any

from hub_http import Handler
from hub_state import Commit, Repository, StoredFile, history, is_large

__all__ = ["Hub"]

_ROOTS = ("revision", "tree", "paths-info", "refs", "commits", "branch", "tag", "preupload", "commit")
_API = re.compile(rf"/api/(?P<kind>models|datasets)/(?P<repo>.+?)(?:/(?P<what>{'|'.join(_ROOTS)})(?:/(?P<rest>.*))?)?")
_RESOLVE = re.compile(r"/(?P<repo>(?:datasets/)?(?:[^/]+/)?[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_SMALL = re.compile(
    r"/api/resolve-cache/(?P<kind>models|datasets)/(?P<repo>(?:[^/]+/)?[^/]+)/(?P<revision>[0-9a-f]{40})/(?P<path>.+)"
)
_LFS = re.compile(r"/(?P<repo>.+)\.git/info/lfs/objects/batch")
_VERIFY = re.compile(r"/api/lfs/verify/(?P<repo>.+)")


class Hub(Handler):
    """Repositories, their files and their commits."""

    def file_of(self, path: str) -> str:
        found = _SMALL.fullmatch(path) or _RESOLVE.fullmatch(path)
        return urllib.parse.unquote(found["path"]) if found else ""

    def route(self, path: str) -> None:
        if path == "/api/whoami-v2":
            if self.user is None:
                return self.refuse(401, "", "Invalid username or password.")
            token = {"type": "access_token", "accessToken": {"displayName": "test", "role": "write"}}
            return self.tell({"type": "user", "name": self.user, "orgs": [], "auth": token})
        if path == "/api/repos/create":
            return self.create()
        if path == "/api/validate-yaml":
            return self.validate()
        for pattern, action in (
            (_SMALL, self.small),
            (_RESOLVE, self.resolve),
            (_LFS, self.batch),
            (_VERIFY, self.verify),
            (_API, self.api),
        ):
            if found := pattern.fullmatch(path):
                parts = {name: urllib.parse.unquote(text or "") for name, text in found.groupdict().items()}
                kind = parts.pop("kind", "models")
                repository = self.visible(("datasets/" if kind == "datasets" else "") + parts.pop("repo"))
                return None if repository is None else action(repository, **parts)
        return self.refuse(404, "", f"no such address: {path}")

    def visible(self, repo: str) -> Repository | None:
        """The repository, if it is there and may be seen and changed; answers otherwise."""
        found = self.hub.repositories.get(repo)
        if found is None or (found.private and self.user is None):
            # The real Hub leaves the code out for strangers; its client then looks at the address, which is https.
            self.refuse(401 if self.user is None else 404, "RepoNotFound", "Repository not found")
            return None
        reads = self.command in ("GET", "HEAD") or "/paths-info/" in self.path
        if not reads and self.user is None:
            self.refuse(401, "", "Invalid username or password.")
            return None
        return found

    def commit_of(self, repository: Repository, revision: str) -> Commit | None:
        found = repository.find(revision)
        if found is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def file(self, repository: Repository, revision: str, path: str) -> tuple[Commit, StoredFile] | None:
        commit = self.commit_of(repository, revision)
        if commit is None:
            return None
        if repository.gated and self.user is None:
            self.refuse(401, "GatedRepo", f"Access to model {repository.name} is restricted. Please log in.")
            return None
        found = commit.files.get(path)
        if found is None:
            self.refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit.id})
            return None
        return commit, found

    def resolve(self, repository: Repository, revision: str, path: str) -> None:
        if (found := self.file(repository, revision, path)) is None:
            return None
        commit, stored = found
        headers = {"X-Repo-Commit": commit.id, "X-Linked-Size": str(len(stored.data))}
        if stored.large:
            headers["X-Linked-ETag"] = f'"{stored.sha256}"'
            repo = urllib.parse.quote(repository.name, safe="")
            headers["Location"] = f"{self.hub.cdn}/{repo}/{stored.sha256}/{urllib.parse.quote(path)}?Signature=local"
            return self.answer(302, b"", headers)
        headers["ETag"] = f'"{stored.git_hash}"'
        headers["Location"] = f"/api/resolve-cache/{_address(repository.name)}/{commit.id}/{urllib.parse.quote(path)}"
        return self.answer(307, b"", headers)

    def small(self, repository: Repository, revision: str, path: str) -> None:
        if (found := self.file(repository, revision, path)) is not None:
            commit, stored = found
            self.serve(path, stored.data, {"ETag": f'"{stored.git_hash}"', "X-Repo-Commit": commit.id})

    def api(self, repository: Repository, what: str, rest: str) -> None:
        if what in ("", "revision"):
            commit = self.commit_of(repository, rest or "main")
            return None if commit is None else self.tell(self.info(repository, commit))
        if what == "refs":
            return self.tell(_refs(repository))
        if what == "branch":
            return self.branch(repository, rest)
        if what == "tree":
            # The revision is quoted, so the first slash ends it.
            revision, _, folder = self.path.split("?")[0].partition("/tree/")[2].partition("/")
            commit = self.commit_of(repository, urllib.parse.unquote(revision))
            below = urllib.parse.unquote(folder)
            deep = self.query.get("recursive", "").lower() in ("1", "true")
            return None if commit is None else self.tell(_tree(commit, below, deep))
        commit = self.commit_of(repository, rest)
        if commit is None:
            return None
        if what == "preupload":
            return self.preupload(commit)
        if what == "commit":
            return self.commit(repository, rest)
        if what == "paths-info":
            return self.paths_info(commit)
        if what == "commits":
            empty = {"message": "", "date": "2026-01-01T00:00:00.000Z", "authors": []}
            return self.tell([{"id": one.id, "title": one.title, **empty} for one in history(commit)])
        repository.refs[json.loads(self.content)["tag"]] = commit
        return self.answer(200)

    def info(self, repository: Repository, commit: Commit) -> dict[str, object]:
        siblings: list[dict[str, object]] = []
        for path, stored in sorted(commit.files.items()):
            sibling: dict[str, object] = {"rfilename": path}
            if self.query.get("blobs"):
                sibling |= {"size": len(stored.data), "blobId": stored.git_hash}
                if stored.large:
                    lfs = {"sha256": stored.sha256, "size": len(stored.data), "pointerSize": len(stored.pointer)}
                    sibling["lfs"] = lfs
            siblings.append(sibling)
        flags = {"private": repository.private, "gated": "auto" if repository.gated else False, "disabled": False}
        return {
            "id": repository.name.removeprefix("datasets/"),
            "sha": commit.id,
            "siblings": siblings,
            "tags": [],
            **flags,
        }

    def branch(self, repository: Repository, name: str) -> None:
        if self.command == "DELETE":
            repository.refs.pop(name, None)
            return self.answer(200)
        if name.startswith("refs/"):
            return self.refuse(400, "", f"Invalid branch name: {name}")
        if name in repository.refs:
            return self.refuse(409, "", f"Reference already exists: {name}")
        start = self.commit_of(repository, json.loads(self.content or b"{}").get("startingPoint", "main"))
        if start is not None:
            repository.refs[name] = start
            self.answer(200)
        return None

    def paths_info(self, commit: Commit) -> None:
        wanted = urllib.parse.parse_qs(self.content.decode()).get("paths", [])
        if self.content.startswith(b"{"):
            wanted = json.loads(self.content)["paths"]
        self.tell([_entry(path, commit.files[path]) for path in wanted if path in commit.files])

    def create(self) -> None:
        if self.user is None:
            return self.refuse(401, "", "Invalid username or password.")
        asked = json.loads(self.content)
        name = f"{asked.get('organization') or self.user}/{asked['name']}"
        if asked.get("type") == "dataset":
            name = f"datasets/{name}"
        url = f"{self.hub.url}/{name}"
        if name in self.hub.repositories:
            return self.tell({"error": "You already created this repo", "url": url}, 409)
        private = asked.get("private") is True or asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository(name, private)
        return self.tell({"url": url, "name": name, "id": name})

    def validate(self) -> None:
        """Say what is wrong with the head of a model card, as far as it can be told without the Hub's tables."""
        import yaml  # type: ignore[import-untyped]  # it comes with huggingface_hub

        content = json.loads(self.content)["content"]
        head = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", content, re.DOTALL)
        if head is None:
            return self.tell({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
        try:
            values = yaml.safe_load(head[1])
            wrong = [] if isinstance(values, dict) else ["the metadata is not a mapping"]
        except yaml.YAMLError as error:
            wrong = [str(error)]
        return self.tell({"errors": [{"message": each} for each in wrong], "warnings": []}, 400 if wrong else 200)

    def preupload(self, commit: Commit) -> None:
        files = []
        for asked in json.loads(self.content)["files"]:
            mode = "lfs" if is_large(asked["path"], asked["size"]) else "regular"
            stored = commit.files.get(asked["path"])
            oid = {"oid": stored.etag} if stored else {}
            files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, **oid})
        self.tell({"files": files})

    def batch(self, repository: Repository) -> None:
        objects = []
        for asked in json.loads(self.content)["objects"]:
            described = {"oid": asked["oid"], "size": asked["size"]}
            if self.hub.by_hash(repository.name, asked["oid"]) is None:
                place = f"{self.hub.cdn}/{urllib.parse.quote(repository.name, safe='')}/{asked['oid']}/upload"
                verify = f"{self.hub.url}/api/lfs/verify/{repository.name}"
                described["actions"] = {"upload": {"href": place}, "verify": {"href": verify}}
            objects.append(described)
        self.tell({"transfer": "basic", "objects": objects})

    def verify(self, repository: Repository) -> None:
        asked = json.loads(self.content)
        data = repository.uploads.get(asked["oid"])
        self.answer(200 if data is not None and len(data) == asked["size"] else 404)

    def commit(self, repository: Repository, revision: str) -> None:
        header: dict[str, Any] = {}
        changes: dict[str, StoredFile | None] = {}
        for line in self.content.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                header = value
            elif item["key"] == "file":
                changes[value["path"]] = StoredFile(base64.b64decode(value["content"]), large=False)
            elif item["key"] == "lfsFile":
                data = self.hub.by_hash(repository.name, value["oid"])
                if data is None:
                    return self.refuse(400, "", f"large file {value['oid']} was not uploaded")
                changes[value["path"]] = StoredFile(data, large=True)
            else:
                files = repository.refs[revision].files if revision in repository.refs else {}
                gone = value["path"].rstrip("/")
                changes |= {path: None for path in files if path == gone or path.startswith(f"{gone}/")}
        parent = header.get("parentCommit")
        current = repository.find(revision)
        if parent is not None and current is not None and current.id != parent:
            return self.refuse(412, "", "A commit has happened since. Please refresh and try again.")
        pull_request = self.query.get("create_pr") == "1"
        target = repository.open_pull_request(revision) if pull_request else revision
        if target not in repository.refs:
            return self.refuse(400, "", f"{target} is no branch")
        made = repository.change(target, header.get("summary", ""), changes)
        told: dict[str, object] = {"success": True, "commitOid": made.id, "hookOutput": ""}
        told["commitUrl"] = f"{self.hub.url}/{repository.name}/commit/{made.id}"
        if pull_request:
            told["pullRequestUrl"] = f"{self.hub.url}/{repository.name}/discussions/{target.rpartition('/')[2]}"
        return self.tell(told)


def _address(repo: str) -> str:
    """A repository as the paths of the Hub's interface have it: "models/org/name", "datasets/org/name"."""
    return repo if repo.startswith("datasets/") else f"models/{repo}"


def _entry(path: str, stored: StoredFile) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(stored.data), "oid": stored.git_hash}
    if stored.large:
        entry["lfs"] = {"oid": stored.sha256, "size": len(stored.data), "pointerSize": len(stored.pointer)}
    return entry


def _tree(commit: Commit, folder: str, deep: bool) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = []
    folders: set[str] = set()
    prefix = f"{folder}/" if folder else ""
    for path, stored in sorted(commit.files.items()):
        if not path.startswith(prefix):
            continue
        parts = path.removeprefix(prefix).split("/")
        folders |= {prefix + "/".join(parts[:depth]) for depth in range(1, len(parts) if deep else min(2, len(parts)))}
        if deep or len(parts) == 1:
            entries.append(_entry(path, stored))
    told: list[dict[str, object]] = [{"type": "directory", "path": name, "oid": commit.id} for name in sorted(folders)]
    return [*told, *entries]


def _refs(repository: Repository) -> dict[str, object]:
    told: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    for name, commit in repository.refs.items():
        request = name.startswith("refs/")
        ref = name if request else f"refs/heads/{name}"
        told["pullRequests" if request else "branches"].append({"name": name, "ref": ref, "targetCommit": commit.id})
    return dict(told)
