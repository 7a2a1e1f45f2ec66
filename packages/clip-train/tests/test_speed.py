from __future__ import annotations

import pytest
import torch

import clip_core
from clip_hub.sizes import SIZES
from clip_train.measuring.speed import PEAKS, Cost, count_cost, find_peak, peak_memory


def test_the_cost_is_that_of_three_forward_passes() -> None:
    model = clip_core.create_model("ViT-B-32").train()
    bundle = clip_core.Bundle.of(model)
    cost = count_cost(bundle)
    assert all(module.training for module in model.modules())
    published = SIZES["ViT-B-32"]
    # clip-core's towers compute less than was published where only one token is read at the end.
    assert 0.9 < cost.image / (3e9 * published.image_gflops) <= 1
    assert 0.9 < cost.text / (3e9 * published.text_gflops) <= 1
    assert cost.context == 77
    assert cost.of(77) == cost.image + cost.text
    assert Cost(10.0, 8.0, 16).of(4) == 12.0
    for parameter in model.visual.parameters():
        parameter.requires_grad_(False)
    locked = count_cost(bundle)
    assert (locked.image, locked.text) == (cost.image / 3, cost.text)


def test_peaks_are_found_by_what_torch_calls_the_device() -> None:
    assert find_peak("NVIDIA A100-SXM4-80GB", "amp_bf16") == 312e12
    assert find_peak("NVIDIA A100-SXM4-80GB", "fp32") == 19.5e12
    assert find_peak("NVIDIA A100-SXM4-80GB", "fp32", tf32=True) == 156e12
    assert find_peak("NVIDIA H100 PCIe", "amp") == 756.5e12
    assert find_peak("NVIDIA H100 80GB HBM3", "amp_bf16") == 989.4e12
    assert find_peak("NVIDIA L40S", "amp_bf16") == PEAKS["L40S"].half * 1e12  # type: ignore[operator]
    assert find_peak("NVIDIA L4", "amp_bf16") == 121e12
    assert find_peak("Tesla V100-SXM2-16GB", "amp_bf16") is None
    assert find_peak("x86_64", "fp32") is None
    assert find_peak("NVIDIA H200 NVL", "amp_bf16") == find_peak("NVIDIA H100 NVL", "amp_bf16") == 835.5e12
    assert find_peak("NVIDIA GH200 480GB", "amp_bf16") == find_peak("NVIDIA H200", "amp_bf16") == 989.4e12
    assert find_peak("NVIDIA L40", "amp_bf16") == 181.05e12


@pytest.mark.parametrize(
    "name",
    # Names in which that of another one stands, and parts of a device.
    ["NVIDIA RTX A4000", "NVIDIA T400 4GB", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA GeForce RTX 4090 Laptop GPU"],
)
def test_a_device_is_not_taken_for_another(name: str) -> None:
    assert find_peak(name, "amp_bf16") is None
    assert find_peak(name, "fp32") is None


def test_peak_memory_is_of_this_process() -> None:
    held = torch.ones(2**24)
    assert held.nbytes < peak_memory(torch.device("cpu")) < 2**40
