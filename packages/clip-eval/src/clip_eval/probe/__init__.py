"""Linear probes: what a linear classifier learns from frozen features.

Why the numbers differ from CLIP_benchmark's: its probe is trained by AdamW for ten epochs at a learning rate of 0.1, so
its result depends on the batch size, the seed and the schedule, and stops before the optimum; its "weight decay" acts
per step of that schedule and is another scale. Without a validation split it uses none at all. Here the optimum of a
convex problem is found, as in Radford et al. 2021 (appendix A.3, scikit-learn's L-BFGS), and the decay is always chosen
on images that are neither tested on nor, while choosing, learnt from.
"""

from __future__ import annotations

from clip_eval.probe.draws import draw_shots, hold_out, shuffled
from clip_eval.probe.solver import Probe, ProbeProblem
from clip_eval.probe.sweep import DECAYS, Sweep, choose_decay

__all__ = ["DECAYS", "Probe", "ProbeProblem", "Sweep", "choose_decay", "draw_shots", "hold_out", "shuffled"]
