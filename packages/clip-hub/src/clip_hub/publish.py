"""Publishing on the Hub: one commit with every layout of a model, its card and its results.

What is uploaded is a private copy, screened and hashed before anything is shown or sent, and compared with its hashes
then. A repository that somebody else changes in the meantime is left alone. Tokens are huggingface_hub's affair. What
this room leaves out: which files there are (`staging`).
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clip_core.errors import ClipError
from clip_hub.card import Description
from clip_hub.hashes import git_hash, sha256_of
from clip_hub.repository import require_repository
from clip_hub.screening import screen
from clip_hub.staging import LAYOUT_FILES, Staged, check_source, stage

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

__all__ = ["Plan", "PlannedFile", "Pushed", "UploadError", "push"]

_WHO = "the Hub does not know who is asking; log in with `hf auth login`, or set HF_TOKEN"
_IN_MEMORY = 1 << 20
"""Bytes up to which a file is read once and uploaded from memory."""


class UploadError(ClipError):
    """Nothing was published; names the repository, the cause and what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlannedFile:
    """One file of an upload."""

    name: str
    size: int
    sha256: str
    state: str = ""
    """What becomes of it in the repository: "new", "replaced" or "unchanged"; empty where the Hub was not asked."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What an upload would do."""

    repo: str
    branch: str
    private: bool
    pull_request: bool
    creates: bool | None
    """Whether the repository is made; None where the Hub was not asked."""
    files: Sequence[PlannedFile]
    removed: Sequence[str]
    """Files of the repository that say or hold another model, and go."""
    left_out: Sequence[str]
    """Files of the folder that stay here."""
    in_card: Sequence[str]
    """Files of a run that stay here, with what matters of them in the card."""
    layouts: dict[str, str]
    missing: dict[str, str]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """What became of an upload."""

    plan: Plan
    commit: str | None
    """Its hash; None after a dry run, or where it was not wanted."""
    url: str | None
    """The commit's address, or that of the pull request."""
    unchanged: bool = False
    """Whether the branch had all of it already; `commit` is then its newest one."""


def push(
    path: str | os.PathLike[str],
    repo: str,
    *,
    model: str | None = None,
    results: str | os.PathLike[str] | None = None,
    description: Description | None = None,
    exclude: Sequence[str] = (),
    private: bool = False,
    branch: str = "main",
    pull_request: bool = False,
    dry_run: bool = False,
    message: str = "Upload model with clip-hub",
    token: str | None = None,
    confirm: Callable[[Plan], bool] | None = None,
) -> Pushed:
    """Publish the model in `path` as `repo`, so that clip-hub, OpenCLIP and transformers load it from there.

    Args:
        path: a bundle or another folder that `clip_core.load` reads, a training run's folder, or a file of weights.
            A `README.md` in it is the card; without one a card is written. Of a run nothing else is published but its
            bundle, of another folder every file.
        repo: "org/name"; made where it is missing.
        model: the architecture, for a file that does not say it.
        results: folder of clip-eval's records of these weights; default `eval/` inside `path`.
        description: what the card says that no file does: licence, training data, authors.
        exclude: patterns of files of the folder that stay here.
        private: make a missing repository private. One that is there stays what it is.
        branch: where to; made where it is missing.
        pull_request: open one instead of changing the branch.
        dry_run: only say what would be uploaded; the Hub is not asked anything.
        message: of the commit.
        token: default the one of `hf auth login` or `HF_TOKEN`.
        confirm: asked with the plan before anything is sent; False stops.

    Raises:
        Refused: a file is optimizer state, a pickle, or holds a secret.
        UploadError: no access, no network, or somebody changed the repository meanwhile. Nothing was published.
        ConfigError, CheckpointMismatch, DataError: what is in `path` cannot be published; says why.
    """
    from huggingface_hub import HfApi, get_token

    require_repository(repo)
    check_source(path, model, results)  # before minutes of reading, not after
    if not dry_run and not (token or get_token()):
        raise UploadError(f"Cannot publish {repo}: {_WHO}. Nothing was published.")
    with tempfile.TemporaryDirectory(prefix="clip-hub-") as scratch:  # readable by its owner alone
        staged = stage(
            path, repo, Path(scratch), model=model, results=results, description=description, exclude=exclude
        )
        screen(staged.files, own_token=token or get_token())
        files = [_planned(name, file) for name, file in staged.files.items()]
        if dry_run:
            return Pushed(plan=_plan(staged, files, repo, branch, private, pull_request), commit=None, url=None)
        api = HfApi(token=token, library_name="clip-hub")
        try:
            return _upload(api, staged, files, repo, branch, private, pull_request, message, confirm)
        except ClipError:
            raise
        except Exception as error:
            raise _explained(error, repo) from error


def _planned(name: str, file: Path) -> PlannedFile:
    return PlannedFile(name=name, size=file.stat().st_size, sha256=sha256_of(file))


def _plan(
    staged: Staged,
    files: Sequence[PlannedFile],
    repo: str,
    branch: str,
    private: bool,
    pull_request: bool,
    *,
    creates: bool | None = None,
    removed: Sequence[str] = (),
) -> Plan:
    return Plan(
        repo=repo,
        branch=branch,
        private=private,
        pull_request=pull_request,
        creates=creates,
        files=files,
        removed=removed,
        left_out=staged.left_out,
        in_card=staged.in_card,
        layouts=staged.layouts,
        missing=staged.missing,
    )


def _upload(
    api: HfApi,
    staged: Staged,
    files: Sequence[PlannedFile],
    repo: str,
    branch: str,
    private: bool,
    pull_request: bool,
    message: str,
    confirm: Callable[[Plan], bool] | None,
) -> Pushed:
    from huggingface_hub import CommitOperationDelete

    creates = not api.repo_exists(repo)
    if not creates:
        private = bool(api.repo_info(repo).private)
    head, held = _held(api, repo, branch) if not creates else (None, {})
    branches_off = head is None and branch != "main"
    if branches_off and not creates:
        head, held = _held(api, repo, "main")
    files = [dataclasses.replace(file, state=_state(file, staged.files[file.name], held)) for file in files]
    removed = sorted(name for name in held if name in LAYOUT_FILES and name not in staged.files)
    plan = _plan(staged, files, repo, branch, private, pull_request, creates=creates, removed=removed)
    if head is not None and not branches_off and not removed and all(file.state == "unchanged" for file in files):
        return Pushed(plan=plan, commit=head, url=f"{api.endpoint}/{repo}/commit/{head}", unchanged=True)
    if confirm is not None and not confirm(plan):
        return Pushed(plan=plan, commit=None, url=None)
    operations: list[CommitOperationAdd | CommitOperationDelete] = [_addition(file, staged) for file in files]
    operations += [CommitOperationDelete(path_in_repo=name) for name in removed]
    if creates:
        api.create_repo(repo, private=private, exist_ok=False)
    if branches_off:
        api.create_branch(repo, branch=branch, revision=head)
    done = api.create_commit(
        repo,
        operations=operations,
        commit_message=message,
        revision=branch,
        create_pr=pull_request,
        # The Hub refuses where this is not the newest commit any more.
        parent_commit=head,
    )
    return Pushed(plan=plan, commit=done.oid, url=done.pr_url if pull_request else done.commit_url)


def _held(api: HfApi, repo: str, branch: str) -> tuple[str | None, dict[str, tuple[str, str | None]]]:
    """(newest commit, path -> (git hash, sha256 of a large file)) of a branch; (None, {}) where it is missing."""
    from huggingface_hub.errors import RevisionNotFoundError
    from huggingface_hub.hf_api import RepoFile

    try:
        head = api.repo_info(repo, revision=branch).sha
    except RevisionNotFoundError:
        return None, {}
    entries = [
        entry for entry in api.list_repo_tree(repo, revision=head, recursive=True) if isinstance(entry, RepoFile)
    ]
    return head, {entry.path: (entry.blob_id, entry.lfs.sha256 if entry.lfs else None) for entry in entries}


def _state(file: PlannedFile, content: Path, held: dict[str, tuple[str, str | None]]) -> str:
    if file.name not in held:
        return "new"
    blob, sha256 = held[file.name]
    if sha256 is not None:
        return "unchanged" if sha256 == file.sha256 else "replaced"
    data = content.read_bytes()
    git = git_hash(data)
    return "unchanged" if git == blob else "replaced"


def _addition(file: PlannedFile, staged: Staged) -> CommitOperationAdd:
    from huggingface_hub import CommitOperationAdd

    path = staged.files[file.name]
    content = path.read_bytes() if file.size <= _IN_MEMORY else str(path)
    addition = CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=content)
    if addition.upload_info.sha256.hex() != file.sha256:
        raise UploadError(f"{file.name} changed after it was shown. Nothing was published.")
    return addition


def _explained(error: Exception, repo: str) -> UploadError:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401 or "login" in type(error).__name__.lower() or isinstance(error, errors.LocalTokenNotFoundError):
        cause = _WHO
    elif status == 403:
        cause = "the token may not write there; make one with write access, or choose a name of your own"
    elif status in (409, 412):
        cause = "somebody changed the repository in the meantime; look at it, and push again"
    elif isinstance(error, errors.OfflineModeIsEnabled):
        cause = "HF_HUB_OFFLINE forbids the network"
    elif isinstance(error, errors.RepositoryNotFoundError):
        cause = "there is no such repository, or it is private and the token may not see it"
    elif status is not None and status >= 500:
        cause = f"the Hub answered {status}; try again later"
    else:
        lines = str(error).strip().splitlines() or ["no reason given"]
        cause = f"{type(error).__name__}: {' '.join(lines[:3])}"
    return UploadError(f"Cannot publish {repo}: {cause}. Nothing was published.")
