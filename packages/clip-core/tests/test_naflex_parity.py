"""clip_core.towers.naflex and preprocess_naflex against timm's NaFlexVit and transforms (open_clip 3.3.0 has none)."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import PIL.Image
import pytest
import timm
import torch
from timm.data.naflex_dataset import NaFlexCollator
from timm.data.naflex_transforms import Patchify, ResizeToSequence, get_image_size_for_seq
from torch import Tensor, nn
from torchvision import transforms

import clip_core
from clip_core.building import build, lay_out
from clip_core.config import ClipConfig, NaFlexConfig
from clip_core.errors import ConfigError, ImageError
from clip_core.preprocess_naflex import build_patch_transform, size_for_patches, stack_patches
from clip_core.presets import naflex
from clip_core.towers.naflex import NaFlexTower
from clip_core.weights import load_weights

pytestmark = pytest.mark.parity

NAMES = ["ViT-B-16-SigLIP2-naflex", "naflex_ViT-B-16", "naflex_ViT-B-32"]
MODERN = [
    "moderntext-naflex_ViT-B-32",
    "moderntext-naflex_ViT-B-16",
    "moderntext-naflex_ViT-B-deep-16",
    "moderntext-naflex_ViT-SO150M2-16",
]


def small(name: str) -> ClipConfig:
    """The architecture with two narrow blocks and hardly any text tower."""
    image = naflex.naflex_image(name)
    options = {**dict(image.options), "embed_dim": 64, "depth": 2, "num_heads": 4}
    image = dataclasses.replace(image, options=tuple(options.items()))
    plain = clip_core.get_config("naflex_ViT-B-16")
    return dataclasses.replace(
        plain,
        embed_dim=64 if image.projection == "none" else 24,
        image=image,
        text=dataclasses.replace(plain.text, width=8, heads=1, layers=1, mlp_dim=8, vocab_size=9),
        preprocess=dataclasses.replace(plain.preprocess, size=image.image_size),
    )


def make(name: str) -> tuple[clip_core.Clip, nn.Module]:
    """Our model, laid out and then given weights, and timm's model with the same ones and the options of OpenCLIP."""
    config = small(name)
    assert isinstance(config.image, NaFlexConfig)
    torch.manual_seed(0)
    trunk = timm.create_model(
        config.image.name, num_classes=0, global_pool=config.image.pool, **dict(config.image.options)
    )
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    weights = build(config).state_dict()
    weights |= {f"visual.trunk.{key}": value.clone() for key, value in trunk.state_dict().items()}
    model = lay_out(config)
    load_weights(model, model.adapt_weights(weights), "timm")
    return model.eval(), trunk.eval()


def features_of(model: clip_core.Clip, trunk: nn.Module, inputs: Tensor | dict[str, Tensor]) -> Tensor:
    out = trunk(inputs)
    projection = getattr(model.visual.head, "proj", None)
    return out if projection is None else out @ projection.weight.T


def batch(config: ClipConfig, shapes: list[tuple[int, int]]) -> dict[str, Tensor]:
    transform = build_patch_transform(config)
    noise = np.random.default_rng(0)
    return stack_patches(transform(noise.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes)


@pytest.mark.parametrize("name", [*NAMES, *MODERN])
def test_images_of_any_shape_and_patches_give_the_peers_features(name: str) -> None:
    model, trunk = make(name)
    image = model.config.image
    assert isinstance(image, NaFlexConfig)
    side = image.patch_size
    with torch.no_grad():
        for height, width in ((image.image_size, image.image_size), (2 * side, 5 * side)):
            images = torch.randn(2, 3, height, width)
            expected = features_of(model, trunk, images)
            torch.testing.assert_close(model.encode_image(images), expected, atol=1e-6, rtol=1e-6)
        patches = batch(model.config, [(40, 90), (300, 200), (77, 77)])
        expected = features_of(model, trunk, patches)
        features = model.encode_image(patches)
        torch.testing.assert_close(features, expected, atol=1e-6, rtol=1e-6)
        # Places that are filled up count for nothing.
        filled = {**patches, "patches": torch.where(patches["patch_valid"][..., None], patches["patches"], 7.0)}
        torch.testing.assert_close(model.encode_image(filled), features, atol=1e-5, rtol=1e-5)
        alone = model.encode_image(patches, normalize=True, deterministic=True)
        torch.testing.assert_close(alone, nn.functional.normalize(features, dim=-1))
        one = {key: value[1:2] for key, value in patches.items()}
        assert torch.equal(model.encode_image(one, normalize=True, deterministic=True), alone[1:2])


def test_gradients_through_patches_are_the_peers() -> None:
    model, trunk = make("naflex_ViT-B-32")
    patches = batch(model.config, [(40, 90), (300, 200)])
    model.encode_image(patches).square().sum().backward()
    features_of(model, trunk, patches).square().sum().backward()
    for name, parameter in trunk.named_parameters():
        mine = model.visual.trunk.get_parameter(name).grad
        torch.testing.assert_close(mine, parameter.grad, atol=1e-5, rtol=1e-5, msg=name)


def test_a_square_image_is_the_same_as_its_patches() -> None:
    model, _ = make("naflex_ViT-B-32")
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    as_image = clip_core.build_transform(model.config.preprocess)(picture)
    as_patches = build_patch_transform(model.config)(picture)
    assert as_patches["patch_valid"].all()
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode_image(stack_patches([as_patches])), model.encode_image(as_image[None]), atol=1e-5, rtol=1e-5
        )
        tower = model.visual
        features, tokens = tower.features_and_tokens(as_image[None])
        assert torch.equal(features, model.encode_image(as_image[None]))
        assert tokens.shape == (1, 4 + 49, 64)  # four register tokens come first
        first, last = tower.intermediates(as_image[None], [0, -1])
        torch.testing.assert_close(tower.trunk.norm(last), tokens)
        assert first.shape == tokens.shape


def test_sizes_are_the_peers() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        height, width = (int(2**x) for x in generator.uniform(3, 12, 2))
        side, most = int(generator.choice([14, 16, 32])), int(generator.choice([1, 49, 256, 576, 1024]))
        expected = get_image_size_for_seq((height, width), side, most)[1]
        assert size_for_patches((height, width), side, most) == expected, (height, width, side, most)
    assert size_for_patches((1, 20_000), 16, 49) == (16, 49 * 16)


@pytest.mark.parametrize("size", [(200, 300), (64, 640), (31, 17), (384, 384)])
def test_patches_are_bit_for_bit_those_of_the_peers_transform(size: tuple[int, int]) -> None:
    config = clip_core.get_config("ViT-B-16-SigLIP2-naflex")
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    peer = transforms.Compose(
        [
            ResizeToSequence(16, 100, interpolation="bicubic"),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.5,) * 3),
            Patchify(16),
        ]
    )
    theirs, _ = NaFlexCollator(max_seq_len=100)([(peer(PIL.Image.fromarray(picture)), 0)] * 2)
    # Workers of a DataLoader get it pickled where processes are spawned.
    sample = pickle.loads(pickle.dumps(build_patch_transform(config, max_patches=100)))(picture)
    ours = stack_patches([sample, sample])
    collated = torch.utils.data.default_collate([sample, sample])
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key
        assert torch.equal(value, collated[key]), key
        assert value.dtype == theirs[key].dtype


def test_what_does_not_fit_is_refused_in_words() -> None:
    model, _ = make("naflex_ViT-B-32")
    patches = batch(model.config, [(40, 90)])
    with pytest.raises(ConfigError, match=r"shape \(1, 3, 224, 200\).*multiples of 32"):
        model.encode_image(torch.zeros(1, 3, 224, 200))
    with pytest.raises(ConfigError, match="no 'patch_valid'"):
        model.encode_image({key: value for key, value in patches.items() if key != "patch_valid"})
    with pytest.raises(ConfigError, match=r"patches \(1, 49, 3072\), patch_coord \(1, 48, 2\)"):
        model.encode_image({**patches, "patch_coord": patches["patch_coord"][:, 1:]})
    with pytest.raises(ConfigError, match=r"patch_valid as torch.int64"):
        model.encode_image({**patches, "patch_valid": patches["patch_valid"].long()})
    with pytest.raises(ConfigError, match="without a valid patch"):
        model.encode_image({**patches, "patch_valid": torch.zeros(1, 49, dtype=torch.bool)})
    plain = build(dataclasses.replace(clip_core.get_config("tiny")))
    with pytest.raises(ConfigError, match="got dict; allowed: a tensor"):
        plain.encode_image(patches)
    with pytest.raises(ConfigError, match="kind 'vit'; allowed: 'naflex'"):
        build_patch_transform(plain.config)
    with pytest.raises(ConfigError, match="max_patches is 0"):
        build_patch_transform(model.config, max_patches=0)
    with pytest.raises(ConfigError, match="no images"):
        stack_patches([])
    with pytest.raises(ImageError):
        build_patch_transform(model.config)(b"no image")
    wrong = dataclasses.replace(small("naflex_ViT-B-32").image, options=())
    with pytest.raises(ConfigError, match=r"patch_size is 32, but timm's naflexvit_base_patch16_gap .* has \(16, 16\)"):
        NaFlexTower(wrong, 24)
    with pytest.raises(ConfigError, match="divisor of image_size 224"):
        dataclasses.replace(wrong, patch_size=15)


@pytest.mark.slow
def test_the_towers_of_the_presets_have_the_sizes_of_timms_models() -> None:
    for name in (*NAMES, *MODERN, "ViT-SO400M-16-SigLIP2-naflex"):
        image = naflex.naflex_image(name)
        with torch.device("meta"):
            trunk = timm.create_model(image.name, num_classes=0, global_pool=image.pool, **dict(image.options))
        config = dataclasses.replace(
            small(name), image=image, embed_dim=trunk.num_features if image.projection == "none" else 24
        )
        ours = lay_out(config).visual.trunk
        assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in trunk.state_dict().items()}


def test_a_square_of_the_towers_size_has_as_many_patches_as_it_takes() -> None:
    for name in (*NAMES, *MODERN, "ViT-SO400M-16-SigLIP2-naflex"):
        image = naflex.naflex_image(name)
        assert (image.image_size // image.patch_size) ** 2 == image.max_patches
