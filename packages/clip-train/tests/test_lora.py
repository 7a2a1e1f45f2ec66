from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

import clip_core
from clip_core.errors import ConfigError
from clip_train import TrainConfig, train
from clip_train.config import ModelConfig
from clip_train.lora import add_adapters, has_adapters, merged, save_adapters

peft = pytest.importorskip("peft")


def adapted(**fields: Any) -> tuple[clip_core.Clip, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = clip_core.create_model("tiny")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    add_adapters(model, ModelConfig(model="tiny", lora_rank=3, **fields))
    return model, before


def inputs(model: clip_core.Clip) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 300, (3, model.context_length), generator=generator)
    tokens[:, 7] = model.vocab_size - 1
    return torch.randn(3, 3, *model.visual.image_size, generator=generator), tokens


@pytest.mark.parametrize("towers", ["image", "text", "both"])
def test_additions_are_all_that_is_trained_in_their_towers(towers: str) -> None:
    model, _ = adapted(lora_towers=towers)
    for name, parameter in model.named_parameters():
        image = name.startswith("visual.")
        inside = name != "logit_scale" and (towers == "both" or (towers == "image") == image)
        assert parameter.requires_grad == (".lora_" in name if inside else True), name
        assert not (".lora_" in name and not inside), name
    layers = {name.split(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
    blocks = [name for name, _ in model.named_modules() if name.split(".")[-2:-1] == ["resblocks"]]
    # Of each block: the projections that come in, as one, the one that goes out, and two of the MLP.
    assert len(layers) == 4 * sum(
        towers == "both" or (towers == "image") == name.startswith("visual.") for name in blocks
    )


def test_it_begins_as_what_it_was_and_the_sum_computes_what_it_does() -> None:
    torch.manual_seed(0)
    plain = clip_core.create_model("tiny").eval()
    model, before = adapted()
    model.eval()
    images, tokens = inputs(model)
    with torch.no_grad():
        assert torch.equal(model(images, tokens).text_features, plain(images, tokens).text_features)
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.05)
        found = model(images, tokens)
        sums = merged(model)
        assert sums.state_dict().keys() == before.keys()
        assert not has_adapters(sums)
        assert has_adapters(model), "the trained model is left alone"
        expected = sums(images, tokens)
        for one, other, old in zip(found[:2], expected[:2], plain(images, tokens)[:2], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
            assert (one - old).abs().max() > 1e-3
    name = "visual.transformer.resblocks.0.attn.in_proj_weight"
    low, high = (
        model.get_parameter(f"visual.transformer.resblocks.0.attn.lora_{side}.default.weight") for side in "AB"
    )
    torch.testing.assert_close(sums.state_dict()[name], before[name] + 2 * high.detach() @ low.detach())


def test_a_run_leaves_the_sum_and_the_additions(make_config: Callable[..., TrainConfig]) -> None:
    config = make_config(
        lora_rank=2, lora_alpha=8.0, lora_towers="text", accum_freq=2, ema_decay=0.5, grad_checkpointing=True
    )
    result = train(config)
    torch.manual_seed(config.run.seed)
    before = clip_core.create_model("tiny").state_dict()
    after = clip_core.load(result.bundle).model.state_dict()
    kinds = {
        "trained": "visual.proj",
        "summed": "transformer.resblocks.0.mlp.c_fc.weight",
        "locked": "token_embedding.weight",
    }
    same = {kind: torch.equal(before[name], after[name]) for kind, name in kinds.items()}
    assert same == {"trained": False, "summed": False, "locked": True}
    difference = after[kinds["summed"]] - before[kinds["summed"]]
    assert torch.linalg.matrix_rank(difference, rtol=1e-3) <= 2
    settings = peft.LoraConfig.from_pretrained(result.folder / "adapters" / "text")
    assert (settings.r, settings.lora_alpha) == (2, 8.0)
    assert (result.folder / "adapters" / "text" / "adapter_model.safetensors").is_file()
    assert (result.folder / "adapters-ema" / "text" / "adapter_model.safetensors").is_file()
    assert clip_core.load(result.folder / "bundle-ema").model.state_dict().keys() == after.keys()


def test_the_additions_are_read_by_peft(tmp_path: Any) -> None:
    model, _ = adapted()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.05)
    save_adapters(model, tmp_path)
    from safetensors.torch import load_file

    other, _ = adapted()
    for tower, root in (("image", other.visual), ("text", other.get_submodule("transformer"))):
        peft.set_peft_model_state_dict(root, load_file(tmp_path / tower / "adapter_model.safetensors"))
    images, tokens = inputs(model)
    assert torch.equal(other(images, tokens).image_features, model(images, tokens).image_features)
    assert torch.equal(other(images, tokens).text_features, model(images, tokens).text_features)


def test_without_peft_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"clip-train\[lora\]"):
        adapted()
