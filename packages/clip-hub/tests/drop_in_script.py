"""What a user of OpenCLIP 3.3.0 writes; `test_drop_in_parity` runs it with OpenCLIP and with what stands in its place.

    python drop_in_script.py FOLDER RESULTS

FOLDER has configurations and weights of two small models, a picture, and an exported model.
"""

from __future__ import annotations

import sys
from pathlib import Path

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN
from open_clip.factory import load_checkpoint
from open_clip.loss import SigLipLoss
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer, _tokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES
from PIL import Image

__all__ = ["main"]


def main(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    open_clip.add_model_config(folder / "configs")
    picture = Image.open(folder / "picture.png")

    # The README's first steps.
    model, _, preprocess = open_clip.create_model_and_transforms("small", pretrained=str(folder / "small.pt"))
    found["training"] = model.training
    model.eval()
    tokenizer = open_clip.get_tokenizer("small")
    image = preprocess(picture).unsqueeze(0)
    text = tokenizer(["a diagram", "a dog", "a cat"])
    with torch.no_grad():
        image_features = model.encode_image(image)
        text_features = model.encode_text(text)
        image_features /= image_features.norm(dim=-1, keepdim=True)
        text_features /= text_features.norm(dim=-1, keepdim=True)
        found["probabilities"] = (100.0 * image_features @ text_features.T).softmax(dim=-1)
        found["forward"] = model(image, text)
        found["image alone"] = model(image)
        found["logits"] = model.get_logits(image, text)
        found["by keyword"] = [model.encode_image(image=image, normalize=True), model.encode_text(text=text)]
        found["intermediates"] = model.forward_intermediates(image, text, image_indices=1, output_logits=True)
        # Texts embedded by hand, as prompt learning does.
        x = model.token_embedding(text) + model.positional_embedding
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
        found["by hand"] = x[torch.arange(3), text.argmax(dim=-1)] @ model.text_projection
        found["mask without a name"] = model.transformer(x, model.attn_mask)
    found["pixels"] = image
    found["tokens"] = [text, open_clip.tokenize(["a b", "c"]), open_clip.tokenize("x " * 99, context_length=8)]
    found["words"] = [open_clip.decode(text[1]), _tokenizer.encode("hello world"), _tokenizer.eot_token_id]
    found["vocabulary"] = [
        SimpleTokenizer().encoder["<end_of_text>"],
        _tokenizer.decoder[300],
        tokenizer.context_length,
    ]
    found["places"] = [model.context_length, model.vocab_size, model.visual.image_size, OPENAI_DATASET_MEAN]
    found["preprocess"] = sorted(model.visual.preprocess_cfg.items())
    found["kinds"] = [isinstance(model, CLIP), isinstance(model, open_clip.CLIP), isinstance(model, CustomTextCLIP)]
    found["keys"] = sorted(model.state_dict())
    with torch.no_grad():
        arguments = (["cat", "dog", "red fox"], OPENAI_IMAGENET_TEMPLATES[:9])
        found["classifier"] = open_clip.build_zero_shot_classifier(
            model, tokenizer, *arguments, num_classes_per_batch=2
        )
        strings = (["cat", "dog"], ["a {}.", "the {}."])
        found["legacy"] = open_clip.build_zero_shot_classifier_legacy(model, tokenizer, *strings)

    # Arguments.
    other, train, evaluate = open_clip.create_model_and_transforms(
        "small",
        str(folder / "small.pt"),
        precision="amp",
        device="cpu",
        force_quick_gelu=True,
        force_custom_text=True,
        force_patch_dropout=0.5,
        force_image_size=(48, 32),
        force_context_length=20,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.2, 0.3, 0.4),
        image_interpolation="bilinear",
        image_resize_mode="squash",
        aug_cfg={"scale": (0.4, 1.0), "color_jitter": (0.3, 0.3, 0.3, 0.1), "color_jitter_prob": 0.8},
        output_dict=True,
        init_logit_bias=-3.0,
    )
    found["squashed"] = [evaluate(picture), sorted(other.visual.preprocess_cfg.items())]
    torch.manual_seed(3)
    __import__("random").seed(3)
    found["augmented"] = train(picture)
    with torch.no_grad():
        found["dict"] = other.eval()(evaluate(picture)[None], tokenizer(["a dog"], context_length=20))
    found["nested"] = [sorted(other.state_dict()), isinstance(other, open_clip.CustomTextCLIP)]
    narrow = PreprocessCfg(size=(24, 40), resize_mode="longest", fill_color=7)
    found["longest"] = image_transform_v2(narrow, is_train=False)(picture)
    found["timm"] = []
    for interpolation in ("bicubic", "random"):
        torch.manual_seed(3)
        __import__("random").seed(3)
        timm = open_clip.image_transform(
            32, True, interpolation=interpolation, aug_cfg={"use_timm": True, "re_prob": 1.0, "color_jitter": 0.4}
        )
        found["timm"].append(timm(picture))

    # Training.
    torch.manual_seed(0)
    model.train()
    model.lock_image_tower(unlocked_groups=1)
    model.set_grad_checkpointing()
    images = torch.randn(6, 3, 32, 32)
    texts = tokenizer([f"picture {i}" for i in range(6)])
    a, b, scale = model(images, texts)
    total = open_clip.ClipLoss(cache_labels=True)(a, b, scale)
    total.backward()
    found["loss"] = total.detach()
    found["gradients"] = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    found["losses"] = [
        open_clip.ClipLoss()(a.detach(), b.detach(), 20.0, output_dict=True),
        SigLipLoss()(a.detach(), b.detach(), torch.tensor(10.0), torch.tensor(-10.0), output_dict=True),
        open_clip.DistillClipLoss()(a.detach(), b.detach(), 9.0, b.detach(), a.detach().flip(0), 4.0),
    ]
    loss = load_checkpoint(other, str(folder / "small.pt"), strict=False)
    found["loaded"] = [loss.missing_keys, loss.unexpected_keys, other.logit_bias.detach()]

    # CoCa, and an exported folder.
    coca = open_clip.create_model("coca_small", pretrained=str(folder / "coca_small.pt")).eval()
    captions = open_clip.get_tokenizer("coca_small")(["a dog that sleeps", "two cats"])
    with torch.no_grad():
        found["coca"] = coca(images[:2], captions)
        found["coca features"] = [coca.encode_image(images[:2]), coca.encode_text(captions, normalize=False)]
        held = coca(images[:2])
        found["coca later"] = coca(images[:2], captions[:, :5], **_latent(held), output_labels=False)
    outputs = {key: value.detach() for key, value in found["coca"].items()}  # type: ignore[attr-defined]
    outputs.pop("logit_bias", None)
    found["coca losses"] = open_clip.CoCaLoss(2.0, 1.0)(**outputs, output_dict=True)
    exported, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder / 'exported'}")
    with torch.no_grad():
        found["exported"] = exported.eval().encode_image(transform(picture)[None])
    found["exported tokens"] = open_clip.get_tokenizer(f"local-dir:{folder / 'exported'}")(["a cat"])
    return found


def _latent(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"image_latent": held["image_features"], "image_embs": held["image_embs"]}


if __name__ == "__main__":
    torch.save(main(Path(sys.argv[1])), sys.argv[2])
