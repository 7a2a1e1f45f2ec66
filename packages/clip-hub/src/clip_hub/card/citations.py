"""BibTeX of what a model of this family stands on."""

from __future__ import annotations

from clip_core.config import TimmConfig
from clip_hub.card.facts import CardFacts

__all__ = ["citations"]

_CLIP = """\
@inproceedings{radford2021clip,
  title     = {Learning Transferable Visual Models From Natural Language Supervision},
  author    = {Radford, Alec and Kim, Jong Wook and Hallacy, Chris and Ramesh, Aditya and Goh,
               Gabriel and Agarwal, Sandhini and Sastry, Girish and Askell, Amanda and Mishkin,
               Pamela and Clark, Jack and Krueger, Gretchen and Sutskever, Ilya},
  booktitle = {International Conference on Machine Learning},
  year      = {2021},
  url       = {https://arxiv.org/abs/2103.00020}
}"""
_OPENCLIP = """\
@software{ilharco2021openclip,
  title     = {OpenCLIP},
  author    = {Ilharco, Gabriel and Wortsman, Mitchell and Wightman, Ross and Gordon, Cade and
               Carlini, Nicholas and Taori, Rohan and Dave, Achal and Shankar, Vaishaal and
               Namkoong, Hongseok and Miller, John and Hajishirzi, Hannaneh and Farhadi, Ali and
               Schmidt, Ludwig},
  publisher = {Zenodo},
  year      = {2021},
  doi       = {10.5281/zenodo.5143773}
}"""
_SIGLIP = """\
@inproceedings{zhai2023siglip,
  title     = {Sigmoid Loss for Language Image Pre-Training},
  author    = {Zhai, Xiaohua and Mustafa, Basil and Kolesnikov, Alexander and Beyer, Lucas},
  booktitle = {International Conference on Computer Vision},
  year      = {2023},
  url       = {https://arxiv.org/abs/2303.15343}
}"""
_COCA = """\
@article{yu2022coca,
  title   = {{CoCa}: Contrastive Captioners are Image-Text Foundation Models},
  author  = {Yu, Jiahui and Wang, Zirui and Vasudevan, Vijay and Yeung, Legg and Seyedhosseini,
             Mojtaba and Wu, Yonghui},
  journal = {Transactions on Machine Learning Research},
  year    = {2022},
  url     = {https://arxiv.org/abs/2205.01917}
}"""
_TIMM = """\
@misc{wightman2019timm,
  title  = {PyTorch Image Models},
  author = {Wightman, Ross},
  year   = {2019},
  doi    = {10.5281/zenodo.4414861}
}"""


def citations(facts: CardFacts) -> dict[str, str]:
    """What it is -> BibTeX: CLIP, and what else this model has of others."""
    found = {"CLIP": _CLIP}
    if facts.config.logit_bias is not None:
        found["The sigmoid loss"] = _SIGLIP
    if facts.config.decoder is not None:
        found["CoCa"] = _COCA
    if isinstance(facts.config.image, TimmConfig):
        found["timm, whose image tower this model has"] = _TIMM
    return {**found, "OpenCLIP": _OPENCLIP}
