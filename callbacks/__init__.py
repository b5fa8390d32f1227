"""Entropy-control strategies, one a file: Lightning callbacks that also touch the loss.

Each is a ``Strategy`` plus the loss mixins it needs (``ecrl.algorithm.strategy``). A file's docstring
gives the formula and the paper; its constructor holds every setting and default.
"""

from ecrl.callbacks.adapo import ADAPO
from ecrl.callbacks.adaptive_entropy import AdaptiveEntropy
from ecrl.callbacks.archer import Archer
from ecrl.callbacks.balanced_clip import BalancedClip
from ecrl.callbacks.clip_b import ClipB
from ecrl.callbacks.clip_cov import ClipCov
from ecrl.callbacks.clip_higher import ClipHigher
from ecrl.callbacks.cw_grpo import CWGRPO
from ecrl.callbacks.dynamic_clip import DynamicClip
from ecrl.callbacks.entrocraft import Entrocraft
from ecrl.callbacks.entropic import EntroPIC
from ecrl.callbacks.entropy_advantage import EntropyAdvantage
from ecrl.callbacks.entropy_bonus import EntropyBonus
from ecrl.callbacks.entropy_budget import EntropyBudget
from ecrl.callbacks.entropy_ratio_clip import EntropyRatioClip
from ecrl.callbacks.epo import EPO
from ecrl.callbacks.flexible_clip import FlexibleClip
from ecrl.callbacks.high_entropy_tokens import HighEntropyTokens
from ecrl.callbacks.importance_correction import ImportanceCorrection
from ecrl.callbacks.kl_cov import KLCov
from ecrl.callbacks.lp_reg import LpReg
from ecrl.callbacks.opefo import OPEFO
from ecrl.callbacks.positive_reweighting import PositiveReweighting
from ecrl.callbacks.reference_kl import ReferenceKL
from ecrl.callbacks.repo_r import RepoR
from ecrl.callbacks.rl_zvp import RLZVP
from ecrl.callbacks.sequence_mask import SequenceMask
from ecrl.callbacks.steer import STEER
from ecrl.callbacks.temperature_controller import TemperatureController
from ecrl.callbacks.ucas import UCAS

__all__ = [
    "ADAPO",
    "CWGRPO",
    "EPO",
    "OPEFO",
    "RLZVP",
    "STEER",
    "UCAS",
    "AdaptiveEntropy",
    "Archer",
    "BalancedClip",
    "ClipB",
    "ClipCov",
    "ClipHigher",
    "DynamicClip",
    "EntroPIC",
    "Entrocraft",
    "EntropyAdvantage",
    "EntropyBonus",
    "EntropyBudget",
    "EntropyRatioClip",
    "FlexibleClip",
    "HighEntropyTokens",
    "ImportanceCorrection",
    "KLCov",
    "LpReg",
    "PositiveReweighting",
    "ReferenceKL",
    "RepoR",
    "SequenceMask",
    "TemperatureController",
]
