"""A probe: a fixed prompt for which an engine and the trainer must compute the same log-probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from ecrl.algorithm.rollout_batch import SequenceTokens
from ecrl.errors import EcrlError
from ecrl.hashing import hash_u64
from ecrl.policy.model import PolicyModel
from ecrl.policy.packing import pack_micro_batches

_LENGTH = 32
#: Nats by which two passes in float32 may differ.
_EXACT = 1e-3
#: Share of the log-probs' own spread by which the first load may differ, where one side rounds to 16 bits.
_FIRST = 0.25
#: How many times the share of the first load any later one may differ.
_LATER = 4.0
#: Weights are stale if the trainer's log-probs under them are this many times closer to the engine's.
_CLOSER = 3.0
_HALF = (torch.bfloat16, torch.float16)


class Probe:
    """Checks that an engine's forward pass uses the trainer's weights.

    Checksums show that the engine's parameters are right; the probe shows that the engine computes with them.

    Rounding must pass and wrong weights must not, and in bfloat16 no number of nats tells them apart for
    every model: rounding grows with depth and with the size of the logits, and one small update moves the
    log-probs by less. So both are measured:

    - The unit is the *spread* of the trainer's log-probs of the probe, their mean absolute deviation.
      Unrelated weights are about one spread away or more, rounding a few hundredths of it at any depth.
    - The checksums hold at the first load, so what is left of the difference is rounding, unless the pass
      does not use what was loaded; so it must be below a quarter of the spread. Any later load may be off
      by four times the first one's share of the spread.
    - Stale weights may differ by less than that. But then the trainer's log-probs under those weights,
      which are kept for every version, are much closer to the engine's than its present ones; with rounding
      alone all versions that the tolerance takes in are about equally far.

    Where both sides compute in float32, the difference must be below 1e-3 nats, and stale weights are found
    in the same way.

    Args:
        model: the policy.
        dtype: type of the engine's weights.
        tolerance: the largest mean absolute difference of the log-probabilities, in nats; None measures it.

    Attributes:
        token_ids: the prompt: tokens from the whole range of the vocabulary.
    """

    def __init__(self, model: PolicyModel, dtype: torch.dtype, tolerance: float | None = None) -> None:
        self.model = model
        self.dtype = dtype
        self.tolerance = tolerance
        vocabulary = model.lm.config.get_text_config().vocab_size
        self.token_ids: list[int] = (hash_u64(range(_LENGTH)) % vocabulary).tolist()
        self._share: float | None = None
        self._past: dict[int, Tensor] = {}

    def check(self, logprobs: Tensor, version: int) -> None:
        """Compare the engine's log-probabilities with the trainer's.

        Every process must call it, because a sharded forward pass is a collective.

        Args:
            logprobs: the engine's, ``[L − 1]``, nats, for every token after the first.
            version: version of the weights.

        Raises:
            EcrlError: the mean absolute difference exceeds the tolerance, or the log-probs are those of an
                earlier version.
        """
        trainer = self._trainer_logprobs()
        difference = float((logprobs - trainer).abs().mean())
        spread = float((trainer - trainer.mean()).abs().mean())
        tolerance = self.tolerance or self._measured(spread)
        if not difference <= tolerance:
            raise EcrlError(
                f"The engine uses other weights than version {version}: its log-probabilities of a probe "
                f"prompt are {difference:.2g} nats from the trainer's (tolerance {tolerance:.2g})."
            )
        for old, past in self._past.items():
            distance = float((logprobs - past).abs().mean())
            if old != version and _CLOSER * distance < difference:
                raise EcrlError(
                    f"The engine uses the weights of version {old} instead of {version}: on a probe prompt "
                    f"its log-probabilities are {distance:.2g} nats from the trainer's of version {old}, and "
                    f"{difference:.2g} from those of version {version}."
                )
        if self._share is None:
            self._share = difference / max(spread, _EXACT)
        self._past[version] = trainer

    def _measured(self, spread: float) -> float:
        """Return the tolerance in nats for log-probs of a spread."""
        if self.dtype not in _HALF and self.model.compute_dtype not in _HALF:
            return _EXACT
        share = _FIRST if self._share is None else min(_LATER * self._share, _FIRST)
        return max(share * spread, _EXACT)

    @torch.no_grad()
    def _trainer_logprobs(self) -> Tensor:
        """The trainer's, in a pass that rounds weights to the engine's type, as the engine does."""
        # The first token is the prompt; the others are scored.
        sequence = SequenceTokens(self.token_ids[:1], self.token_ids[1:], [True] * (_LENGTH - 1))
        (micro_batch,) = pack_micro_batches([sequence], max_tokens=_LENGTH, row_tokens=_LENGTH)
        was_training = self.model.training
        self.model.eval()
        half = self.dtype in _HALF
        with torch.autocast(self.model.device.type, self.dtype if half else None, enabled=half):
            logprobs, _ = self.model(micro_batch, 1.0)
        self.model.train(was_training)
        result: Tensor = logprobs.float().cpu()
        return result
