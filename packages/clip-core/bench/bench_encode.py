"""Images and texts per second of clip-core, open_clip and, for CLIP ViTs, transformers: one process, same weights.

    python bench_encode.py [--rounds 5] [--threads 1] [--only text] [--json FILE]

Texts: "prompts" are ImageNet's templates filled with its class names, "sentences" are English prose of 5 to 18 words
that rarely begin alike, "random ids" share nothing at all, "full" are rows of the whole context length. Before anything
is timed, the features of both sides are compared. The figures are medians of rounds in alternation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from bench_tokenizer import prose
from beside import Row, alternate, options, report

import clip_core

IMAGES = {"ViT-B-32": 16, "ViT-L-14": 2, "RN50": 8, "convnext_base": 4}
TEXTS = {"ViT-B-32": 96, "ViT-L-14": 48}


def pair(name: str) -> tuple[clip_core.Clip, torch.nn.Module]:
    """Our model and open_clip's with the same random weights."""
    import open_clip

    torch.manual_seed(0)
    peer = open_clip.create_model(name).eval()
    ours = clip_core.create_model(name)
    ours.load_state_dict(peer.state_dict())
    return ours, peer


def from_transformers(model: clip_core.Clip, tokens: torch.Tensor, images: torch.Tensor) -> dict[str, Callable]:
    """Transformers' CLIP of the same sizes; its weights are others, which does not matter for time."""
    import transformers

    image, text = model.config.image, model.config.text
    config = transformers.CLIPConfig(
        text_config={
            "hidden_size": text.width,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "intermediate_size": text.mlp_dim,
            "hidden_act": "gelu",
            "eos_token_id": 49407,
            "bos_token_id": 49406,
        },
        vision_config={
            "hidden_size": image.width,
            "num_hidden_layers": image.layers,
            "num_attention_heads": image.heads,
            "intermediate_size": image.mlp_dim,
            "hidden_act": "gelu",
            "patch_size": image.patch_size,
        },
        projection_dim=model.config.embed_dim,
    )
    peer = transformers.CLIPModel(config).eval()
    return {
        "image": lambda: peer.get_image_features(pixel_values=images),
        "text": lambda: peer.get_text_features(tokens),
    }


def text_cases(name: str, count: int) -> dict[str, torch.Tensor]:
    """Token ids (count, 77) of each kind of text."""
    import open_clip

    tokenizer = clip_core.get_tokenizer(name)
    prompts = [t(c) for c in open_clip.IMAGENET_CLASSNAMES[::31] for t in open_clip.OPENAI_IMAGENET_TEMPLATES]
    full = torch.randint(1, 49_000, (count, 77), generator=torch.Generator().manual_seed(0))
    full[:, -1] = 49_407
    ten = torch.zeros_like(full)
    ten[:, :9] = full[:, :9]
    ten[:, 9] = 49_407
    step = len(prompts) // count
    return {
        "prompts": tokenizer(prompts[::step][:count]),
        "random ids": ten,
        "sentences": tokenizer(prose(count)),
        "full": full[: count // 4],
    }


@torch.inference_mode()
def measure(name: str, rounds: int, only: str) -> list[Row]:
    """The rows of one architecture."""
    ours, peer = pair(name)
    rows: list[Row] = []

    def row(case: str, count: int, calls: dict[str, Callable[[], torch.Tensor]]) -> None:
        if only not in case:
            return
        difference = float((calls["ours"]() - calls["open_clip"]()).abs().max())
        if difference > 1e-4:
            sys.exit(f"{case}: features differ by {difference:.1e}")
        times = alternate(calls, rounds)
        figures: Row = {"case": case, **{side: count / value for side, value in times.items()}}
        figures |= {"x open_clip": times["open_clip"] / times["ours"]}
        if "transformers" in times:
            figures |= {"x transformers": times["transformers"] / times["ours"]}
        rows.append({**figures, "largest difference": difference})
        print(figures, file=sys.stderr, flush=True)

    images = torch.randn(IMAGES[name], 3, 224, 224)
    texts = text_cases(name, TEXTS[name]) if name in TEXTS else {}
    third = from_transformers(ours, next(iter(texts.values())), images) if texts else {}
    calls = {"ours": lambda: ours.encode_image(images), "open_clip": lambda: peer.encode_image(images)}
    row(f"{name}, images per second", len(images), calls | ({"transformers": third["image"]} if third else {}))
    for kind, tokens in texts.items():
        mean = float((tokens.argmax(-1) + 1).float().mean())
        case = f"{name}, texts per second: {kind}, {mean:.1f} tokens"
        calls = {"ours": lambda t=tokens: ours.encode_text(t), "open_clip": lambda t=tokens: peer.encode_text(t)}
        row(case, len(tokens), calls | ({"transformers": third["text"]} if kind == "prompts" else {}))
    return rows


def main() -> None:
    arguments = options(__doc__, rounds=5).parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    names = [name for name in IMAGES if name in clip_core.list_models()]
    rows = [row for name in names for row in measure(name, arguments.rounds, arguments.only)]
    report("encode", rows, arguments.json)


if __name__ == "__main__":
    main()
