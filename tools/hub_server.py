"""A Hub on 127.0.0.1 for tests: it speaks what huggingface_hub's client asks of the real one, and fails on demand.

    with HubServer() as hub:
        hub.files["someone/model", "config.json"] = b"{}"
        hub.fail("503", "config.json", times=2)
        subprocess.run(command, env=hub.environment(tmp_path))

Download: model info, tree, refs, `resolve` with its redirects: large files lie on a "CDN", a second port, which knows
nothing of tokens. Upload: create a repository, a branch, a pull request; preupload, LFS batch, basic transfer and
verification; commit. The repository of a data set is called "datasets/org/name", as in its address. By hand:
`python tools/hub_server.py FOLDER ...` serves folders as local/NAME. What it leaves out: xet storage, multipart
transfers and spaces.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from hub_api import Hub
from hub_faults import Fault, Request
from hub_http import Cdn, Server
from hub_state import Files, Repository, StoredFile, history

if TYPE_CHECKING:
    import pytest

__all__ = ["Fault", "HubServer", "Request", "attract"]


class HubServer:
    """The server and what it knows; a context manager that starts and stops it.

    Attributes:
        url: the Hub's address (`HF_ENDPOINT`); `cdn` is where large files are.
        files: bytes by (repository, path) on the main branches, to read and to write.
        repositories: by name, with their commits, branches and pull requests; `private` and `gated` may be set.
        tokens: users by token; `token` is one of the user "someone".
        faults, requests: what goes wrong, and what was asked.
        cache: where this process's client keeps its files after `attract`.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.files = Files(self.repositories)
        self.cache = Path()
        self.token = "hf_local"
        self.tokens = {self.token: "someone"}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        here = ("127.0.0.1", 0)
        self._servers = [Server(here, type(kind.__name__, (kind,), {"hub": self})) for kind in (Hub, Cdn)]
        self.url, self.cdn = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        self._threads = [
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
            for server in self._servers
        ]

    def __enter__(self) -> HubServer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()

    def fail(
        self,
        kind: str,
        file: str = "*",
        *,
        method: str = "*",
        times: int | None = None,
        retry_after: int | None = None,
        seconds: float = 0.05,
        at: int | None = None,
    ) -> None:
        """From here on, let requests for `file` go wrong; see `Fault`."""
        self.faults.append(Fault(kind, file, method, times, retry_after, seconds, at))

    def heal(self) -> None:
        """No more faults."""
        self.faults.clear()

    def add(self, repo: str, folder: Path) -> None:
        """Put the files below `folder` into `repo` in one commit."""
        found = {str(path.relative_to(folder).as_posix()): path for path in sorted(folder.rglob("*")) if path.is_file()}
        repository = self.repositories.setdefault(repo, Repository(repo))
        stored = {name: StoredFile.of(name, path.read_bytes()) for name, path in found.items()}
        repository.change("main", f"Upload {folder.name}", stored)

    def environment(self, home: Path, *, token: str | None = None) -> dict[str, str]:
        """This process's environment with huggingface_hub's client of another one pointed here, at an own cache."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        environment |= {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
        return environment if token is None else environment | {"HF_TOKEN": token}

    def attract(self, patch: pytest.MonkeyPatch, home: Path) -> None:
        """Point huggingface_hub's client of this process here until `patch` is undone."""
        self.cache = home / "hub"
        attract(self.url, home, patch)

    def take(self, file: str, path: str, method: str, *, body: bool) -> Fault | None:
        """The fault that a request meets, counted; of those of bodies only where there is one."""
        with self._lock:
            for fault in self.faults:
                known = fnmatch.fnmatchcase(file or path, fault.file) and fnmatch.fnmatchcase(method, fault.method)
                if not known or fault.of_body != body or fault.times == 0:
                    continue
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    def by_hash(self, repo: str, sha256: str) -> bytes | None:
        """The bytes in large file storage under this name."""
        repository = self.repositories.get(repo)
        if repository is None:
            return None
        if sha256 in repository.uploads:
            return repository.uploads[sha256]
        tips = list(repository.refs.values())
        stored = (found for tip in tips for commit in history(tip) for found in commit.files.values() if found.large)
        return next((found.data for found in stored if found.sha256 == sha256), None)


def attract(url: str, home: Path, patch: pytest.MonkeyPatch) -> None:
    """Point huggingface_hub's client of this process at the Hub at `url`, with its files below `home`."""
    from huggingface_hub import constants, file_download, hf_api, utils

    # Before 1.0 the client asked whether it is offline when a session was made, and kept the session.
    getattr(utils, "reset_sessions", lambda: None)()
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(hf_api.api, "endpoint", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    # Before 1.0 the client kept a second copy of the template.
    patch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    patch.setattr(constants, "HF_HOME", str(home))
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.delenv("HF_TOKEN", raising=False)
    patch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)


def main() -> int:
    """Serve folders until Ctrl-C."""
    with HubServer() as hub:
        for folder in map(Path, sys.argv[1:]):
            hub.add(f"local/{folder.resolve().name}", folder)
        print(f"HF_ENDPOINT={hub.url} HF_TOKEN={hub.token} HF_HUB_DISABLE_XET=1", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
