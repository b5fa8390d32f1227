"""A probe: a fixed prompt for which an engine and the trainer must compute the same log-probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from ecrl.algorithm.rollout_batch import SequenceTokens
from ecrl.errors import EcrlError
from ecrl.hashing import hash_u64
from ecrl.policy.model import PolicyModel
from ecrl.policy.packing import pack_micro_batches

_LENGTH = 16


class Probe:
    """Checks that an engine's forward pass uses the trainer's weights.

    Checksums show that the engine's parameters are right; the probe shows that the engine computes with them.

    Args:
        model: the policy.
        dtype: type of the engine's weights.
        tolerance: the largest mean absolute difference of the log-probabilities, in nats; None takes 1e-3
            if both sides compute in float32, else 0.2.

    Attributes:
        token_ids: the prompt: tokens from the whole range of the vocabulary.
    """

    def __init__(self, model: PolicyModel, dtype: torch.dtype, tolerance: float | None = None) -> None:
        self.model = model
        rounded = dtype != torch.float32 or model.computes_in_bf16
        self.tolerance = tolerance or (0.2 if rounded else 1e-3)
        vocabulary = model.lm.config.get_text_config().vocab_size
        self.token_ids: list[int] = (hash_u64(range(_LENGTH)) % vocabulary).tolist()

    def check(self, logprobs: Tensor, version: int) -> None:
        """Compare the engine's log-probabilities with the trainer's.

        Every process must call it, because a sharded forward pass is a collective.

        Args:
            logprobs: the engine's, ``[L − 1]``, nats, for every token after the first.
            version: version of the weights, for the message.

        Raises:
            EcrlError: the mean absolute difference exceeds the tolerance.
        """
        difference = float((logprobs - self._trainer_logprobs()).abs().mean())
        if not difference <= self.tolerance:
            raise EcrlError(
                f"The engine uses other weights than version {version}: its log-probabilities of a probe "
                f"prompt are {difference:.2g} nats from the trainer's (tolerance {self.tolerance:g})."
            )

    @torch.no_grad()
    def _trainer_logprobs(self) -> Tensor:
        # The first token is the prompt; the others are scored.
        sequence = SequenceTokens(self.token_ids[:1], self.token_ids[1:], [True] * (_LENGTH - 1))
        (micro_batch,) = pack_micro_batches([sequence], max_tokens=_LENGTH, row_tokens=_LENGTH)
        was_training = self.model.training
        self.model.eval()
        # A rollout may run under autocast, which vLLM does not use.
        with torch.autocast(self.model.lm.device.type, enabled=False):
            logprobs, _ = self.model(micro_batch, 1.0)
        self.model.train(was_training)
        result: Tensor = logprobs.cpu()
        return result
