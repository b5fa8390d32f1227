"""A probe: a fixed prompt whose log-probabilities an engine and the trainer must agree on."""

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
    """Shows that an engine's forward pass uses the trainer's weights, wherever it keeps them.

    Args:
        model: the policy.
        tolerance: the largest mean absolute difference of the log-probabilities, in nats.

    Attributes:
        token_ids: the prompt, spread over the vocabulary.
    """

    def __init__(self, model: PolicyModel, tolerance: float) -> None:
        self.model = model
        self.tolerance = tolerance
        vocabulary = model.lm.config.get_text_config().vocab_size
        self.token_ids: list[int] = (hash_u64(range(_LENGTH)) % vocabulary).tolist()

    def check(self, logprobs: Tensor, version: int) -> None:
        """Compare with the trainer's. Every process must call it: a sharded forward pass is a collective.

        Args:
            logprobs: ``[L − 1]``, nats, the engine's for every token after the first.
            version: of the weights, for the message.

        Raises:
            EcrlError: they are further apart than the tolerance.
        """
        distance = float((logprobs - self._trainer_logprobs()).abs().mean())
        if not distance <= self.tolerance:
            raise EcrlError(
                f"The engine uses other weights than version {version}: its log-probabilities of a probe "
                f"prompt are {distance:.2g} nats from the trainer's (tolerance {self.tolerance:g})."
            )

    @torch.no_grad()
    def _trainer_logprobs(self) -> Tensor:
        # All but the first token are scored.
        sequence = SequenceTokens(self.token_ids[:1], self.token_ids[1:], [True] * (_LENGTH - 1))
        (micro_batch,) = pack_micro_batches([sequence], max_tokens=_LENGTH, row_tokens=_LENGTH)
        was_training = self.model.training
        self.model.eval()
        # A rollout may run under autocast, which vLLM does not know.
        with torch.autocast(self.model.lm.device.type, enabled=False):
            logprobs, _ = self.model(micro_batch, 1.0)
        self.model.train(was_training)
        result: Tensor = logprobs.cpu()
        return result
