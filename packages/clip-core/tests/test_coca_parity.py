"""CoCa against open_clip 3.3.0 on the same weights: keys, features, caption logits, gradients, captions.

open_clip's `generate` needs classes that transformers 5 no longer has under those names; those it still has are put
where open_clip looks for them, and its beam search gets a scorer that is written out here.
"""

from __future__ import annotations

from collections.abc import Callable

import open_clip
import pytest
import torch
import transformers.generation
from open_clip import coca_model

import clip_core
from clip_core.building import build
from clip_core.coca import CoCa
from clip_core.config import AttentionPoolConfig, ClipConfig, DecoderConfig, TextConfig, VitConfig
from clip_core.presets.parts import model as envelope

pytestmark = pytest.mark.parity

VOCABULARY, START, END = 60, 58, 59
TEXT = {"context_length": 14, "vocab_size": VOCABULARY, "width": 32, "heads": 4, "layers": 2}


def _config(pool: bool) -> ClipConfig:
    text = TextConfig(**TEXT, mlp_dim=128, activation="gelu", class_token=True)
    image = VitConfig(
        image_size=32,
        patch_size=8,
        width=48 if pool else 32,
        layers=2,
        heads=3 if pool else 2,
        mlp_dim=192 if pool else 128,
        activation="gelu",
        attention_pool=AttentionPoolConfig(queries=6, heads=4) if pool else None,
    )
    decoder = DecoderConfig(**TEXT, mlp_dim=128, activation="gelu", start_id=START, end_id=END, pad_id=0)
    return envelope(32, image, text, decoder=decoder, layout="nested")


def _pair(pool: bool = True) -> tuple[CoCa, coca_model.CoCa]:
    torch.manual_seed(0)
    ours = build(_config(pool))
    assert isinstance(ours, CoCa)
    with torch.no_grad():
        for parameter in ours.parameters():  # fresh weights have zero biases and gains of one; weights do not
            parameter += 0.1 * torch.randn_like(parameter)
    vision = {
        "image_size": 32,
        "patch_size": 8,
        "width": 48 if pool else 32,
        "layers": 2,
        "head_width": 16,
        "attentional_pool": pool,
        "attn_pooler_queries": 6,
        "attn_pooler_heads": 4,
        "output_tokens": True,
    }
    peer = coca_model.CoCa(32, dict(TEXT), {**TEXT, "embed_cls": True, "output_tokens": True}, vision).eval()
    peer.load_state_dict(ours.state_dict(), strict=True)
    return ours, peer


def _inputs(rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    tokens = torch.randint(1, START, (rows, 14))
    tokens[:, 0] = START
    for row in range(rows):
        tokens[row, 5 + row] = END
        tokens[row, 6 + row :] = 0
    return torch.randn(rows, 3, 32, 32), tokens


@pytest.mark.parametrize("pool", [True, False])
def test_outputs_and_gradients_equal_open_clip(pool: bool) -> None:
    ours, peer = _pair(pool)
    images, tokens = _inputs()
    mine, theirs = ours(images, tokens), peer(images, tokens)
    for name, key in [
        ("image_features", "image_features"),
        ("text_features", "text_features"),
        ("logit_scale", "logit_scale"),
        ("caption_logits", "logits"),
    ]:
        torch.testing.assert_close(getattr(mine, name), theirs[key], atol=1e-5, rtol=0, msg=name)
    assert torch.equal(mine.caption_labels, theirs["labels"])
    assert mine.logit_bias is None
    torch.testing.assert_close(ours.encode_image(images, normalize=True), peer.encode_image(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.encode_text(tokens, normalize=True), peer.encode_text(tokens), atol=1e-5, rtol=0)
    for output in (mine._asdict(), {**theirs, "caption_logits": theirs["logits"], "caption_labels": theirs["labels"]}):
        pairs = output["logit_scale"] * output["image_features"] @ output["text_features"].T
        caption = torch.nn.functional.cross_entropy(
            output["caption_logits"].transpose(1, 2), output["caption_labels"], ignore_index=0
        )
        (caption - pairs.log_softmax(-1).diagonal().mean()).backward()
    gradients = dict(peer.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("name", ["coca_base", "coca_ViT-B-32", "coca_ViT-L-14"])
def test_keys_shapes_and_heads_equal_open_clip(name: str) -> None:
    arguments = open_clip.get_model_config(name)
    arguments.pop("custom_text")
    with torch.device("meta"):
        peer = coca_model.CoCa(**arguments)
    ours = clip_core.create_model(name, device="meta")
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in peer.state_dict().items()}
    assert ours.text_decoder.context_length == peer.context_length == ours.context_length
    for part in ("visual.transformer.resblocks.0", "text.transformer.resblocks.0", "text_decoder.resblocks.0"):
        assert ours.get_submodule(part).attn.heads == peer.get_submodule(part).attn.num_heads
    assert ours.text_decoder.cross_attn[0].attn.heads == peer.text_decoder.cross_attn[0].attn.num_heads
    if peer.visual.attn_pool is not None:
        assert ours.visual.attn_pool.attn.heads == peer.visual.attn_pool.attn.num_heads


def test_checkpointing_the_blocks_changes_no_gradient() -> None:
    ours, _ = _pair()
    images, tokens = _inputs()
    gradients = []
    for enable in (False, True):
        ours.zero_grad()
        ours.set_grad_checkpointing(enable)
        ours(images, tokens).caption_logits.square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in ours.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


# ---- generate ----


class _Scorer:
    """Beam bookkeeping with the calls that open_clip makes: the textbook's, and the rules of transformers 4 for ends.

    A caption ends where an end is among the best `size` continuations; it scores its sum over its length with the end.
    A group is done when its worst finished caption is as good as the best continuation.
    """

    def __init__(self, batch_size: int, num_beams: int, device: torch.device, num_beam_groups: int) -> None:
        self.num_beams, self.num_beam_groups = num_beams, num_beam_groups
        self.size = num_beams // num_beam_groups
        self._beam_hyps: list[list[tuple[float, torch.Tensor]]] = [[] for _ in range(batch_size * num_beam_groups)]
        self.over = [False] * len(self._beam_hyps)

    @property
    def is_done(self) -> bool:
        return all(self.over)

    def keep(self, slot: int, score: float, ids: torch.Tensor) -> None:
        ranked = sorted([*self._beam_hyps[slot], (score, ids)], key=lambda item: item[0], reverse=True)
        self._beam_hyps[slot] = ranked[: self.size]

    def process(self, ids, scores, tokens, indices, pad_token_id, eos_token_id, beam_indices, group_index):
        length, images = ids.shape[1] + 1, len(self._beam_hyps) // self.num_beam_groups
        new_scores = torch.zeros(images, self.size)
        new_tokens = torch.full((images, self.size), pad_token_id)
        new_beams = torch.zeros(images, self.size, dtype=torch.long)
        for image in range(images):
            slot = image * self.num_beam_groups + group_index
            if self.over[slot]:
                continue
            go_on = []
            for rank in range(scores.shape[1]):
                beam = image * self.size + int(indices[image, rank])
                if int(tokens[image, rank]) == int(eos_token_id):
                    if rank < self.size:
                        self.keep(slot, float(scores[image, rank]) / length, ids[beam].clone())
                else:
                    go_on.append((scores[image, rank], tokens[image, rank], beam))
            for place, (score, token, beam) in enumerate(go_on[: self.size]):
                new_scores[image, place], new_tokens[image, place], new_beams[image, place] = score, token, beam
            full = len(self._beam_hyps[slot]) == self.size
            self.over[slot] = full and self._beam_hyps[slot][-1][0] >= float(scores[image].max()) / length
        return {
            "next_beam_scores": new_scores.view(-1),
            "next_beam_tokens": new_tokens.view(-1),
            "next_beam_indices": new_beams.view(-1),
        }

    def finalize(self, ids, scores, tokens, indices, pad_token_id, eos_token_id, max_length, beam_indices):
        for slot in range(len(self._beam_hyps)):
            for beam in range(slot * self.size, (slot + 1) * self.size):
                if not self.over[slot]:
                    self.keep(slot, float(scores[beam]) / ids.shape[1], ids[beam])
        best = []
        for first in range(0, len(self._beam_hyps), self.num_beam_groups):
            slots = range(first, first + self.num_beam_groups)
            found = [item for slot in slots for item in self._beam_hyps[slot]]
            best.append(max(found, key=lambda item: item[0])[1].tolist())
        width = min(max(map(len, best)) + 1, max_length)
        rows = [[*row, int(eos_token_id), *[pad_token_id] * width][:width] for row in best]
        return {"sequences": torch.tensor(rows)}


@pytest.fixture
def peer_generates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let open_clip's `generate` run beside transformers 5."""
    library = transformers.generation
    for name in (
        "LogitsProcessorList",
        "MaxLengthCriteria",
        "MinLengthLogitsProcessor",
        "RepetitionPenaltyLogitsProcessor",
        "StoppingCriteriaList",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
    ):
        monkeypatch.setattr(coca_model, name, getattr(library, name), raising=False)
    monkeypatch.setattr(coca_model, "BeamSearchScorer", _Scorer, raising=False)
    warpers = {"top_k": library.TopKLogitsWarper, "top_p": library.TopPLogitsWarper, "beam_search": "beam_search"}
    monkeypatch.setattr(coca_model, "GENERATION_TYPES", warpers)
    monkeypatch.setattr(coca_model, "_has_transformers", True)


def _captions(seeds: int, run: Callable[[int], torch.Tensor]) -> list[torch.Tensor]:
    found = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        found.append(run(seed))
    return found


PEER = {"sot_token_id": START, "eos_token_id": END, "max_seq_len": 14}


@pytest.mark.usefixtures("peer_generates")
@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"method": "greedy"}, {"generation_type": "top_k", "top_k": 1}),
        ({"method": "greedy", "repetition_penalty": 1.7}, {"generation_type": "top_k", "repetition_penalty": 1.7}),
        ({"method": "sample", "top_k": 7}, {"generation_type": "top_k", "top_k": 7}),
        ({"method": "sample", "top_p": 0.8}, {"generation_type": "top_p", "top_p": 0.8}),
        (
            {"method": "sample", "top_p": 0.9, "temperature": 1.6, "repetition_penalty": 1.3, "min_length": 8},
            {"generation_type": "top_p", "top_p": 0.9, "temperature": 1.6, "repetition_penalty": 1.3, "min_seq_len": 8},
        ),
    ],
)
@pytest.mark.parametrize("prompted", [False, True])
def test_greedy_and_drawn_captions_equal_open_clips_with_the_same_seed(mine, theirs, prompted: bool) -> None:
    ours, peer = _pair()
    with torch.no_grad():  # so that captions end at different lengths
        ours.text_decoder.text_projection[:, END] += 0.5
        peer.load_state_dict(ours.state_dict())
    images = torch.randn(8, 3, 32, 32)
    prompt = torch.tensor([[START, 5, 6]]).repeat(8, 1) if prompted else None
    found = _captions(4, lambda _: ours.generate(images, prompt, max_length=13, **mine))
    expected = _captions(4, lambda _: peer.generate(images, prompt, seq_len=13, **PEER, **theirs))
    for row, (ids, wanted) in enumerate(zip(found, expected, strict=True)):
        assert ids.tolist() == wanted.tolist(), row


@pytest.mark.usefixtures("peer_generates")
@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.4}, {"min_length": 9}])
@pytest.mark.parametrize("beams", [2, 3, 5])
def test_beam_search_finds_what_open_clip_finds_with_three_groups_that_do_the_same(options, beams: int) -> None:
    theirs = {("min_seq_len" if key == "min_length" else key): value for key, value in options.items()}
    lengths = set()
    for boost in (0.0, 1.0, 2.0):
        ours, peer = _pair()
        with torch.no_grad():
            ours.text_decoder.text_projection[:, END] += boost * ours.text_decoder.ln_final.bias.sign()
            peer.load_state_dict(ours.state_dict())
        images = torch.randn(6, 3, 32, 32)
        found = ours.generate(images, beams=beams, max_length=13, **options)
        expected = peer.generate(images, num_beams=3 * beams, num_beam_groups=3, seq_len=13, **PEER, **theirs)
        assert found.tolist() == expected.tolist()
        lengths |= set((found != 0).sum(1).tolist())
    assert len(lengths) > 1  # else the end was never reached, or always at once
