"""Captions of a small CoCa: what is generated, kept and refused."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch

import clip_core
from clip_core import Bundle
from clip_core.building import build
from clip_core.config import DecoderConfig
from clip_core.errors import ConfigError, DataError
from clip_eval import open_dataset
from clip_eval.encoder import Encoder
from clip_eval.tasks.captioning import evaluate_captioning, generate_captions

pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed")

TEXTS = ["a cat\nan animal", "a dog", "an owl\na bird", "a red house", "the sea"]


@pytest.fixture(autouse=True)
def without_java(monkeypatch) -> None:
    """It takes seconds to start, and `test_captions_parity` has it."""
    monkeypatch.setattr(shutil, "which", lambda name: None)


@pytest.fixture
def coca() -> Bundle:
    return small_coca()


def small_coca(context_length: int = 32) -> Bundle:
    tiny = clip_core.get_config("tiny")
    tokenizer = dataclasses.replace(tiny.tokenizer, context_length=context_length)
    text = dataclasses.replace(tiny.text, class_token=True, context_length=context_length)
    decoder = DecoderConfig(
        context_length=text.context_length,
        vocab_size=text.vocab_size,
        width=text.width,
        layers=1,
        heads=2,
        mlp_dim=2 * text.width,
        activation="gelu",
        start_id=text.vocab_size - 2,
        end_id=text.vocab_size - 1,
        pad_id=0,
    )
    config = dataclasses.replace(tiny, text=text, decoder=decoder, tokenizer=tokenizer, layout="nested")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = build(config).eval()
    with torch.no_grad():
        model.text_decoder.text_projection *= 10  # so that images get captions of their own
    return Bundle.of(model)


def test_captions_are_those_of_generate_and_are_kept(coca, make_retrieval, png) -> None:
    pictures = [png(0), png(1), b"broken", png(3), png(4)]
    dataset = open_dataset(make_retrieval(TEXTS, pictures))
    encoder = Encoder(bundle=coca, batch_size=2)
    images = encoder.images(dataset)
    found = evaluate_captioning(encoder, dataset, images, method="greedy", max_length=8)
    assert [sample.index for sample in found.samples] == [0, 1, 3, 4]
    from clip_core.images import open_image

    for sample in found.samples:
        pixels = coca.preprocess(open_image(pictures[sample.index], name="x"))[None]
        ids = coca.model.generate(pixels, method="greedy", max_length=8)[0]
        expected = coca.tokenizer.decode(ids, skip_special_tokens=True).strip()
        assert [answer.text for answer in sample.answers] == [expected]
        assert sample.truth == dataset.captions[sample.index]
        assert -1 <= sample.answers[0].similarity <= 1
    assert found.details["images"] == 4
    assert found.details["references"] == 5
    assert found.details["generation"]["method"] == "greedy"
    assert found.details["generation"]["beams"] == 2
    assert found.details["left_out"] == {"METEOR": "Java is not installed", "SPICE": "Java is not installed"}
    assert set(found.metrics) == {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"}
    assert found.outcomes["CIDEr"].clusters.tolist() == [0, 1, 3, 4]
    assert set(found.outcomes) == {"CIDEr", "ROUGE_L"}


def test_drawing_has_a_seed(coca, make_retrieval) -> None:
    dataset = open_dataset(make_retrieval(TEXTS))
    encoder = Encoder(bundle=coca, batch_size=2)
    settings = {"method": "sample", "max_length": 8, "top_k": 50}
    first = generate_captions(encoder, coca.model, dataset.samples, settings, seed=1)
    assert generate_captions(encoder, coca.model, dataset.samples, settings, seed=1) == first
    assert generate_captions(encoder, coca.model, dataset.samples, settings, seed=2) != first
    images = encoder.images(dataset)
    found = evaluate_captioning(encoder, dataset, images, seed=1, **settings)
    assert found.details["seed"] == 1
    assert [sample.answers[0].text for sample in found.samples] == first


class Share:
    """One of several processes, whose words are kept instead of sent."""

    def __init__(self, rank: int, size: int, said: list[str]) -> None:
        self.rank, self.size, self.said, self.first = rank, size, said, rank == 0

    def together(self, work):
        return work()

    def gather_text(self, text: str) -> list[str]:
        self.said.append(text)
        return self.said


def test_captions_do_not_depend_on_the_number_of_processes(coca, make_retrieval) -> None:
    dataset = open_dataset(make_retrieval(TEXTS))
    settings = {"method": "sample", "max_length": 8}
    alone = generate_captions(Encoder(bundle=coca, batch_size=2), coca.model, dataset.samples, settings)
    said: list[str] = []
    for rank in range(2):
        encoder = Encoder(bundle=coca, batch_size=2, ranks=Share(rank, 2, said))
        if rank == 0:
            with pytest.raises(KeyError):  # the other half is not there yet
                generate_captions(encoder, coca.model, dataset.samples, settings)
        else:
            assert generate_captions(encoder, coca.model, dataset.samples, settings) == alone


def test_what_cannot_be_asked_is_refused(bundle, coca, make_retrieval) -> None:
    dataset = open_dataset(make_retrieval(TEXTS))
    plain = Encoder(bundle=bundle)
    with pytest.raises(ConfigError, match="has no decoder, so it cannot write captions; allowed: CoCa"):
        evaluate_captioning(plain, dataset, plain.images(dataset))
    encoder = Encoder(bundle=coca)
    images = encoder.images(dataset)
    with pytest.raises(ConfigError, match="unknown setting 'beam'; allowed: method, max_length"):
        evaluate_captioning(encoder, dataset, images, beam=3)
    with pytest.raises(ConfigError, match="max_length is 40; allowed: at most 32"):
        evaluate_captioning(encoder, dataset, images, max_length=40)
    empty = dataclasses.replace(dataset, captions=((),) * 5)
    with pytest.raises(DataError, match="none of the 5 images that can be read has a caption"):
        evaluate_captioning(encoder, empty, images)


def test_captions_are_no_longer_than_the_model_can_write(make_retrieval) -> None:
    dataset = open_dataset(make_retrieval(TEXTS))
    encoder = Encoder(bundle=small_coca(12))
    images = encoder.images(dataset)
    assert evaluate_captioning(encoder, dataset, images).details["generation"]["max_length"] == 12
    with pytest.raises(ConfigError, match="max_length is 30; allowed: at most 12"):
        evaluate_captioning(encoder, dataset, images, max_length=30)
