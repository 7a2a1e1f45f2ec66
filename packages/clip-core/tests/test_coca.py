"""What CoCa's `generate` promises, against captions that are enumerated or counted here.

These also cover clip_core.coca, clip_core.presets.coca, clip_core.towers.decoder, clip_core.layers.cache and
clip_core.generation: beams, decoding, options, prompts, sampling, scores.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

import clip_core
from clip_core.building import build
from clip_core.coca import CoCa, CocaOutput
from clip_core.config import ClipConfig, DecoderConfig, HfTextConfig, TextConfig, VitConfig
from clip_core.errors import ConfigError
from clip_core.generation import CachedDecoding, RecomputedDecoding
from clip_core.generation.scores import keep_top_k, keep_top_p, penalize_repetition
from clip_core.model import ClipOutput
from clip_core.presets.parts import model as envelope

START, END = 10, 11


def _coca(vocabulary: int = 12, seed: int = 0, **text: object) -> CoCa:
    """An untrained CoCa of two layers on 16-pixel images; its last two ids are start and end, 0 is padding."""
    size = {"context_length": 32, "vocab_size": vocabulary, "width": 32, "layers": 2, "heads": 2, "mlp_dim": 64}
    config: ClipConfig = envelope(
        16,
        VitConfig(image_size=16, patch_size=8, width=32, layers=1, heads=2, mlp_dim=64, activation="gelu"),
        TextConfig(**size, activation="gelu", **{"class_token": True, **text}),
        decoder=DecoderConfig(**size, activation="gelu", start_id=vocabulary - 2, end_id=vocabulary - 1, pad_id=0),
        layout="nested",
    )
    torch.manual_seed(seed)
    model = build(config)
    with torch.no_grad():
        model.text_decoder.text_projection *= 3  # so that some ids are much likelier than others
    return model


def _images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def _logits(model: CoCa, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Of the id after each of `tokens`, by both towers and the decoder without anything of `generation`."""
    image_tokens = model.visual.features_and_tokens(images)[1]
    return model.text_decoder(image_tokens, model.text.text_features_and_tokens(tokens)[1])


@torch.no_grad()
def test_beam_search_with_room_for_all_captions_finds_the_best_of_all() -> None:
    model, images = _coca(vocabulary=5), _images()
    start, end, length = 3, 4, 5
    captions = torch.tensor([[start, *ids] for ids in itertools.product(range(5), repeat=length - 1)])
    for image, found in zip(
        images,
        model.generate(images, beams=320, max_length=length, min_length=0, beam_score="log_probabilities"),
        strict=True,
    ):
        logits = _logits(model, image.expand(len(captions), 3, 16, 16), captions[:, :-1])
        gains = logits.double().log_softmax(-1).gather(2, captions[:, 1:, None])[:, :, 0].numpy()
        scores: dict[tuple[int, ...], float] = {}
        for ids, gain in zip(captions.tolist(), gains, strict=True):
            stop = ids.index(end) + 1 if end in ids else length
            scores[tuple(ids[:stop])] = gain[: stop - 1].sum() / stop
        best = max(scores, key=lambda caption: scores[caption])
        assert tuple(found.tolist()[: len(best)]) == best
        assert set(found.tolist()[len(best) :]) <= {0, end}


@torch.no_grad()
def test_one_beam_is_greedy_where_nothing_ends() -> None:
    model, images = _coca(), _images(8)
    options = {"max_length": 9, "min_length": 8}
    greedy = model.generate(images, method="greedy", **options)
    beam = model.generate(images, method="beam", beams=1, **options)
    followed = torch.full((8, 1), START)
    for _ in range(7):
        logits = _logits(model, images, followed)[:, -1]
        logits[:, END] = -torch.inf
        followed = torch.cat([followed, logits.argmax(-1, keepdim=True)], dim=1)
    for row in range(8):
        ids = followed[row].tolist()
        assert beam[row, :8].tolist() == ids
        stop = ids.index(0) + 1 if 0 in ids else 8  # greedy takes padding for an end, as OpenCLIP's loop does
        assert greedy[row, :stop].tolist() == ids[:stop]


@pytest.mark.parametrize(
    "options",
    [
        {"beams": 4},
        {"beams": 6, "beam_groups": 3, "diversity_penalty": 2.0},
        {"method": "greedy"},
        {"method": "sample", "top_p": 0.9, "temperature": 2.0},
    ],
)
@pytest.mark.parametrize("text", [{}, {"class_token": False}, {"class_token": False, "layer_scale": 0.5}])
def test_the_cache_changes_no_caption(options: dict[str, object], text: dict[str, object]) -> None:
    model, images = _coca(**text), _images(5)
    prompt = torch.tensor([[START, 3, 0, 4, END, 0], [START, 3, 0, END, 0, 0], *[[START, END, 0, 0, 0, 0]] * 3])
    for given in (None, prompt):
        cached, plain = (
            model.generate(
                images, given, max_length=12, use_cache=use, generator=torch.Generator().manual_seed(3), **options
            )
            for use in (True, False)
        )
        assert torch.equal(cached, plain)


@torch.no_grad()
@pytest.mark.parametrize("class_token", [True, False])
def test_cached_logits_follow_rows_that_change_places(class_token: bool) -> None:
    model, images = _coca(class_token=class_token), _images(2)
    image_tokens = model.visual.features_and_tokens(images)[1]
    cached = CachedDecoding(model.text, model.text_decoder, image_tokens, rows=6, length=12)
    plain = RecomputedDecoding(model.text, model.text_decoder, image_tokens)
    tokens, generator = torch.randint(0, 12, (6, 3), generator=torch.Generator().manual_seed(0)), torch.Generator()
    read = tokens
    for _ in range(6):
        logits = cached(tokens)
        expected = _logits(model, images.repeat_interleave(3, dim=0), read)[:, -1]
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(plain(tokens), expected, atol=1e-5, rtol=0)
        order = torch.tensor([1, 0, 0, 4, 5, 5])  # a row stays with its image
        cached.reorder(order)
        plain.reorder(order)
        tokens = torch.randint(0, 12, (6, 1), generator=generator)
        read = torch.cat([read[order], tokens], dim=1)


def test_a_causal_tower_is_read_once_and_another_again_at_each_step() -> None:
    model, images = _coca(), _images(2)
    positions = []
    for name in ("text.transformer.resblocks.0.mlp", "text_decoder.cross_attn.0.mlp"):
        model.get_submodule(name).register_forward_hook(lambda _, inputs, __: positions.append(inputs[0].shape[1]))
    model.generate(images, method="greedy", max_length=8, min_length=7)
    assert positions == [1] * len(positions)
    positions.clear()
    model.generate(images, method="greedy", max_length=8, min_length=7, use_cache=False)
    assert max(positions) == 8  # seven ids and the class token
    bidirectional = _coca(causal=False)
    for use in (True, False):  # it cannot use one
        assert model.generate(images, use_cache=use).shape[0] == bidirectional.generate(images, use_cache=use).shape[0]


@torch.no_grad()
def test_a_bidirectional_encoder_of_transformers_captions_too() -> None:
    plain, images = _coca(), _images(4)
    settings = {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 40,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "initializer_range": 0.5,
    }
    text = HfTextConfig(
        model_type="roberta",
        settings=tuple(settings.items()),
        width=32,
        context_length=32,
        vocab_size=12,
        pad_id=0,
        pool="mean",
        projection="linear",
    )
    torch.manual_seed(0)
    model = build(dataclasses.replace(plain.config, text=text))
    followed = torch.full((4, 1), START)
    for _ in range(7):
        logits = _logits(model, images, followed)[:, -1]
        logits[:, END] = -torch.inf
        followed = torch.cat([followed, logits.argmax(-1, keepdim=True)], dim=1)
    found = model.train().generate(images, beams=1, max_length=9, min_length=8)  # without the encoder's dropout
    assert torch.equal(found[:, :8], followed)


@torch.no_grad()
@pytest.mark.parametrize(
    ("options", "p", "k", "temperature"),
    [
        ({}, 1.0, 12, 1.0),
        ({"top_k": 4}, 1.0, 4, 1.0),
        ({"top_p": 0.7}, 0.7, 12, 1.0),
        ({"top_k": 6, "top_p": 0.8, "temperature": 2.0}, 0.8, 6, 2.0),
    ],
)
def test_ids_are_drawn_as_often_as_they_are_likely(options, p: float, k: int, temperature: float) -> None:
    model, image, draws = _coca(), _images(1), 4000
    logits = _logits(model, image, torch.tensor([[START]]))[0, 0].double().numpy()
    kept = np.argsort(-logits)[:k]
    likely = np.exp(logits[kept]) / np.exp(logits[kept]).sum()
    before = np.cumsum(likely) - likely
    kept = kept[before < p]
    expected = np.zeros(12)
    expected[kept] = np.exp(logits[kept] / temperature)
    expected /= expected.sum()
    generator = torch.Generator().manual_seed(0)
    found = model.generate(
        image.expand(draws, 3, 16, 16), method="sample", max_length=3, min_length=0, generator=generator, **options
    )
    counts = np.bincount(found[:, 1], minlength=12)
    assert set(np.flatnonzero(counts)) <= set(kept)
    assert np.all(np.abs(counts / draws - expected) <= 5 * np.sqrt(expected * (1 - expected) / draws))


def test_the_same_seed_draws_the_same_captions() -> None:
    model, images = _coca(), _images(4)
    draw = lambda seed: model.generate(  # noqa: E731
        images, method="sample", temperature=3.0, max_length=12, generator=torch.Generator().manual_seed(seed)
    )
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("method", ["beam", "greedy"])
def test_captions_do_not_depend_on_the_rest_of_the_batch(method) -> None:
    model, images = _coca(), _images(5)
    together = model.generate(images, method=method, max_length=12)
    for row in range(5):
        alone = model.generate(images[row : row + 1], method=method, max_length=12)[0]
        assert torch.equal(together[row, : len(alone)], alone)
        assert not together[row, len(alone) :].any()


@pytest.mark.parametrize("options", [{}, {"beams": 5}, {"method": "greedy"}, {"method": "sample", "top_k": 3}])
def test_captions_begin_with_their_prompts_of_any_length(options: dict[str, object]) -> None:
    model, images = _coca(), _images(3)
    rows = [[START, 3, 0, 4, 5], [START, 7, 8], [START]]
    prompt = torch.tensor([[*row, END, *[0] * (6 - len(row))] for row in rows])
    found = model.generate(images, prompt, max_length=12, generator=None, **options)
    for ids, row in zip(found.tolist(), rows, strict=True):
        assert ids[: len(row)] == row
    if options.get("method") != "sample":
        for image, row, ids in zip(images, rows, found, strict=True):
            alone = model.generate(image[None], torch.tensor(row), max_length=12, **options)[0]
            assert torch.equal(ids[: len(alone)], alone)
    expected = model.generate(images, prompt[:1].expand(3, -1), method="greedy")
    for shared in (prompt[0], prompt[:1]):
        assert torch.equal(model.generate(images, shared, method="greedy"), expected)


@pytest.mark.parametrize(
    "options", [{"beam_score": "log_probabilities"}, {"method": "greedy"}, {"method": "sample", "temperature": 4.0}]
)
def test_lengths_stops_and_padding(options: dict[str, object]) -> None:
    model, images = _coca(seed=3), _images(40)
    torch.manual_seed(0)
    found = model.generate(images, max_length=11, min_length=4, stop_ids=(END, 5), **options)
    assert found.shape[1] <= 11
    ends = []
    for ids in found.tolist():
        stops = [place for place, token in enumerate(ids) if token in (END, 5)]
        if stops:
            ends.append(stops[0])
            assert stops[0] >= 4
            assert set(ids[stops[0] + 1 :]) <= {0}
    assert len(set(ends)) > 1


def test_groups_of_beams_that_may_not_repeat_each_other_differ() -> None:
    model, images = _coca(), _images(6)
    options = {"max_length": 10, "min_length": 9, "beam_score": "log_probabilities"}
    assert torch.equal(
        model.generate(images, beams=2, **options),
        model.generate(images, beams=6, beam_groups=3, diversity_penalty=1e-6, **options),
    )
    # Of three single beams under a heavy penalty, the second and third begin with what the ones before did not.
    chosen: list[torch.Tensor] = []
    model.text.token_embedding.register_forward_hook(lambda _, inputs, __: chosen.append(inputs[0]))
    model.generate(images, beams=3, beam_groups=3, diversity_penalty=1e4, **options)
    for tokens in chosen[1:]:
        assert all(len(set(group)) == 3 for group in tokens.view(6, 3).tolist())


def test_beams_score_at_least_what_greedy_does() -> None:
    model, images = _coca(), _images(20)
    options = {"max_length": 8, "min_length": 7}

    def score(captions: torch.Tensor) -> torch.Tensor:
        logits = _logits(model, images, captions[:, :-1]).log_softmax(-1)
        return logits.gather(2, captions[:, 1:, None]).sum((1, 2))

    with torch.no_grad():
        narrow, wide = (
            score(model.generate(images, beams=beams, beam_score="log_probabilities", **options)) for beams in (1, 12)
        )
    assert (wide >= narrow - 1e-4).float().mean() > 0.9
    assert (wide > narrow + 1e-3).any()


def test_changes_to_scores() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    out = float("-inf")
    assert keep_top_k(scores, 2).tolist() == [[2.0, 1.0, out, out]]
    assert keep_top_k(scores, 9).tolist() == scores.tolist()
    probabilities = np.exp(scores.numpy()[0]) / np.exp(scores.numpy()[0]).sum()
    for p in (1e-6, 0.6, 0.7, 0.89, 0.99, 1.0):
        kept = min(int(np.searchsorted(np.cumsum(probabilities), p)) + 1, 4)
        assert (keep_top_p(scores[:, [2, 0, 3, 1]], p) > out).sum() == kept
    assert penalize_repetition(scores, torch.tensor([[0, 3, 3]]), 2.0).tolist() == [[1.0, 1.0, 0.0, -2.0]]


def test_generating_leaves_modes_and_gradients_alone_and_uses_no_dropout() -> None:
    model, images = _coca(), _images(2)
    expected = model.generate(images)
    model.train()
    model.text.eval()
    assert torch.equal(model.generate(images), expected)
    assert model.training
    assert model.visual.training
    assert not model.text.training
    assert not model.text.transformer.resblocks[0].training
    with pytest.raises(ConfigError):
        model.generate(images[:, :, :8])
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_low_precision_and_empty_batches() -> None:
    model = _coca()
    assert model.generate(_images(0)).shape == (0, 1)
    model.to(torch.bfloat16)
    assert model.generate(_images(2)).dtype == torch.int64


@torch.no_grad()
def test_either_input_may_be_left_out() -> None:
    model, images = _coca(), _images()
    tokens = torch.randint(1, END, (3, 32), generator=torch.Generator().manual_seed(2))
    whole = model(image=images, text=tokens)
    assert isinstance(whole, CocaOutput)
    for given, name in (({"image": images}, "image_features"), ({"text": tokens}, "text_features")):
        alone = model(**given)
        assert isinstance(alone, ClipOutput)
        torch.testing.assert_close(getattr(alone, name), getattr(whole, name), atol=1e-6, rtol=0)


def test_a_bundle_keeps_the_decoder(tmp_path) -> None:
    model = _coca()
    bundle = clip_core.Bundle.of(model)
    config = ClipConfig.from_json(model.config.to_json())
    assert config == model.config
    clip_core.save(bundle, tmp_path / "bundle")
    loaded = clip_core.load(tmp_path / "bundle").model
    assert torch.equal(loaded.generate(_images()), model.generate(_images()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 33}, "max_length is 33; allowed: at most 32"),
        ({"max_length": 1}, "max_length is 1; allowed: 2 or more"),
        ({"min_length": 12, "max_length": 12}, "min_length is 12"),
        ({"method": "best"}, "method is 'best' .str.; allowed: 'beam' or 'greedy' or 'sample'"),
        ({"beams": 0}, "beams is 0"),
        ({"beams": 5, "beam_groups": 2}, "beam_groups is 2; allowed: a divisor of beams 5"),
        ({"beams": 4, "beam_groups": 2}, "diversity_penalty is 0.0; allowed: more than 0"),
        ({"diversity_penalty": 1.0}, "diversity_penalty is 1.0; allowed: 0 unless"),
        ({"top_k": 5}, "top_k is 5; allowed: nothing with method 'beam'; it is for 'sample'"),
        ({"method": "greedy", "temperature": 2.0}, "temperature is 2.0"),
        ({"method": "sample", "beams": 3}, "beams is 3"),
        ({"method": "sample", "top_k": 0}, "top_k is 0"),
        ({"method": "sample", "top_p": 1.5}, "top_p is 1.5"),
        ({"method": "sample", "temperature": 0.0}, "temperature is 0.0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"stop_ids": ()}, r"stop_ids is \(\)"),
        ({"prompt": torch.tensor([[END, 0]])}, "a prompt without ids"),
        ({"prompt": torch.full((2, 3), 1)}, r"a prompt of shape \(2, 3\)"),
        ({"prompt": torch.full((3, 3), 1.0)}, "float32"),
        ({"prompt": torch.full((12,), 1), "max_length": 12}, "a prompt of 12 ids and max_length 12"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        _coca().generate(_images(), **{"max_length": 12, **options})
    assert "GenerationOptions" not in str(refused.value)


def test_a_decoder_of_another_width_is_refused() -> None:
    config = _coca().config
    with pytest.raises(ConfigError, match="decoder.width is 32; allowed: 64, the width of the image tower's tokens"):
        build(dataclasses.replace(config, image=dataclasses.replace(config.image, width=64)), device="meta")
    with pytest.raises(ConfigError, match="start_id is 99; allowed: an id below 12"):
        dataclasses.replace(config.decoder, start_id=99)


def test_presets_state_what_a_caption_begins_and_ends_with() -> None:
    for name in ("coca_base", "coca_ViT-B-32", "coca_ViT-L-14"):
        config = clip_core.get_config(name)
        ids = clip_core.get_tokenizer(name)([""])[0].tolist()
        assert ids[:3] == [config.decoder.start_id, config.decoder.end_id, config.decoder.pad_id]
