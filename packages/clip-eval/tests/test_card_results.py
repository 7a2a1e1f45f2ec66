"""Records of this package in a model card of clip-hub, which reads them as files and cannot import what wrote them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import clip_core
from clip_core import Bundle
from clip_core.building import build
from clip_eval import evaluate, open_dataset
from clip_eval.records import model_facts
from clip_hub.card import CardFacts, read_rows, weights_sha256, write_card


def test_a_card_states_what_was_measured_on_these_weights(digits: Path, bundle: Bundle, tmp_path: Path) -> None:
    state = bundle.model.state_dict()
    records = [evaluate(bundle, open_dataset(digits / name)) for name in ("digits", "digit_scenes")]
    rows = read_rows([record.save(tmp_path) for record in records], state)
    made = {
        (record.dataset.name, name): value.value for record in records for name, value in record.result.metrics.items()
    }
    assert {(row.dataset, row.metric): row.value for row in rows} == made
    text = write_card(
        CardFacts(
            repo="someone/digits",
            config=bundle.config,
            parameters=1,
            precision="float32",
            layouts={"bundle": "model.safetensors"},
            missing={},
            rows=rows,
        )
    )
    assert f"| {100 * made['digits', 'acc1']:.2f} |" in text
    assert records[0].facts["dataset"]["about"]["notes"][0] in text


def test_the_hash_of_the_weights_is_the_records(bundle: Bundle, tmp_path: Path) -> None:
    state = bundle.model.state_dict()
    assert weights_sha256(state) == model_facts(bundle)["weights_sha256"]
    folder = clip_core.save(bundle, tmp_path / "b")
    half = clip_core.load(folder, precision="bf16")
    assert weights_sha256(state, "bfloat16") == model_facts(half)["weights_sha256"]
    other = build(dataclasses.replace(bundle.config, logit_bias=-10.0))
    assert weights_sha256(other.state_dict()) == model_facts(Bundle.of(other))["weights_sha256"]
