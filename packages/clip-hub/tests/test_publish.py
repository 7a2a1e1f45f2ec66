"""`push`: what arrives on the Hub loads in clip-hub, OpenCLIP and transformers, and nothing else arrives.

Covers clip_hub.staging and clip_hub.publish_commands, too. The Hub is the one of tools/hub_server.py.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from PIL import Image
from safetensors.torch import load_file, save_file

import clip_core
from clip_core.config import HfTokenizerConfig, TextConfig
from clip_hub import publish, staging
from clip_hub.card import Description
from clip_hub.cli import main
from clip_hub.publish import Plan, UploadError, push
from clip_hub.screening import Refused
from hub_server import HubServer

pytestmark = pytest.mark.parity

REPO = "someone/my-clip"


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return clip_core.save(clip_core.create("tiny"), tmp_path_factory.mktemp("bundle") / "b")


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a model that transformers cannot express: fewer files, where the layouts are not the question."""
    tiny = clip_core.get_config("tiny")
    assert isinstance(tiny.text, TextConfig)
    text = dataclasses.replace(tiny.text, width=24, mlp_dim=24)
    bundle = clip_core.Bundle.of(clip_core.building.build(dataclasses.replace(tiny, text=text, logit_bias=-10.0)))
    return clip_core.save(bundle, tmp_path_factory.mktemp("small") / "b")


@pytest.fixture
def folder(small_folder: Path, tmp_path: Path) -> Path:
    """The same, to which a test may add files."""
    return Path(shutil.copytree(small_folder, tmp_path / "b"))


FEATURES = r"""
import json, re, torch, clip_hub, huggingface_hub, open_clip, transformers
from PIL import Image
repo = "someone/my-clip"
image, texts = Image.open("picture.jpg"), ["a photo of a cat", "two dogs!"]
with torch.no_grad():
    bundle = clip_hub.load(repo)
    pixels = bundle.preprocess(image)[None]
    ours = [bundle.model.encode_image(pixels), bundle.model.encode_text(bundle.tokenizer(texts))]
    peer, _, preprocess = open_clip.create_model_and_transforms("hf-hub:" + repo)
    tokens = open_clip.get_tokenizer("hf-hub:" + repo)(texts)
    peer.eval()
    theirs = [peer.encode_image(preprocess(image)[None]), peer.encode_text(tokens)]
    third = transformers.AutoModel.from_pretrained(repo).eval()
    processor = transformers.AutoProcessor.from_pretrained(repo)
    told = processor(text=texts, images=image, padding=True, return_tensors="pt")
    out = third(input_ids=told["input_ids"], attention_mask=told["attention_mask"], pixel_values=pixels)
    norm = lambda value: value / value.norm(dim=-1, keepdim=True)
    last = [out.image_embeds, out.text_embeds]
print(json.dumps({
    "open_clip": [float((a - b).abs().max()) for a, b in zip(ours, theirs)],
    "transformers": [float((norm(a) - b).abs().max()) for a, b in zip(ours, last)],
    "pixels": float((told["pixel_values"] - pixels).abs().max()),
    "size": float(ours[0].abs().max()),
}))
card = open(huggingface_hub.hf_hub_download(repo, "README.md"), encoding="utf-8").read()
for code in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
    exec(code, {})
"""


def test_one_process_uploads_and_three_libraries_of_another_give_equal_features(
    hub: HubServer, bundle_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers", minversion="5.0")  # its image processors have other names before
    command = [sys.executable, "-m", "clip_hub", "push", str(bundle_folder), REPO, "--yes", "--licence", "mit"]
    up = subprocess.run(
        command, env=hub.environment(tmp_path / "up", token=hub.token), capture_output=True, text=True, check=False
    )
    assert up.returncode == 0, up.stderr
    commits = HfApi(token=hub.token).list_repo_commits(REPO)
    assert [commit.title for commit in commits] == ["Upload model with clip-hub", "initial commit"]
    assert up.stdout.strip() == f"{hub.url}/{REPO}/commit/{commits[0].commit_id}"
    assert "a new public repository" in up.stderr
    Image.effect_noise((48, 40), 90).convert("RGB").save(tmp_path / "picture.jpg")
    command, env = [sys.executable, "-c", FEATURES], hub.environment(tmp_path / "down")
    down = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert down.returncode == 0, down.stderr
    told, *lines = [line for line in down.stdout.splitlines() if line.startswith("{")]
    found = json.loads(told)
    assert found["size"] > 0.1
    assert max(*found["open_clip"], *found["transformers"]) < 1e-5
    assert found["pixels"] < 0.05  # transformers rounds pixels after resizing
    # What the snippets of the card print, run as a stranger copies them.
    answers = [ast.literal_eval(line) for line in lines]
    assert len(answers) == 3
    for other in answers[1:]:
        assert other == pytest.approx(answers[0], abs=5e-3)
    assert sum(answers[0].values()) == pytest.approx(1)


def test_the_layouts_of_one_repository(hub: HubServer, bundle_folder: Path, tmp_path: Path) -> None:
    done = push(bundle_folder, REPO, token=hub.token, description=Description(licence="mit"))
    assert done.plan.layouts == {
        "bundle": "open_clip_model.safetensors",
        "open_clip": "open_clip_model.safetensors",
        "transformers": "model.safetensors",
    }
    held = {name for repo, name in hub.files}
    assert {"clip_config.json", "open_clip_config.json", "config.json", "preprocessor_config.json"} <= held
    assert held == {file.name for file in done.plan.files}
    assert all(hashlib.sha256(hub.files[REPO, file.name]).hexdigest() == file.sha256 for file in done.plan.files)
    data = ModelCard(hub.files[REPO, "README.md"].decode()).data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "mit",
        "open_clip",
        "zero-shot-image-classification",
    )
    # A folder with all of it is read as the bundle that it is.
    for (_, name), content in hub.files.items():
        (tmp_path / "all").mkdir(exist_ok=True)
        (tmp_path / "all" / name).write_bytes(content)
    before, after = clip_core.load(bundle_folder), clip_core.load(tmp_path / "all")
    assert after.config == before.config
    assert all(torch.equal(value, after.model.state_dict()[key]) for key, value in before.model.state_dict().items())
    again = push(bundle_folder, REPO, token=hub.token, description=Description(licence="mit"))
    assert {file.state for file in again.plan.files} == {"unchanged"}
    assert again.plan.creates is False


def test_weights_keep_their_dtype(hub: HubServer, tmp_path: Path) -> None:
    folder = clip_core.save(clip_core.create("tiny", precision="bf16"), tmp_path / "half")
    push(folder, REPO, token=hub.token)
    for name in ("open_clip_model.safetensors", "model.safetensors"):
        (tmp_path / name).write_bytes(hub.files[REPO, name])
        assert {value.dtype for value in load_file(tmp_path / name).values() if value.ndim} == {torch.bfloat16}
    assert "stored as bfloat16" in hub.files[REPO, "README.md"].decode()


@pytest.mark.parametrize(
    ("fields", "layouts"),
    [
        ({"logit_bias": -10.0}, {"bundle": "open_clip_model.safetensors", "open_clip": "open_clip_model.safetensors"}),
        ({"text": "gelu"}, {"bundle": "clip_model.safetensors", "transformers": "model.safetensors"}),
    ],
)
def test_a_layout_that_cannot_express_the_model_is_left_out_and_the_card_says_why(
    hub: HubServer, tmp_path: Path, fields: dict, layouts: dict
) -> None:
    config = clip_core.get_config("tiny")
    if "text" in fields:  # OpenCLIP has one activation for both towers, transformers one for each
        image = dataclasses.replace(config.image, activation="quick_gelu")
        fields = {"image": image, "text": dataclasses.replace(config.text, activation="gelu")}
    config = dataclasses.replace(config, **fields)
    bundle = clip_core.Bundle.of(clip_core.building.build(config))
    folder = clip_core.save(bundle, tmp_path / "b")
    done = push(folder, REPO, token=hub.token)
    assert done.plan.layouts == layouts
    (missing,) = done.plan.missing
    card = hub.files[REPO, "README.md"].decode()
    assert done.plan.missing[missing] in card
    assert f"With {'OpenCLIP' if missing == 'open_clip' else 'transformers'}:" not in card
    assert ModelCard(card).data.library_name == ("transformers" if missing == "open_clip" else "open_clip")
    import clip_hub

    back = clip_hub.load(REPO)
    assert back.config == config
    assert torch.equal(back.model.state_dict()["logit_scale"], bundle.model.state_dict()["logit_scale"])


def test_a_tokenizer_with_files_is_published_and_named_as_its_own_repository(hub: HubServer, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "cat": 2, "</s>": 3, "<unk>": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "words").mkdir()
    words.save(str(tmp_path / "words" / "tokenizer.json"))
    tiny = clip_core.get_config("tiny")
    tokenizer = HfTokenizerConfig(context_length=8, source="elsewhere/words", clean="whitespace", pad_id=0)
    assert isinstance(tiny.text, TextConfig)
    text = dataclasses.replace(tiny.text, context_length=8, vocab_size=5)
    config = dataclasses.replace(tiny, text=text, tokenizer=tokenizer)
    model = clip_core.building.build(config)
    folder = clip_core.save(clip_core.Bundle.of(model, tmp_path / "words"), tmp_path / "b")
    push(folder, REPO, token=hub.token)
    assert hub.files[REPO, "tokenizer.json"] == (folder / "tokenizer.json").read_bytes()
    stated = json.loads(hub.files[REPO, "open_clip_config.json"])["model_cfg"]["text_cfg"]
    assert stated["hf_tokenizer_name"] == REPO
    import clip_hub

    assert clip_hub.load(REPO).tokenizer(["a cat"]).tolist()[0][:2] == [1, 2]
    (folder / "tokenizer.json").unlink()
    with pytest.raises(clip_core.ConfigError, match="lacks the files of its tokenizer"):
        push(folder, REPO, token=hub.token)


def test_a_training_checkpoint_is_published_without_its_optimizer(hub: HubServer, tmp_path: Path) -> None:
    model = clip_core.create_model("tiny")
    state = {
        "epoch": 3,
        "state_dict": model.state_dict(),
        "optimizer": {"state": {0: torch.ones(3)}, "param_groups": []},
    }
    torch.save(state, tmp_path / "epoch_3.pt")
    done = push(tmp_path / "epoch_3.pt", REPO, model="tiny", token=hub.token)
    assert not any(file.name.endswith(".pt") for file in done.plan.files)
    (tmp_path / "back.safetensors").write_bytes(hub.files[REPO, "open_clip_model.safetensors"])
    assert load_file(tmp_path / "back.safetensors").keys() == model.state_dict().keys()
    with pytest.raises(clip_core.ConfigError, match="do not say their model"):
        push(tmp_path / "epoch_3.pt", REPO, token=hub.token)


def test_private_branch_and_pull_request(hub: HubServer, small_folder: Path) -> None:
    first = push(small_folder, REPO, token=hub.token, private=True, branch="trial", message="A trial")
    repository = hub.repositories[REPO]
    assert repository.private
    assert first.plan.creates
    assert not repository.refs["main"].files
    assert repository.refs["trial"].title == "A trial"
    assert [commit.title for commit in HfApi().list_repo_commits(REPO, token=hub.token, revision="trial")] == [
        "A trial", "initial commit",
    ]  # fmt: skip
    again = push(small_folder, REPO, token=hub.token, pull_request=True)
    assert again.url == f"{hub.url}/{REPO}/discussions/1"
    assert not repository.refs["main"].files
    assert "clip_config.json" in repository.refs["refs/pr/1"].files
    assert again.plan.private


def test_a_dry_run_asks_nobody(hub: HubServer, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "notes.md").write_text("words")
    assert main(["push", str(folder), REPO, "--dry-run", "--exclude", "*.md"]) == 0
    captured = capsys.readouterr()
    shown = captured.err
    assert captured.out == ""  # as with a real one, which prints the address of its commit there and nothing else
    assert not hub.requests
    assert "open_clip_model.safetensors" in shown
    assert "Not uploaded: notes.md" in shown
    size = (folder / "model.safetensors").stat().st_size
    assert f"{size / 1e6:.1f} MB" in shown


def test_files_of_another_model_go_and_other_files_stay(hub: HubServer, folder: Path, bundle_folder: Path) -> None:
    push(bundle_folder, REPO, token=hub.token)
    hub.files[REPO, "thesis.pdf"] = b"%PDF"
    done = push(folder, REPO, token=hub.token)
    assert {"model.safetensors", "config.json", "preprocessor_config.json", "merges.txt"} <= set(done.plan.removed)
    held = {name for _, name in hub.files}
    assert not held & set(done.plan.removed)
    assert "thesis.pdf" in held
    # A branch that is missing starts at main, with what main has.
    off = push(folder, REPO, token=hub.token, branch="trial", description=Description(licence="mit"))
    assert {file.name: file.state for file in off.plan.files}["README.md"] == "replaced"
    assert "thesis.pdf" in hub.repositories[REPO].refs["trial"].files
    assert {name for _, name in hub.files} == held


def test_a_repository_that_somebody_else_changes_meanwhile_is_left_alone(hub: HubServer, small_folder: Path) -> None:
    push(small_folder, REPO, token=hub.token, description=Description(licence="mit"))

    def meanwhile(plan: Plan) -> bool:
        hub.files[REPO, "README.md"] = b"---\nlicense: mit\n---\nA better card"
        return True

    with pytest.raises(UploadError, match="somebody changed the repository in the meantime"):
        push(small_folder, REPO, token=hub.token, confirm=meanwhile)
    assert hub.files[REPO, "README.md"].endswith(b"A better card")


def test_what_changes_under_its_hands_is_not_published(
    hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = staging.write_card

    def meanwhile(facts: object) -> str:
        (folder / "clip_config.json").write_bytes((folder / "clip_config.json").read_bytes() + b" ")
        return write(facts)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(staging, "write_card", meanwhile)
        with pytest.raises(clip_core.ConfigError, match="changed while it was read"):
            push(folder, REPO, token=hub.token)
    kept = {}
    stage = publish.stage

    def stage_and_keep(*arguments: object, **options: object) -> staging.Staged:
        kept["staged"] = stage(*arguments, **options)  # type: ignore[arg-type]
        return kept["staged"]

    def tamper(plan: Plan) -> bool:
        path = kept["staged"].files["open_clip_model.safetensors"]
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        return True

    monkeypatch.setattr(publish, "stage", stage_and_keep)
    with pytest.raises(UploadError, match=r"open_clip_model.safetensors changed after it was shown"):
        push(folder, REPO, token=hub.token, confirm=tamper)
    assert REPO not in hub.repositories


def test_nothing_is_sent_where_one_file_is_refused(hub: HubServer, folder: Path) -> None:
    names = ["optimizer.safetensors", "model.pt", ".env", "notes.txt"]
    for name in names:
        (folder / name).write_text("hf_" + "a1B2" * 9)
    with pytest.raises(Refused) as stop:
        push(folder, REPO, token=hub.token)
    assert all(f"{name}: " in str(stop.value) for name in names)
    assert not hub.requests
    done = push(folder, REPO, token=hub.token, exclude=names)
    assert sorted(done.plan.left_out) == sorted(names)
    assert not {name for _, name in hub.files} & set(names)


def test_a_card_of_ones_own_and_further_files_are_taken_as_they_are(hub: HubServer, folder: Path) -> None:
    own = "---\nlicense: mit\n---\n# My words\n"
    (folder / "README.md").write_text(own)
    (folder / "docs").mkdir()
    (folder / "docs" / "LICENSE").write_text("MIT")
    (folder / "config.json").write_text('{"model_type": "something older"}')
    push(folder, REPO, token=hub.token)
    assert hub.files[REPO, "README.md"].decode() == own
    assert hub.files[REPO, "docs/LICENSE"] == b"MIT"
    assert (REPO, "config.json") not in hub.files  # it is of no layout that this model has
    (folder / "README.md").write_text("---\nlicense: perhaps\n---\n")
    with pytest.raises(clip_core.ConfigError, match="the licence 'perhaps', which the Hub does not know"):
        push(folder, REPO, token=hub.token)


@pytest.mark.parametrize(
    ("fault", "message"),
    [("401", "log in with `hf auth login`"), ("403", "make one with write access"), ("500", "the Hub answered 500")],
)
def test_what_the_hub_answers_is_said_in_words(
    hub: HubServer, small_folder: Path, fault: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.fail(fault, "/api/*", method="POST")
    with pytest.raises(UploadError, match=message):
        push(small_folder, REPO, token=hub.token)
    assert REPO not in hub.repositories


def test_mistakes_are_one_line(
    hub: HubServer, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert main(["push", str(folder), REPO]) == 2
    assert "pass --yes to upload this" in capsys.readouterr().err
    assert main(["push", str(folder), REPO, "--yes"]) == 2
    assert "log in with `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", hub.token)
    for arguments, message in (
        ([str(folder), "one-word"], "write org/name"),
        ([str(tmp_path / "gone"), REPO], "There is no "),
        ([str(folder), REPO, "--licence", "mine"], "which the Hub does not know"),
        ([str(folder), REPO, "--results", str(tmp_path)], "holds no evaluation record"),
        ([str(folder), REPO, "--model", "tiny"], "leave out --model tiny"),
        ([str(folder / "model.safetensors"), REPO, "--model", "tinny"], "Unknown model 'tinny'. Did you mean tiny?"),
        ([str(folder), REPO, "--language", "english"], "codes of two or three letters"),
    ):
        assert main(["push", *arguments, "--yes"]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err
        assert "Reading" not in captured.err  # minutes, with a large model
    broken = load_file(folder / "model.safetensors")
    broken["text_projection"][0, 0] = float("nan")
    save_file(broken, folder / "model.safetensors")
    assert main(["push", str(folder), REPO, "--yes"]) == 2
    assert "text_projection" in capsys.readouterr().err
    assert REPO not in hub.repositories


def test_a_second_push_of_the_same_changes_nothing(hub: HubServer, folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert main(["push", str(folder), REPO, "--yes"]) == 0
    first = capsys.readouterr().out
    assert main(["push", str(folder), REPO]) == 2  # nobody is there to ask
    assert main(["push", str(folder), REPO, "--yes"]) == 0
    captured = capsys.readouterr()
    assert captured.out == first
    assert f"Nothing to upload: branch main of {REPO} has all of it already" in captured.err
    assert len(HfApi(token=hub.token).list_repo_commits(REPO)) == 2
    (folder / "notes.md").write_text("words")
    assert push(folder, REPO, token=hub.token).commit != first.strip().rpartition("/")[2]


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 1)])
def test_it_asks(hub: HubServer, folder: Path, answer: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setattr(
        "sys.stdin", type("Terminal", (), {"isatty": lambda self: True, "readline": lambda self: answer})()
    )
    assert main(["push", str(folder), REPO]) == code
    assert f"Upload to {REPO}?" in capsys.readouterr().err
    assert (REPO in hub.repositories) == (code == 0)
