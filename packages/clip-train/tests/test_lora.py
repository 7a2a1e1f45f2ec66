from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import clip_core
from clip_core.building import build
from clip_core.errors import ConfigError
from clip_train import TrainConfig, train
from clip_train.checkpoint import export
from clip_train.config import ModelConfig
from clip_train.lora import add_adapters, apart, has_adapters, merged, rejoined, save_adapters

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
        state = model.state_dict()
        tensors = merged(state, 2.0)
        assert tensors.keys() == before.keys()
        again = rejoined(tensors, apart(state))
        assert again.keys() == state.keys()
        assert all(again[name] is state[name] for name in state)
        sums = clip_core.create_model("tiny").eval()
        assert not has_adapters(sums)
        sums.load_state_dict(tensors)
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
    assert clip_core.load(result.folder / "bundle-ema").model.state_dict().keys() == after.keys()
    # A checkpoint is a bundle, too, with the sum; what training goes on from lies beside it.
    (checkpoint,) = result.folder.glob("checkpoints/step-*")
    for folder in (checkpoint, export(checkpoint, result.folder / "exported")):
        found = clip_core.load(folder).model.state_dict()
        assert found.keys() == after.keys()
        assert all(torch.equal(found[name], after[name]) for name in after)
    sharded = train(config.replace(fsdp_checkpoint="sharded", name="sharded"))
    (checkpoint,) = sharded.folder.glob("checkpoints/step-*")
    found = clip_core.load(export(checkpoint, sharded.folder / "exported")).model.state_dict()
    assert all(torch.equal(found[name], after[name]) for name in after)
    for folder in (result.folder, next(result.folder.glob("checkpoints/step-*"))):
        settings = peft.LoraConfig.from_pretrained(folder / "adapters" / "text")
        assert (settings.r, settings.lora_alpha) == (2, 8.0)
        assert not (folder / "adapters" / "image").exists()
    assert (result.folder / "adapters-ema" / "text" / "adapter_model.safetensors").is_file()


def test_it_goes_on_from_a_checkpoint_to_the_bit(make_config: Callable[..., TrainConfig]) -> None:
    whole = train(make_config(name="whole", lora_rank=2, save_every_n_steps=3))
    config = make_config(name="later", lora_rank=2)
    resumed = train(config.replace(resume=str(whole.folder / "checkpoints" / "step-00000003")))
    assert resumed.loss == whole.loss
    one, other = (load_file(run.bundle / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("nested", [False, True])
def test_peft_itself_puts_the_additions_on_the_weights_that_training_began_from(tmp_path: Any, nested: bool) -> None:
    def fresh() -> clip_core.Clip:
        torch.manual_seed(0)
        config = clip_core.get_config("tiny")
        return build(dataclasses.replace(config, layout="nested") if nested else config)

    model = fresh()
    add_adapters(model, ModelConfig(model="tiny", lora_rank=3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.05)
    save_adapters(model, model.state_dict(), tmp_path)
    other = fresh().eval()
    images, tokens = inputs(other)
    for tower, root in (("image", "visual"), ("text", "text" if nested else "transformer")):
        # A tensor that it does not find is a warning, and warnings are errors.
        peft.PeftModel.from_pretrained(other.get_submodule(root), str(tmp_path / tower))
    state = other.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value), name
    assert torch.equal(other(images, tokens).image_features, model.eval()(images, tokens).image_features)
    assert torch.equal(other(images, tokens).text_features, model(images, tokens).text_features)


def test_without_peft_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"clip-train\[lora\]"):
        adapted()
