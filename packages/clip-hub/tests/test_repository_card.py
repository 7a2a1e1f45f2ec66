"""A repository that the registry does not have is shown from its small files."""

from __future__ import annotations

import json

import pytest

import clip_core
from clip_hub.cli import main
from clip_hub.repository import RepositoryName
from clip_hub.repository_card import look_at

REPO = "someone/model"


@pytest.mark.parametrize(("layout", "called"), [("open_clip", "OpenCLIP"), ("transformers", "transformers")])
def test_the_card_states_model_weights_and_licence_without_the_weights(hub, tmp_path, capsys, layout, called) -> None:
    bundle = clip_core.create("tiny")
    for path in clip_core.export(bundle, tmp_path / "out", layout).iterdir():
        hub.files[REPO, path.name] = path.read_bytes()
    hub.files[REPO, "README.md"] = b"---\nlicense: apache-2.0\n---\n# A model\n"
    facts = look_at(RepositoryName(REPO))
    assert facts.config is not None
    assert facts.config.preprocess == bundle.config.preprocess
    assert facts.parameters == sum(value.numel() for value in bundle.model.parameters())
    assert facts.layouts == (called,)
    assert not any(request.method == "GET" and request.file in facts.weights for request in hub.requests)
    assert main(["show", REPO]) == 0
    shown = capsys.readouterr().out
    for part in (f"{facts.parameters / 1e6:.2f} M", "apache-2.0", f'load("{REPO}")', facts.commit, *facts.weights):
        assert part in shown
    assert main(["show", f"hf-hub:{REPO}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["commit"], told["parameters"]) == (facts.commit, facts.parameters)
    assert clip_core.ClipConfig.from_json(told["config"]) == facts.config


def test_a_repository_without_a_model_says_what_is_missing(hub, capsys) -> None:
    hub.files[REPO, "data/x.bin"] = b"1"
    assert main(["show", REPO]) == 0
    shown = capsys.readouterr().out
    assert "It states no model: it has neither clip_config.json, nor open_clip_config.json, nor config.json" in shown
    assert "To load it" not in shown
    hub.files[REPO, "config.json"] = b'{"model_type": "bert"}'
    problem = look_at(RepositoryName(REPO)).problem
    assert problem is not None
    assert problem.startswith("config.json has model_type 'bert'")


def test_a_repository_of_a_row_is_shown_without_asking_the_hub(hub, capsys) -> None:
    assert main(["show", "timm/ViT-SO400M-14-SigLIP-384"]) == 0
    shown = capsys.readouterr().out
    assert "ViT-SO400M-14-SigLIP-378:webli" in shown
    assert "ViT-SO400M-14-SigLIP-384:webli" in shown
    assert hub.requests == []
