"""Creating, saving and loading: what comes back is what was saved, and what does not fit is refused.

These also cover clip_core.weights, which reads the files.
"""

from __future__ import annotations

import json
import os
import pickle
import threading
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

import clip_core
from clip_core import building
from clip_core.errors import CheckpointMismatch, ConfigError, StorageError
from clip_core.model import assemble
from clip_core.storage import CONFIG_FILE, WEIGHTS_FILE, config_text, open_checkpoint, weights_of

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_round_trip_is_bit_equal(tmp_path: Path, precision: str) -> None:
    bundle = clip_core.create("tiny", precision=precision)
    folder = clip_core.save(bundle, tmp_path / "deep" / "bundle")
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    back = clip_core.load(folder, precision=precision)
    assert back.config == bundle.config
    assert not back.model.training
    before, after = bundle.model.state_dict(), back.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    assert all(parameter.requires_grad for parameter in back.model.parameters())
    again = clip_core.create_model("tiny", folder, precision=precision)
    assert torch.equal(again.text_projection, bundle.model.text_projection)


def test_a_bundle_may_share_its_folder_with_transformers_weights(tmp_path: Path, tiny: clip_core.Bundle) -> None:
    folder = clip_core.export(tiny, tmp_path / "both", "transformers")
    save_file(dict(tiny.model.state_dict()), folder / "ours.safetensors")
    (folder / CONFIG_FILE).write_text(config_text(tiny.config, "ours.safetensors"))
    assert weights_of(folder) == folder / "ours.safetensors"
    for path in (folder, folder / "ours.safetensors", folder / WEIGHTS_FILE):
        back = clip_core.load(path)
        assert torch.equal(back.model.text_projection, tiny.model.text_projection)
    assert open_checkpoint(folder).layout == "bundle"
    assert open_checkpoint(folder / WEIGHTS_FILE).layout == "transformers CLIPModel"
    for name in ("../ours.safetensors", "ours.bin", 3):
        (folder / CONFIG_FILE).write_text(json.dumps({"schema": 1, "weights": name, "model": tiny.config.to_json()}))
        with pytest.raises(ConfigError, match="allowed: the name of a .safetensors file beside it"):
            clip_core.load(folder)


def test_save_never_overwrites_unless_told(tmp_path: Path, tiny: clip_core.Bundle) -> None:
    clip_core.save(tiny, tmp_path / "b")
    with pytest.raises(ConfigError, match="already exists; choose another folder or pass overwrite=True"):
        clip_core.save(tiny, tmp_path / "b")
    other = clip_core.create("tiny")
    clip_core.save(other, tmp_path / "b", overwrite=True)
    assert torch.equal(clip_core.load(tmp_path / "b").model.text_projection, other.model.text_projection)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_only_a_bundle_is_ever_replaced(tmp_path: Path, tiny: clip_core.Bundle, monkeypatch) -> None:
    folder = clip_core.save(tiny, tmp_path / "b")
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds more than a bundle .* is not replaced"):
        clip_core.save(tiny, folder, overwrite=True)
    assert (folder / "thesis.txt").read_text() == "years of work"
    monkeypatch.chdir(folder)
    for here in (".", "..", folder):
        with pytest.raises(ConfigError, match="is the current folder or holds it"):
            clip_core.save(tiny, here, overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="already exists"):
        clip_core.save(tiny, tmp_path / "file", overwrite=True)


def test_a_replacement_that_fails_leaves_the_old_bundle(
    tmp_path: Path, tiny: clip_core.Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = clip_core.save(tiny, tmp_path / "b")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == folder and self.suffix != ".old":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="no"):
        clip_core.save(clip_core.create("tiny"), folder, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert torch.equal(clip_core.load(folder).model.text_projection, tiny.model.text_projection)


def test_a_folder_that_is_a_link_or_empty_is_written(tmp_path: Path, tiny: clip_core.Bundle) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    clip_core.save(tiny, tmp_path / "link")
    assert clip_core.load(tmp_path / "real").config == tiny.config


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_a_bundle_is_as_private_as_the_umask_says(tmp_path: Path, tiny: clip_core.Bundle) -> None:
    before = os.umask(0o077)
    try:
        folder = clip_core.save(tiny, tmp_path / "b")
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_model_without_values_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="meta device has no weights"):
        clip_core.save(clip_core.Bundle.of(clip_core.create_model("tiny", device="meta")), tmp_path / "b")


def test_a_save_that_fails_leaves_nothing_behind(
    tmp_path: Path, tiny: clip_core.Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StorageError, match=r"Cannot write the bundle .*b, about 21.4 MB: No space left on device"):
        clip_core.save(tiny, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_the_meta_device_holds_no_memory() -> None:
    model = clip_core.create_model("ViT-e-14", device="meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert sum(parameter.numel() for parameter in model.parameters()) > 4e9


def test_a_bundle_is_laid_out_on_the_meta_device_without_its_weights(tmp_path: Path, tiny: clip_core.Bundle) -> None:
    folder = clip_core.save(tiny, tmp_path / "b")
    model = clip_core.load(folder, device="meta").model
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in tiny.model.state_dict().items()
    }


def test_weights_that_do_not_fit_are_refused_with_names_and_shapes(tmp_path: Path, tiny: clip_core.Bundle) -> None:
    folder = clip_core.save(tiny, tmp_path / "b")
    weights = load_file(folder / WEIGHTS_FILE)
    weights["visual.proj"] = weights["visual.proj"][:, :5].contiguous()
    weights["extra"] = weights.pop("ln_final.bias")
    weights["ln_final.weight"] = weights["ln_final.weight"].to(torch.int8)
    save_file(weights, folder / WEIGHTS_FILE)
    with pytest.raises(CheckpointMismatch) as caught:
        clip_core.load(folder)
    for part in (
        WEIGHTS_FILE,
        "visual.proj is (96, 5), the model has (96, 128)",
        "missing: ln_final.bias",
        "extra",
        "ln_final.weight is torch.int8",
    ):
        assert part in str(caught.value)


def add_key(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "zzz": 1}))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / WEIGHTS_FILE).unlink(), CheckpointMismatch, "no weights file .*model.safetensors"),
        (lambda f: os.truncate(f / WEIGHTS_FILE, 1000), CheckpointMismatch, "model.safetensors.*damaged or cut short"),
        (lambda f: (f / CONFIG_FILE).unlink(), ConfigError, "is not a bundle: it has no clip_config.json"),
        (lambda f: (f / CONFIG_FILE).write_text("{"), ConfigError, "clip_config.json is not valid JSON"),
        (lambda f: (f / CONFIG_FILE).write_text('{"schema": 9}'), ConfigError, "schema 9; this clip-core reads"),
        (lambda f: add_key(f / CONFIG_FILE), ConfigError, "clip_config.json has the unknown key 'zzz'"),
        (lambda f: (f / CONFIG_FILE).write_text("[]"), ConfigError, "clip_config.json has schema 'list'"),
    ],
)
def test_a_damaged_bundle_names_file_and_reason(tmp_path, tiny, damage, error, message) -> None:
    folder = clip_core.save(tiny, tmp_path / "b")
    damage(folder)
    with pytest.raises(error, match=message):
        clip_core.load(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"):
        clip_core.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="need clip-hub: clip_hub.load"):
        clip_core.load("ViT-B-32:openai")


def test_an_unknown_config_key_in_a_bundle_names_the_file(tmp_path: Path, tiny: clip_core.Bundle) -> None:
    folder = clip_core.save(tiny, tmp_path / "b")
    content = json.loads((folder / CONFIG_FILE).read_text())
    content["model"]["embed_dimm"] = 3
    (folder / CONFIG_FILE).write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="clip_config.json: ClipConfig has no key 'embed_dimm'"):
        clip_core.load(folder)


@pytest.mark.parametrize(
    ("suffix", "wrap"),
    [(".safetensors", "plain"), (".pt", "plain"), (".bin", "plain"), (".pt", "module"), (".pt", "state_dict")],
)
def test_a_file_of_open_clip_loads_by_name(tmp_path: Path, suffix: str, wrap: str) -> None:
    torch.manual_seed(0)
    peer = open_clip.create_model("ViT-S-32-alt")
    weights = {k: v.contiguous() for k, v in peer.state_dict().items()}
    if wrap == "module":
        weights = {f"module.{k}": v for k, v in weights.items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save({"epoch": 3, "state_dict": weights} if wrap == "state_dict" else weights, path)
    ours = clip_core.create_model("ViT-S-32-alt", pretrained=path)
    assert all(torch.equal(value, peer.state_dict()[key]) for key, value in ours.state_dict().items())


def test_weights_of_another_architecture_are_refused_with_the_names_that_fit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "weights.safetensors"
    weights = clip_core.create_model("ViT-S-32-alt").state_dict()
    save_file(weights, path)
    with pytest.raises(CheckpointMismatch, match=r"do not fit the model .* could be of ViT-S-32-alt; 'tiny' was asked"):
        clip_core.create_model("tiny", pretrained=path)
    del weights["logit_scale"]
    save_file(weights, path)
    with pytest.raises(CheckpointMismatch, match="missing: logit_scale") as refused:
        clip_core.create_model("ViT-S-32-alt", pretrained=path)
    assert "could be of" not in str(refused.value)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch pwned",)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, "evil.pt")
    Path("raw.bin").write_bytes(pickle.dumps(Evil(), protocol=2))
    for name in ("evil.pt", "raw.bin"):
        with pytest.raises(CheckpointMismatch, match=name) as refused:
            clip_core.create_model("tiny", pretrained=name)
        # torch's own message advises to run the file's code.
        assert "weights_only" not in str(refused.value)
        assert f"it asks for {os.system.__module__}.system" in str(refused.value)
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("pretrained", "error", "message"),
    [
        ("laion2b_s34b_b79k", ConfigError, "neither a file nor a folder.*install clip-hub"),
        ("notes.txt", CheckpointMismatch, "format of notes.txt; allowed: .safetensors.*, .npz, .pdparams"),
        ("list.pt", CheckpointMismatch, "list.pt holds no state dict"),
        ("text.pt", CheckpointMismatch, "text.pt"),
        (
            "trash.pt",
            CheckpointMismatch,
            r"Cannot read trash.pt .*\)\. The file is damaged or cut short, or no checkpoint",
        ),
        ("missing.pt", ConfigError, "There is no file or folder 'missing.pt'"),
    ],
)
def test_what_is_no_weights_is_refused(tmp_path, monkeypatch, pretrained, error, message) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("hello")
    Path("text.pt").write_text("hello")
    Path("trash.pt").write_bytes(b"e" * 1000)
    torch.save([1, 2], "list.pt")
    with pytest.raises(error, match=message):
        clip_core.create_model("tiny", pretrained=pretrained)


def test_a_bundle_with_another_activation_is_refused_by_name(tmp_path: Path) -> None:
    folder = clip_core.save(clip_core.create("tiny-quickgelu"), tmp_path / "b")
    with pytest.raises(CheckpointMismatch, match="image.activation is 'quick_gelu' there, 'gelu' asked"):
        clip_core.create_model("tiny", pretrained=folder)
    assert clip_core.load(folder).config.image.activation == "quick_gelu"


def test_an_unknown_precision_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="precision is 'amp'; allowed: fp32, bf16, fp16"):
        clip_core.create_model("tiny", precision="amp")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"precision is \['fp16'\]; allowed: fp32"):
        clip_core.create_model("tiny", precision=["fp16"])  # type: ignore[arg-type]


def test_what_another_thread_makes_during_a_layout_keeps_its_values() -> None:
    made: list[torch.nn.Module] = []

    def layout_with_a_thread(config: clip_core.ClipConfig) -> clip_core.Clip:
        thread = threading.Thread(target=lambda: made.append(torch.nn.Linear(2, 2)))
        thread.start()
        thread.join()
        return assemble(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "assemble", layout_with_a_thread)
        model = building.lay_out(clip_core.get_config("tiny"))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not made[0].weight.is_meta


def test_create_model_and_transforms_and_the_tokenizer_belong_together() -> None:
    model, train, evaluate = clip_core.create_model_and_transforms("tiny")
    assert "RandomResizedCrop" in repr(train)
    assert "CenterCrop" in repr(evaluate)
    assert clip_core.get_tokenizer("tiny").context_length == model.context_length == 32
    assert clip_core.get_tokenizer("ViT-B-32").context_length == 77
    assert clip_core.get_tokenizer("tiny", context_length=8)("a cat").shape == (1, 8)
