"""A probe: a fixed prompt whose log-probabilities an engine and the trainer must agree on."""

from __future__ import annotations

import torch
from torch import Tensor

from ecrl.errors import EcrlError
from ecrl.hashing import hash_u64
from ecrl.layout import Layout
from ecrl.model import PolicyModel

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
        ids = torch.tensor([self.token_ids])
        steps = torch.arange(_LENGTH - 1)
        layout = Layout(
            input_ids=ids,
            position_ids=torch.arange(_LENGTH)[None],
            attention_mask=torch.ones_like(ids),
            source=steps,
            targets=ids[0, 1:],
            order=steps,
        )
        was_training = self.model.training
        self.model.eval()
        logprobs, _ = self.model(layout, 1.0)
        self.model.train(was_training)
        result: Tensor = logprobs.cpu()
        return result
