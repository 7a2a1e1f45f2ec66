"""The Hub of the tests does what the real one does for huggingface_hub's own client: up, down, branches, refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi, errors

REPO = "someone/model"
LARGE = bytes(range(256)) * 4000


def test_what_one_client_uploads_another_process_downloads(hub, tmp_path) -> None:
    api = HfApi(token=hub.token)
    assert api.whoami()["name"] == "someone"
    api.create_repo(REPO, private=True)
    with pytest.raises(errors.HfHubHTTPError, match="409|already created"):
        api.create_repo(REPO)
    api.create_repo(REPO, exist_ok=True)
    folder = tmp_path / "up"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "model.safetensors").write_bytes(LARGE)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    commit = api.upload_folder(repo_id=REPO, folder_path=folder, commit_message="All of it")
    info = api.model_info(REPO, files_metadata=True)
    assert info.sha == commit.oid
    assert info.private
    assert {each.rfilename: each.size for each in info.siblings}["sub/model.safetensors"] == len(LARGE)
    assert [commit.title for commit in api.list_repo_commits(REPO)] == ["All of it", "initial commit"]
    listed = {each.path: each for each in api.list_repo_tree(REPO, recursive=True)}
    assert listed["sub/model.safetensors"].lfs.size == len(LARGE)
    assert listed["config.json"].lfs is None
    assert [each.path for each in api.get_paths_info(REPO, ["config.json", "nothing"])] == ["config.json"]
    code = f"from huggingface_hub import snapshot_download as get; print(get({REPO!r}))"
    command = [sys.executable, "-c", code]
    got = subprocess.run(command, env=hub.environment(tmp_path / "x", token=hub.token), capture_output=True, text=True)
    assert got.returncode == 0, got.stderr
    assert (Path(got.stdout.strip()) / "sub" / "model.safetensors").read_bytes() == LARGE
    denied = subprocess.run(command, env=hub.environment(tmp_path / "y"), capture_output=True, text=True)
    assert "RepositoryNotFoundError" in denied.stderr


def test_branches_pull_requests_and_single_commits(hub) -> None:
    api = HfApi(token=hub.token)
    api.create_repo(REPO)
    first = api.upload_file(path_or_fileobj=b"one", path_in_repo="a.txt", repo_id=REPO)
    api.create_branch(REPO, branch="trial/two")
    with pytest.raises(errors.HfHubHTTPError):
        api.create_branch(REPO, branch="trial/two")
    api.create_branch(REPO, branch="trial/two", exist_ok=True)
    api.upload_file(path_or_fileobj=b"two", path_in_repo="a.txt", repo_id=REPO, revision="trial/two")
    request = api.upload_file(path_or_fileobj=b"three", path_in_repo="a.txt", repo_id=REPO, create_pr=True)
    assert request.pr_revision == "refs/pr/1"
    texts = {}
    for revision in ("main", "trial/two", "refs/pr/1", first.oid):
        path = huggingface_hub.hf_hub_download(REPO, "a.txt", revision=revision)
        with open(path) as stream:
            texts[revision] = stream.read()
    assert texts == {"main": "one", "trial/two": "two", "refs/pr/1": "three", first.oid: "one"}
    refs = api.list_repo_refs(REPO, include_pull_requests=True)
    assert [ref.name for ref in refs.branches] == ["main", "trial/two"]
    assert [ref.ref for ref in refs.pull_requests] == ["refs/pr/1"]
    api.delete_file("a.txt", REPO)
    assert api.list_repo_files(REPO) == []
    with pytest.raises(errors.HfHubHTTPError, match="412|since"):
        api.upload_file(path_or_fileobj=b"late", path_in_repo="a.txt", repo_id=REPO, parent_commit=first.oid)


def test_who_may_do_what(hub) -> None:
    hub.files[REPO, "config.json"] = b"{}"
    with pytest.raises(errors.HfHubHTTPError, match="401"):
        HfApi(token=False).upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=REPO)
    hub.repositories[REPO].gated = True
    with pytest.raises(errors.GatedRepoError):
        huggingface_hub.hf_hub_download(REPO, "config.json", token=False)
    assert huggingface_hub.hf_hub_download(REPO, "config.json", token=hub.token)
    with pytest.raises(errors.RevisionNotFoundError):
        huggingface_hub.hf_hub_download(REPO, "config.json", revision="nope", token=hub.token)
    bad = b"---\na: [\n---\n"
    with pytest.raises(ValueError, match="Invalid metadata"):
        HfApi(token=hub.token).upload_file(path_or_fileobj=bad, path_in_repo="README.md", repo_id=REPO)


def test_a_token_never_reaches_the_store_of_large_files(hub) -> None:
    hub.files[REPO, "model.safetensors"] = LARGE
    huggingface_hub.hf_hub_download(REPO, "model.safetensors", token=hub.token)
    asked = {("Signature" in request.path): request.token for request in hub.requests}
    assert asked == {False: hub.token, True: ""}
