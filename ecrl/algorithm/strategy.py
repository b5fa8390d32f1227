"""Where a strategy may touch the loss.

    L = Σ_i u_i·w_i·S(r_i, A_i; lo_i, hi_i) + Σ_i u_i·c_i·p_i        r_i = exp(logπ_i − logπ_old,i)

``u`` is the aggregation (1/N for the token mean), ``S`` the surrogate. A strategy inherits from
``Strategy`` and from a mixin for each of ``A``, ``lo/hi``, ``w`` and ``c·p`` that it changes. All
hooks but ``penalty`` run in *planning*: once an optimizer step, without gradient, over all tokens of
the optimizer minibatch, so what they compute is global by construction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import lightning as L
from torch import Tensor

from ecrl.algorithm.objective import has_bounds, surrogate_name
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range

if TYPE_CHECKING:
    from ecrl.config.schema import Config


def within(strategy: Strategy, limit: Range, /, **knobs: float) -> None:
    """Refuse knobs outside a limit.

    Raises:
        ValueError: a knob breaks the limit; says which and how.
    """
    for name, value in knobs.items():
        if broken := limit.broken_by(value):
            raise ValueError(f"{type(strategy).__name__}: {name} {broken}")


def share_warnings(config: Config, fraction: float) -> list[str]:
    """Warn of a share of the tokens that is less than one token even in the fullest optimizer minibatch."""
    rollout = config.rollout
    completions = rollout.prompts * rollout.group_size // config.update.minibatches
    most = completions * rollout.max_new_tokens
    if not 0 < fraction * most < 1:
        return []
    return [
        f"fraction={fraction:g} of at most {most} tokens in a minibatch is less than one token. Raise it, or "
        "the minibatch (rollout.prompts, update.minibatches)."
    ]


def bound_warnings(config: Config) -> list[str]:
    """Warn where bounds of the importance ratio cannot bind."""
    if not has_bounds(config.objective):
        name = surrogate_name(config.objective).rpartition(".")[2]
        return [f"the surrogate `{name}` has no importance ratio to bound, so it does nothing."]
    return []


class Strategy(L.Callback):
    """An entropy-control strategy: a Lightning callback that may also inherit from loss mixins.

    It keeps each knob as an attribute of its constructor's name and reads it where it acts, so that a
    controller (``EntropyBudget``) can move it.

    Examples:
        >>> import torch
        >>> from ecrl import Strategy, WeightMixin
        >>> class HalfWeights(Strategy, WeightMixin):
        ...     def weights(self, tokens, weights):
        ...         return weights / 2
        >>> HalfWeights().weights(None, torch.ones(3))
        tensor([0.5000, 0.5000, 0.5000])

    Attributes:
        name: its key in the ``strategy`` config; set when the stack is built, names its metrics.
        needs_current: planning must see log-probs and entropies of the current weights, not of the
            rollout's. Costs a pass without gradient for each micro-batch of a minibatch but the first.
        needs_entropy: it reads the rollout's entropies when it arrives, before any pass.
        needs_reference: it reads log-probs of the initial policy, so that a run keeps a frozen copy of it.
        needs_facts: it measures the whole distribution at each token of a rollout, by a pass over it.
        needs_updates: it acts on how far the policy moved since the rollout, so that the first update of a
            rollout does not feel it.
        corrects_staleness: it corrects for tokens that older weights drew.
        resumable: knobs of the constructor that may change when a run resumes.
    """

    name: str = ""
    needs_current: bool = False
    needs_entropy: bool = False
    needs_reference: bool = False
    needs_facts: bool = False
    needs_updates: bool = False
    corrects_staleness: bool = False
    resumable: frozenset[str] = frozenset()

    @property
    def state_key(self) -> str:
        """Key of its state in a checkpoint, its own even where a stack holds two of one class."""
        return self._generate_state_key(name=self.name)

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Check the whole configuration before the run.

        Args:
            config: the resolved configuration.
            others: the other strategies of the stack, in config order.

        Returns:
            Warnings, one line each (e.g. a setting that makes this strategy inert).

        Raises:
            UsageError: the combination is impossible.
        """
        return []

    def extra_columns(self, batch: RolloutBatch) -> Mapping[str, Tensor]:
        """Add named per-token tensors ``[N]`` to a fresh rollout batch (e.g. reference log-probs)."""
        return {}

    def logged_coefficient(self) -> float | None:
        """The number that this strategy adapts or applies, logged as ``strategy/<name>/coefficient``."""
        return None


class AdvantageMixin(ABC):
    """Changes the advantages, e.g. the entropy-shaped advantage.

    Examples:
        >>> import torch
        >>> from ecrl import AdvantageMixin, Strategy
        >>> class OnlySuccess(Strategy, AdvantageMixin):
        ...     def advantages(self, tokens, advantages):
        ...         return advantages.clamp(min=0)
        >>> OnlySuccess().advantages(None, torch.tensor([1.0, -1.0]))
        tensor([1., 0.])
    """

    @abstractmethod
    def advantages(self, tokens: TokenBatch, advantages: Tensor) -> Tensor:
        """Map advantages ``[N]`` to advantages ``[N]``."""


class RatioMixin(ABC):
    """Changes the bounds of the importance ratio, e.g. clip-higher.

    Examples:
        >>> import torch
        >>> from ecrl import RatioMixin, Strategy
        >>> class Wider(Strategy, RatioMixin):
        ...     def ratio_bounds(self, tokens, low, high):
        ...         return low / 2, high * 2
        >>> Wider().ratio_bounds(None, torch.tensor([0.5]), torch.tensor([1.5]))
        (tensor([0.2500]), tensor([3.]))
    """

    #: It sets bounds without regard to those that are there, so that a strategy before it would do nothing.
    replaces_bounds: bool = False

    @property
    def sets_bounds(self) -> bool:
        """Whether it changes the bounds, at its present settings."""
        return True

    @abstractmethod
    def ratio_bounds(self, tokens: TokenBatch, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Map lower and upper bounds ``[N]``, ``[N]`` to new ones."""


class ReplacedBounds(Strategy, RatioMixin):
    """Sets the bounds of the ratio anew; its knobs ``low`` and ``high`` are None where it keeps one.

    Attributes:
        low: says where the lower bound is.
        high: says where the upper bound is.
    """

    low: float | None
    high: float | None
    needs_updates = True
    replaces_bounds = True

    @property
    def sets_bounds(self) -> bool:
        """Whether either bound is set."""
        return self.low is not None or self.high is not None

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where no bound is set or can bind."""
        if not self.sets_bounds:
            return ["low and high are null, so it does nothing."]
        return bound_warnings(config)


class WeightMixin(ABC):
    """Weighs the tokens' surrogate terms; 0 means no gradient. E.g. Clip-Cov, 80/20.

    Examples:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> from ecrl import Strategy, WeightMixin
        >>> class FirstToken(Strategy, WeightMixin):
        ...     def weights(self, tokens, weights):
        ...         return weights * (tokens.positions == 0)
        >>> FirstToken().weights(SimpleNamespace(positions=torch.tensor([0, 1, 0])), torch.ones(3))
        tensor([1., 0., 1.])
    """

    @abstractmethod
    def weights(self, tokens: TokenBatch, weights: Tensor) -> Tensor:
        """Map weights ``[N]`` to weights ``[N]``. ``tokens`` carries final advantages and bounds."""


class PenaltyMixin(ABC):
    """Adds a differentiable term to some tokens, e.g. KL-Cov, an entropy bonus, a reference KL.

    Examples:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> from ecrl import PenaltyMixin, Strategy
        >>> class Bonus(Strategy, PenaltyMixin):
        ...     def penalty_coefficients(self, tokens):
        ...         return torch.full_like(tokens.old_logprobs, 0.01)
        ...     def penalty(self, tokens):
        ...         return -tokens.entropy
        >>> Bonus().penalty(SimpleNamespace(entropy=torch.tensor([0.5, 2.0])))
        tensor([-0.5000, -2.0000])
    """

    @abstractmethod
    def penalty_coefficients(self, tokens: TokenBatch) -> Tensor:
        """LossPlan the coefficient ``[N]`` of each token's penalty; 0 leaves the token out."""

    @abstractmethod
    def penalty(self, tokens: TokenBatch) -> Tensor:
        """Compute the penalty ``[N]`` in a micro-batch, with gradient."""
