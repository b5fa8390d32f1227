"""Entropy budget: hold a target trajectory of entropy by PI control of another strategy's knob.

    e_t = 1 − H_t / H*(t)                        relative error, positive where entropy is short; 0 if H* = 0
    k_t = clamp(k_0 + (k_max − k_min)·(K_p·e_t + K_i·Σ_{s≤t} e_s), k_min, k_max)

``H_t`` is the entropy of the rollout of iteration t. ``H*`` goes from that of the first, ``H_0``, to
``H_end`` (`ecrl.algorithm.pi_controller`: trajectories, anti-windup). A strategy applies ``k_t`` in the
iteration that measured ``H_t``; a sampling temperature is that of the next rollout. Source: ours;
https://arxiv.org/abs/2511.15248 holds a constant entropy by PI control of a coefficient of its own.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import lightning as L

from ecrl.algorithm.pi_controller import SHAPES, PIController, trajectory
from ecrl.algorithm.strategy import Strategy
from ecrl.config.targets import build
from ecrl.errors import UsageError, name_message, unknown_name
from ecrl.training.observer import EntropyObserver

if TYPE_CHECKING:
    from ecrl.config.schema import Config
    from ecrl.training.module import PolicyModule

TEMPERATURE = "rollout.temperature"


class EntropyBudget(Strategy, EntropyObserver):
    """Moves another strategy's knob so that entropy follows a target. Neutral: both gains 0.

    Args:
        knob: ``<strategy>.<argument>`` of a strategy beside it, or ``rollout.temperature``. It starts at its
            configured value, k_0.
        minimum: k_min, in the knob's unit.
        maximum: k_max.
        target: H_end, nats.
        spend: share of H_0 to spend, in (0, 1); if given, ``H_end = (1 − spend)·H_0`` in place of ``target``.
        shape: of the way from H_0 to H_end: ``constant`` (at H_end at once), ``linear`` or ``cosine``.
        by: the iteration that reaches H_end; None where the shape is constant.
        proportional: K_p; negative, like K_i, for a knob that lowers entropy.
        integral: K_i, per iteration.
    """

    needs_entropy = True

    def __init__(
        self,
        *,
        knob: str = "entropy_bonus.coefficient",
        minimum: float = 0.0,
        maximum: float = 0.05,
        target: float = 0.2,
        spend: float | None = None,
        shape: str = "constant",
        by: int | None = None,
        proportional: float = 2.0,
        integral: float = 0.1,
    ) -> None:
        super().__init__()
        if not -math.inf < minimum < maximum < math.inf:
            raise ValueError(f"EntropyBudget: minimum must be below maximum; got {minimum}, {maximum}.")
        if not 0 < target < math.inf:
            raise ValueError(f"EntropyBudget: target must be a positive entropy in nats; got {target}.")
        if spend is not None and not 0 < spend < 1:
            raise ValueError(f"EntropyBudget: spend is a share of the first entropy, in (0, 1); got {spend}.")
        if shape not in SHAPES:
            raise ValueError(name_message("EntropyBudget shape", shape, SHAPES))
        if (by is None) != (shape == "constant") or (by is not None and by < 1):
            raise ValueError(
                f"EntropyBudget: by is the iteration, from 1, in which shape={shape!r} ends; null, and only "
                f"then, for a constant; got {by}."
            )
        if not (math.isfinite(proportional) and math.isfinite(integral) and proportional * integral >= 0):
            raise ValueError(
                f"EntropyBudget: the gains must be finite and of one sign; got {proportional}, {integral}."
            )
        self.knob, self.target, self.spend, self.shape, self.by = knob, target, spend, shape, by
        self._control = PIController(minimum, maximum, proportional, integral)
        self._state: dict[str, float] = {}

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Refuse a knob that is not there, that another budget moves, or that does not take its limits."""
        if any(isinstance(other, EntropyBudget) and other.knob == self.knob for other in others):
            raise UsageError(f"strategy.{self.name}: another budget moves {self.knob} already; drop one.")
        known = [TEMPERATURE, *(f"{s.name}.{argument}" for s in others for argument in _numbers(s))]
        if self.knob not in known:
            raise unknown_name(f"strategy.{self.name}.knob in this stack", self.knob, known)
        control, (name, _, argument) = self._control, self.knob.partition(".")
        if self.knob == TEMPERATURE:
            start = config.rollout.temperature
            if control.low <= 0:
                raise UsageError(f"strategy.{self.name}: a temperature's minimum must be above 0.")
        else:
            node = config.strategy[name]
            start = node[argument]
            for limit in (control.low, control.high):
                build(node | {argument: limit})  # refuses what its constructor does not take
        if not control.low <= start <= control.high:
            raise UsageError(
                f"strategy.{self.name}: {self.knob} starts at {start}, outside [minimum, maximum] = "
                f"[{control.low}, {control.high}]; change one of them."
            )
        inert = control.proportional == control.integral == 0
        return ["both gains are 0, so it does nothing."] if inert else []

    def on_entropy(self, module: PolicyModule, entropy: float) -> None:
        """Move the knob by the entropy of the fresh rollout; where there is none, it stays."""
        state = self._state
        state.setdefault("first", entropy)
        state.setdefault("start", getattr(*self._place(module)))
        end = self.target if self.spend is None else (1 - self.spend) * state["first"]
        part = min(module.iteration / (self.by or 1), 1.0)
        wanted = trajectory(self.shape, state["first"], end, part)
        # A target of 0, of a policy that began without entropy, leaves nothing to be short of.
        error = 1 - entropy / wanted if wanted > 0 else 0.0
        state["knob"] = self._control.step(state["start"], error)
        setattr(*self._place(module), state["knob"])
        for what, value in (("target", wanted), ("error", error), ("knob", state["knob"])):
            module.recorder.record(f"strategy/{self.name}/{what}", value)

    def _place(self, module: PolicyModule) -> tuple[Any, str]:
        """The object that keeps the knob, and the name of its attribute."""
        name, _, argument = self.knob.partition(".")
        owners = {strategy.name: strategy for strategy in module.strategies}
        return (module if self.knob == TEMPERATURE else owners[name]), argument

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the knob where a checkpoint left it."""
        if self._state:
            setattr(*self._place(cast("PolicyModule", pl_module)), self._state["knob"])

    def state_dict(self) -> dict[str, Any]:
        """Return H_0, k_0, k_t and Σe."""
        return {**self._state, "total": self._control.total}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._state = dict(state_dict)
        self._control.total = self._state.pop("total")


def _numbers(strategy: Strategy) -> list[str]:
    """Constructor arguments that the strategy keeps as real numbers."""
    parameters = inspect.signature(type(strategy)).parameters.values()
    real = [p.name for p in parameters if "float" in str(p.annotation)]
    return [name for name in real if isinstance(getattr(strategy, name, None), (int, float))]
