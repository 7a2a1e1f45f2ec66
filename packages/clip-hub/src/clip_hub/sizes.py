"""How large the architectures with published weights are, and what they cost: counted, not measured.

Each number is of one image and one text of the model's own context length, and of the whole forward pass as it was
published: clip-core's towers compute less where only one token is read at the end. A multiplication with an addition
is two operations. Activations are the outputs of convolutions and matrix products, those of attention among them.
NaFlex models are counted for images of 384 by 384 pixels. CoCa's decoder counts in the parameters alone.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["SIZES", "Size"]


class Size(NamedTuple):
    """What one architecture has and costs."""

    parameters: float
    """Millions."""
    image_gflops: float
    """Operations of encoding an image, 10^9."""
    text_gflops: float
    image_activations: float
    """Numbers that encoding an image writes, millions."""
    text_activations: float

    @property
    def gflops(self) -> float:
        """Operations of encoding an image and a text, 10^9."""
        return self.image_gflops + self.text_gflops

    @property
    def activations(self) -> float:
        """Numbers that encoding an image and a text writes, millions."""
        return self.image_activations + self.text_activations


# name: parameters / 10^6, operations / 10^9 of an image and of a text, activations / 10^6 of an image and of a text
# fmt: off
_TABLE: dict[str, tuple[float, float, float, float, float]] = {
    "ViT-B-32":                       (151.28, 8.82, 5.96, 5.01, 5.30),
    "ViT-B-32-256":                   (151.29, 11.50, 5.96, 6.65, 5.30),
    "ViT-B-16":                       (149.62, 35.13, 5.96, 23.90, 5.30),
    "ViT-B-16-plus-240":              (208.38, 54.76, 9.27, 33.08, 6.63),
    "ViT-L-14":                       (427.62, 162.03, 13.30, 88.79, 7.95),
    "ViT-L-14-336":                   (427.94, 381.92, 13.30, 270.24, 7.95),
    "ViT-H-14":                       (986.11, 334.59, 47.09, 139.41, 21.20),
    "ViT-g-14":                       (1366.68, 534.06, 47.09, 192.64, 21.20),
    "ViT-bigG-14":                    (2539.57, 967.50, 97.86, 275.37, 35.34),
    "ViT-H-14-378":                   (986.71, 1006.96, 47.09, 572.79, 21.20),
    "ViT-H-14-worldwide":             (1858.78, 334.59, 47.09, 139.41, 21.20),
    "ViT-bigG-14-worldwide":          (3630.41, 967.50, 97.86, 275.37, 35.34),
    "ViT-H-14-worldwide-378":         (1859.39, 1006.96, 47.09, 572.79, 21.20),
    "ViT-bigG-14-worldwide-378":      (3631.20, 2858.45, 97.86, 1047.37, 35.34),
    "ViT-L-14-CLIPA":                 (414.21, 162.03, 5.47, 88.79, 3.10),
    "ViT-L-14-CLIPA-336":             (414.54, 381.92, 5.47, 270.24, 3.10),
    "ViT-H-14-CLIPA":                 (968.24, 334.59, 19.43, 139.41, 8.26),
    "ViT-H-14-CLIPA-336":             (968.64, 781.45, 19.43, 407.54, 8.26),
    "ViT-bigG-14-CLIPA":              (2517.22, 967.50, 40.44, 275.37, 13.76),
    "ViT-bigG-14-CLIPA-336":          (2517.76, 2231.15, 40.44, 760.05, 13.76),
    "ViT-B-16-SigLIP":                (203.16, 35.42, 11.02, 24.06, 6.49),
    "ViT-B-16-SigLIP-256":            (203.20, 46.82, 11.02, 33.63, 6.49),
    "ViT-B-16-SigLIP-384":            (203.45, 112.13, 11.02, 102.20, 6.49),
    "ViT-B-16-SigLIP-512":            (203.79, 216.24, 11.02, 247.74, 6.49),
    "ViT-B-16-SigLIP-i18n-256":       (370.63, 46.82, 11.02, 33.63, 6.49),
    "ViT-L-16-SigLIP-256":            (652.15, 162.56, 39.06, 88.88, 17.30),
    "ViT-L-16-SigLIP-384":            (652.48, 383.85, 39.06, 270.75, 17.30),
    "ViT-SO400M-14-SigLIP":           (877.36, 220.35, 13.19, 106.73, 4.96),
    "ViT-SO400M-14-SigLIP-378":       (877.96, 670.35, 53.13, 452.89, 21.15),
    "ViT-SO400M-14-SigLIP-384":       (877.96, 670.35, 53.13, 452.89, 21.15),
    "ViT-SO400M-16-SigLIP-i18n-256":  (1127.43, 220.46, 53.13, 106.73, 21.15),
    "ViT-B-32-SigLIP2-256":           (376.86, 11.49, 11.02, 6.64, 6.49),
    "ViT-B-16-SigLIP2":               (375.19, 35.42, 11.02, 24.06, 6.49),
    "ViT-B-16-SigLIP2-256":           (375.23, 46.82, 11.02, 33.63, 6.49),
    "ViT-B-16-SigLIP2-384":           (375.48, 112.13, 11.02, 102.20, 6.49),
    "ViT-B-16-SigLIP2-512":           (375.82, 216.24, 11.02, 247.74, 6.49),
    "ViT-B-16-SigLIP2-naflex":        (375.23, 112.13, 11.02, 102.20, 6.49),
    "ViT-L-16-SigLIP2-256":           (881.53, 162.56, 39.06, 88.88, 17.30),
    "ViT-L-16-SigLIP2-384":           (881.85, 383.85, 39.06, 270.75, 17.30),
    "ViT-L-16-SigLIP2-512":           (882.31, 727.49, 39.06, 657.48, 17.30),
    "ViT-SO400M-14-SigLIP2":          (1135.46, 220.35, 53.13, 106.73, 21.15),
    "ViT-SO400M-14-SigLIP2-378":      (1136.01, 670.35, 53.13, 452.89, 21.15),
    "ViT-SO400M-16-SigLIP2-256":      (1135.67, 220.46, 53.13, 106.73, 21.15),
    "ViT-SO400M-16-SigLIP2-384":      (1136.04, 518.94, 53.13, 319.77, 21.15),
    "ViT-SO400M-16-SigLIP2-512":      (1136.56, 979.61, 53.13, 766.65, 21.15),
    "ViT-SO400M-16-SigLIP2-naflex":   (1135.67, 518.94, 53.13, 319.77, 21.15),
    "ViT-gopt-16-SigLIP2-256":        (1871.39, 599.00, 53.13, 200.43, 21.15),
    "ViT-gopt-16-SigLIP2-384":        (1871.89, 1392.98, 53.13, 568.91, 21.15),
    "PE-Core-T-16-384":               (69.55, 9.45, 2.44, 25.62, 2.06),
    "PE-Core-S-16-384":               (87.19, 31.32, 2.44, 51.23, 2.06),
    "PE-Core-B-16":                   (447.66, 35.60, 19.43, 24.21, 8.26),
    "PE-Core-L-14-336":               (671.14, 384.36, 19.43, 271.43, 8.26),
    "PE-Core-bigG-14-448":            (2419.27, 4118.63, 68.59, 1774.21, 24.61),
    "EVA01-g-14":                     (1136.44, 534.06, 13.30, 192.64, 7.95),
    "EVA01-g-14-plus":                (1366.62, 534.06, 47.09, 192.64, 21.20),
    "EVA02-B-16":                     (149.69, 35.13, 5.96, 26.32, 5.30),
    "EVA02-L-14":                     (427.76, 162.00, 13.30, 97.20, 7.95),
    "EVA02-L-14-336":                 (428.08, 381.86, 13.30, 289.13, 7.95),
    "EVA02-E-14":                     (4704.59, 2264.33, 47.09, 497.58, 21.20),
    "EVA02-E-14-plus":                (5044.89, 2264.33, 97.86, 497.58, 35.33),
    "ViTamin-S":                      (62.47, 11.78, 3.38, 26.38, 3.98),
    "ViTamin-S-LTT":                  (145.82, 11.78, 13.30, 26.38, 7.95),
    "ViTamin-B":                      (150.95, 45.25, 5.96, 52.77, 5.30),
    "ViTamin-B-LTT":                  (211.37, 45.25, 13.30, 52.77, 7.95),
    "ViTamin-L":                      (456.97, 149.85, 13.30, 112.83, 7.95),
    "ViTamin-L-256":                  (457.03, 197.67, 13.30, 154.99, 7.95),
    "ViTamin-L-336":                  (457.22, 350.88, 13.30, 307.47, 7.95),
    "ViTamin-L-384":                  (457.36, 468.16, 13.30, 440.16, 7.95),
    "ViTamin-L2":                     (687.61, 149.85, 47.09, 112.83, 21.20),
    "ViTamin-L2-256":                 (687.67, 197.67, 47.09, 154.99, 21.20),
    "ViTamin-L2-336":                 (687.86, 350.88, 47.09, 307.47, 21.20),
    "ViTamin-L2-384":                 (688.00, 468.16, 47.09, 440.16, 21.20),
    "ViTamin-XL-256":                 (924.78, 259.88, 66.96, 177.37, 26.51),
    "ViTamin-XL-336":                 (924.78, 459.72, 66.96, 347.33, 26.51),
    "ViTamin-XL-384":                 (924.78, 259.88, 66.96, 177.37, 26.51),
    "MobileCLIP-S1":                  (84.97, 9.34, 5.96, 32.84, 5.30),
    "MobileCLIP-S2":                  (99.24, 15.69, 5.96, 43.34, 5.30),
    "MobileCLIP-B":                   (149.78, 35.42, 5.96, 24.65, 5.30),
    "MobileCLIP2-S0":                 (74.84, 4.79, 5.96, 18.29, 5.30),
    "MobileCLIP2-S2":                 (99.24, 15.69, 5.96, 43.34, 5.30),
    "MobileCLIP2-B":                  (149.78, 35.42, 5.96, 24.65, 5.30),
    "MobileCLIP2-S3":                 (248.89, 29.64, 13.30, 50.80, 7.95),
    "MobileCLIP2-S4":                 (445.44, 55.54, 13.30, 68.49, 7.95),
    "MobileCLIP2-L-14":               (427.62, 162.03, 13.30, 88.79, 7.95),
    "convnext_base":                  (151.52, 30.71, 5.96, 28.75, 5.30),
    "convnext_base_w":                (179.39, 40.11, 9.27, 37.55, 6.63),
    "convnext_base_w_320":            (179.39, 62.67, 9.27, 58.68, 6.63),
    "convnext_large_d":               (351.77, 89.76, 17.73, 56.33, 10.60),
    "convnext_large_d_320":           (351.77, 140.25, 17.73, 88.02, 10.60),
    "convnext_xxlarge":               (1200.58, 395.94, 47.09, 124.45, 21.20),
    "RN50":                           (102.01, 12.22, 5.96, 12.98, 5.30),
    "RN101":                          (119.69, 19.54, 5.96, 18.08, 5.30),
    "RN50x4":                         (178.30, 42.56, 9.27, 35.27, 6.63),
    "RN50x16":                        (290.98, 149.39, 13.30, 103.54, 7.95),
    "RN50x64":                        (623.26, 529.11, 23.55, 239.13, 10.60),
    "roberta-ViT-B-32":               (212.72, 8.82, 13.30, 5.01, 7.95),
    "xlm-roberta-base-ViT-B-32":      (366.12, 8.82, 13.30, 5.01, 7.95),
    "xlm-roberta-large-ViT-H-14":     (1193.01, 334.59, 47.09, 139.41, 21.20),
    "nllb-clip-base":                 (501.89, 8.82, 23.55, 5.01, 10.60),
    "nllb-clip-large":                (1399.22, 334.59, 78.10, 139.41, 28.77),
    "nllb-clip-base-siglip":          (507.47, 112.13, 23.55, 102.20, 10.60),
    "nllb-clip-large-siglip":         (1195.50, 670.35, 78.10, 452.89, 28.77),
    "coca_ViT-B-32":                  (253.56, 9.19, 5.96, 5.55, 5.30),
    "coca_ViT-L-14":                  (638.45, 163.64, 13.30, 90.30, 7.95),
}
# fmt: on

SIZES: dict[str, Size] = {name: Size(*row) for name, row in _TABLE.items()}
"""By architecture name without "-quickgelu"."""
