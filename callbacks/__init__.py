"""Entropy-control strategies, one a file: Lightning callbacks that also touch the loss.

Each is a ``Strategy`` plus the loss mixins it needs (``ecrl.algorithm.strategy``). A file's docstring
gives the formula and the paper; its constructor holds every setting and default.
"""

from ecrl.callbacks.adaptive_entropy import AdaptiveEntropy
from ecrl.callbacks.clip_cov import ClipCov
from ecrl.callbacks.clip_higher import ClipHigher
from ecrl.callbacks.entropy_advantage import EntropyAdvantage
from ecrl.callbacks.entropy_bonus import EntropyBonus
from ecrl.callbacks.entropy_budget import EntropyBudget
from ecrl.callbacks.high_entropy_tokens import HighEntropyTokens
from ecrl.callbacks.importance_correction import ImportanceCorrection
from ecrl.callbacks.kl_cov import KLCov
from ecrl.callbacks.reference_kl import ReferenceKL

__all__ = [
    "AdaptiveEntropy",
    "ClipCov",
    "ClipHigher",
    "EntropyAdvantage",
    "EntropyBonus",
    "EntropyBudget",
    "HighEntropyTokens",
    "ImportanceCorrection",
    "KLCov",
    "ReferenceKL",
]
