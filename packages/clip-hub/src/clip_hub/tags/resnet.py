"""Published weights of OpenAI's modified ResNets.

The accuracies of the smaller data sets are those measured with the activation of the weights.
"""

from __future__ import annotations

from clip_hub.tags.table import OPENAI, PAGE, RELEASE, Row, imagenet, rows, with_facts

__all__ = ["TAGS"]

# model, tag, repository, data, samples seen in 10^9, ImageNet top-1, mean of 38 sets
# fmt: off
_OPENAI: tuple[Row, ...] = (
    ("RN50", "openai", "timm/resnet50_clip.openai", "WebImageText, 400M pairs (not published)", 12.8, 0.5982, 0.481),
    ("RN101", "openai", "timm/resnet101_clip.openai", "WebImageText, 400M pairs (not published)", 12.8, 0.6228, 0.5033),
    ("RN50x4", "openai", "timm/resnet50x4_clip.openai",
     "WebImageText, 400M pairs (not published)", 12.8, 0.6627, 0.5188),
    ("RN50x16", "openai", "timm/resnet50x16_clip.openai",
     "WebImageText, 400M pairs (not published)", 12.8, 0.7072, 0.567),
    ("RN50x64", "openai", "timm/resnet50x64_clip.openai",
     "WebImageText, 400M pairs (not published)", 12.8, 0.7391, 0.6061),
)

_OPENCLIP: tuple[Row, ...] = (
    ("RN50", "yfcc15m", "timm/resnet50_clip.yfcc15m", "YFCC-15M", None, 0.3275, 0.2776),
    ("RN50", "cc12m", "timm/resnet50_clip.cc12m", "CC12M", None, 0.3647, 0.326),
    ("RN101", "yfcc15m", "timm/resnet101_clip.yfcc15m", "YFCC-15M", None, 0.3487, 0.2993),
)
# fmt: on

_URLS = {
    "RN50:openai": f"{OPENAI}afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt",
    "RN101:openai": f"{OPENAI}8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599/RN101.pt",
    "RN50x4:openai": f"{OPENAI}7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd/RN50x4.pt",
    "RN50x16:openai": f"{OPENAI}52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa/RN50x16.pt",
    "RN50x64:openai": f"{OPENAI}be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c/RN50x64.pt",
    "RN50:yfcc15m": f"{RELEASE}rn50-quickgelu-yfcc15m-455df137.pt",
    "RN50:cc12m": f"{RELEASE}rn50-quickgelu-cc12m-f000538c.pt",
    "RN101:yfcc15m": f"{RELEASE}rn101-quickgelu-yfcc15m-3e04b30e.pt",
}

_SCORES = {
    "RN50:yfcc15m": [imagenet(0.327, PAGE), imagenet(0.279, PAGE, "ImageNet-V2")],
    "RN50:cc12m": [imagenet(0.3645, PAGE)],
    "RN101:yfcc15m": [imagenet(0.348, PAGE), imagenet(0.3, PAGE, "ImageNet-V2")],
}

TAGS = with_facts(
    (
        *rows(_OPENAI, licence="mit", activation="quick_gelu"),
        *rows(_OPENCLIP, licence="mit", activation="quick_gelu"),
    ),
    urls=_URLS,
    scores=_SCORES,
)
