"""Every objective as its paper writes it: loops over responses in float64, nothing of the framework.

A response is a list of tokens. Losses are to be minimised; each is returned as a scalar with gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import torch
from torch import Tensor


@dataclass
class Response:
    """A response to a prompt.

    Attributes:
        prompt: which prompt it answers.
        reward: of the whole response.
        rewards: of each token, which sum to ``reward``.
        new: log π of each token, 0-dimensional, with gradient.
        old: log π_old of each token.
        process: PRIME's implicit reward of each token.
    """

    prompt: int
    reward: float
    rewards: list[float]
    new: list[Tensor]
    old: list[float]
    process: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[Tensor]:
        return [torch.exp(new - old) for new, old in zip(self.new, self.old, strict=True)]


Responses = Sequence[Response]
Advantages = list[list[float]]  # of each token of each response


def mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def group(responses: Responses, member: Response) -> list[float]:
    """Rewards of all responses to the member's prompt."""
    return [r.reward for r in responses if r.prompt == member.prompt]


def spread(responses: Responses, one_each: Sequence[float]) -> Advantages:
    return [[a] * len(r.new) for r, a in zip(responses, one_each, strict=True)]


def whitened(advantages: Advantages, epsilon: float = 1e-6) -> Advantages:
    flat = [a for response in advantages for a in response]
    center = mean(flat)
    deviation = math.sqrt(mean([(a - center) ** 2 for a in flat]))
    return [[(a - center) / (deviation + epsilon) for a in response] for response in advantages]


# ---------------------------------------------------------------- advantages


def grpo_advantages(responses: Responses) -> Advantages:
    """2402.03300, section 4.1.2: (r − mean(r)) / std(r) in the group."""
    found = []
    for r in responses:
        rewards = group(responses, r)
        center = mean(rewards)
        squares = sum((x - center) ** 2 for x in rewards)
        deviation = math.sqrt(squares / (len(rewards) - 1)) if len(rewards) > 1 else 0.0
        found.append((r.reward - center) / (deviation + 1e-6))
    return spread(responses, found)


def dr_grpo_advantages(responses: Responses) -> Advantages:
    """2503.20783, section 3.2: r − mean(r)."""
    return spread(responses, [r.reward - mean(group(responses, r)) for r in responses])


def rloo_advantage(responses: Responses, member: int, numbers: Sequence[float]) -> float:
    prompt = responses[member].prompt
    others = [x for i, x in enumerate(numbers) if i != member and responses[i].prompt == prompt]
    return numbers[member] - mean(others) if others else 0.0


def rloo_advantages(responses: Responses) -> Advantages:
    """2402.14740, section 2.3: the reward less the mean of the others'."""
    rewards = [r.reward for r in responses]
    return spread(responses, [rloo_advantage(responses, i, rewards) for i in range(len(responses))])


def reinforce_pp_advantages(responses: Responses) -> Advantages:
    """2501.03262: the rewards still to come, normalised over the global batch of tokens."""
    return whitened([[sum(r.rewards[t:]) for t in range(len(r.new))] for r in responses])


def reinforce_pp_baseline_advantages(responses: Responses) -> Advantages:
    """2501.03262: r − mean(r) of the group, normalised over the global batch of tokens."""
    return whitened(dr_grpo_advantages(responses))


def prime_advantages(responses: Responses) -> Advantages:
    """2502.01456, equation 5: leave-one-out of process rewards, summed from the token on, and of outcomes."""
    means = [mean(r.process) for r in responses]
    found = []
    for i, r in enumerate(responses):
        mates = [j for j, other in enumerate(responses) if j != i and other.prompt == r.prompt]
        baseline = mean([means[j] for j in mates]) if mates else means[i]
        outcome = rloo_advantage(responses, i, [x.reward for x in responses])
        steps = range(len(r.process))
        found.append([sum(p - baseline for p in r.process[t:]) + outcome for t in steps])
    return found


def qae_advantages(responses: Responses) -> Advantages:
    """2509.22611: the baseline is inf{x : share of the group's rewards up to x ≥ 0.4}."""
    found = []
    for r in responses:
        rewards = group(responses, r)
        reached = [x for x in rewards if sum(y <= x for y in rewards) / len(rewards) >= 0.4]
        center = mean(rewards)
        squares = sum((x - center) ** 2 for x in rewards)
        deviation = math.sqrt(squares / (len(rewards) - 1)) if len(rewards) > 1 else 0.0
        found.append((r.reward - min(reached)) / (deviation + 1e-6))
    return spread(responses, found)


def w_reinforce_advantages(responses: Responses) -> Advantages:
    """2506.01347: a tenth of the reward where right, the reward less 1 elsewhere."""
    return spread(responses, [0.1 * r.reward if r.reward >= 1 else r.reward - 1 for r in responses])


def max_rl_advantages(responses: Responses) -> Advantages:
    """2602.02710: (r − mean(r)) / mean(r)."""
    centers = [mean(group(responses, r)) for r in responses]
    return spread(responses, [(r.reward - c) / (c + 1e-6) for r, c in zip(responses, centers, strict=True)])


def opo_advantages(responses: Responses) -> Advantages:
    """2505.23585: the baseline is the mean reward of the group's tokens."""
    found = []
    for r in responses:
        of_tokens = [x.reward for x in responses if x.prompt == r.prompt for _ in x.new]
        found.append(r.reward - mean(of_tokens))
    return spread(responses, found)


def mates(responses: Responses, member: int) -> list[int]:
    prompt = responses[member].prompt
    return [i for i, r in enumerate(responses) if r.prompt == prompt and i != member]


def pkpo_advantages(responses: Responses, k: int = 4) -> Advantages:
    """2505.15201, equation 33, by enumeration: what a response adds to the best of k, summed over subsets."""
    found = []
    for i, r in enumerate(responses):
        others = mates(responses, i)
        size = len(others) + 1
        total = 0.0
        for subset in combinations(others, k - 1):
            best = max(responses[j].reward for j in subset)
            total += max(best, r.reward) - best
        found.append(size * total / math.comb(size, k) if size >= k else 0.0)
    return spread(responses, found)


def pass_at_k_advantages(responses: Responses, k: int = 4) -> Advantages:
    """2508.10751, by enumeration: the mean advantage of all groups of k with the response."""
    found = []
    for i in range(len(responses)):
        everyone = [i, *mates(responses, i)]
        groups = list(combinations(everyone, k))
        earned = [float(any(responses[j].reward >= 1 for j in members)) for members in groups]
        if not groups:
            found.append(0.0)
            continue
        center = mean(earned)
        deviation = math.sqrt(center * (1 - center))
        own = [x for x, members in zip(earned, groups, strict=True) if i in members]
        found.append((mean(own) - center) / (deviation + 1e-6))
    return spread(responses, found)


def unlikeliness_advantages(responses: Responses) -> Advantages:
    """2506.02355: r·(1 − 0.25·rank/G), rank 0 for the least likely, before GRPO."""
    likely = [mean(r.old) for r in responses]
    shaped = []
    for i, r in enumerate(responses):
        others = mates(responses, i)
        rank = sum(likely[j] < likely[i] for j in others)
        shaped.append(r.reward * (1 - 0.25 * rank / (len(others) + 1)))
    return grpo_advantages([replace(r, reward=x) for r, x in zip(responses, shaped, strict=True)])


# ---------------------------------------------------------------- losses


def clipped(ratio: Tensor, advantage: float, low: float, high: float) -> Tensor:
    return torch.min(ratio * advantage, torch.clamp(ratio, low, high) * advantage)


def ppo_terms(responses: Responses, advantages: Advantages, low: float, high: float) -> list[list[Tensor]]:
    """1707.06347, equation 7."""
    return [
        [clipped(ratio, a, low, high) for ratio, a in zip(r.ratios, own, strict=True)]
        for r, own in zip(responses, advantages, strict=True)
    ]


def over_tokens(terms: list[list[Tensor]]) -> Tensor:
    """2503.14476, equation 8."""
    flat = [term for response in terms for term in response]
    return -torch.stack(flat).sum() / len(flat)


def ppo_over_tokens(
    advantages: Callable[[Responses], Advantages], low: float, high: float
) -> Callable[[Responses], Tensor]:
    return lambda responses: over_tokens(ppo_terms(responses, advantages(responses), low, high))


def dr_grpo(responses: Responses, length: int) -> Tensor:
    """2503.20783: sum over tokens by a constant, mean over responses."""
    terms = ppo_terms(responses, dr_grpo_advantages(responses), 0.8, 1.2)
    return -torch.stack([torch.stack(t).sum() / length for t in terms]).mean()


def rloo(responses: Responses) -> Tensor:
    """2402.14740: REINFORCE on log π(y|x), mean over responses."""
    losses = [
        -own[0] * torch.stack(r.new).sum()
        for r, own in zip(responses, rloo_advantages(responses), strict=True)
    ]
    return torch.stack(losses).mean()


def pkpo(responses: Responses) -> Tensor:
    """2505.15201: the gradient of a problem is that of Σ s·log π(y|x); PPO's ratios, clipped."""
    terms = ppo_terms(responses, pkpo_advantages(responses), 0.8, 1.2)
    return -torch.stack([torch.stack(t).sum() for t in terms]).mean()


def gspo(responses: Responses) -> Tensor:
    """2507.18071, equations 5 and 7: the sequence form, clipped at 3e-4 and 4e-4."""
    losses = []
    for r, own in zip(responses, grpo_advantages(responses), strict=True):
        log_ratio = torch.stack(r.new).sum() - sum(r.old)
        ratio = torch.exp(log_ratio / len(r.new))
        losses.append(-clipped(ratio, own[0], 1 - 3e-4, 1 + 4e-4))
    return torch.stack(losses).mean()


def cispo(responses: Responses) -> Tensor:
    """2506.13585, equation 4: a bounded weight that carries no gradient, on every token."""
    terms = []
    for r, own in zip(responses, grpo_advantages(responses), strict=True):
        for ratio, advantage, new in zip(r.ratios, own, r.new, strict=True):
            terms.append(ratio.detach().clamp(0.0, 5.0) * advantage * new)
    return -torch.stack(terms).sum() / len(terms)


def over_responses(terms: list[list[Tensor]]) -> Tensor:
    """2402.03300: mean over tokens, then over responses."""
    return -torch.stack([torch.stack(t).mean() for t in terms]).mean()


def every_token(
    responses: Responses, advantages: Advantages, term: Callable[[float, Tensor, float, float], Tensor]
) -> list[list[Tensor]]:
    """Terms of advantage, log π, log π_old and its value without gradient."""
    return [
        [term(a, new, old, float(new.detach())) for a, new, old in zip(own, r.new, r.old, strict=True)]
        for r, own in zip(responses, advantages, strict=True)
    ]


def sapo(responses: Responses) -> Tensor:
    """2511.20347: f(r) = 4/τ·sigmoid(τ(r − 1)), τ 1 for A > 0, else 1.05."""

    def term(advantage: float, new: Tensor, old: float, at: float) -> Tensor:
        tau = 1.0 if advantage > 0 else 1.05
        return 4 / tau / (1 + torch.exp(-tau * (torch.exp(new - old) - 1))) * advantage

    return over_responses(every_token(responses, grpo_advantages(responses), term))


def gmpo(responses: Responses) -> Tensor:
    """2507.20673: the product of clipped ratios to the power 1/|y|, sign by sign of A."""
    losses = []
    for r, own in zip(responses, grpo_advantages(responses), strict=True):
        sign = 1.0 if own[0] > 0 else -1.0
        steps = []
        for new, old in zip(r.new, r.old, strict=True):
            x = sign * (new - old)
            steps.append(torch.minimum(x, sign * (new - old).clamp(-0.4, 0.4)) * sign)
        losses.append(-own[0] * torch.exp(torch.stack(steps).mean()))
    return torch.stack(losses).mean()


def dppo(responses: Responses, kl: bool, limit: float) -> Tensor:
    """2602.04879: r·A, masked where the divergence exceeds the limit and grows."""

    def term(advantage: float, new: Tensor, old: float, at: float) -> Tensor:
        p, q = math.exp(at), math.exp(old)
        distance = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p)) if kl else abs(p - q)
        outward = (advantage > 0 and p > q) or (advantage < 0 and p < q)
        ratio = torch.exp(new - old)
        return (ratio.detach() if outward and distance > limit else ratio) * advantage

    terms = every_token(responses, dr_grpo_advantages(responses), term)
    return -torch.stack([torch.stack(t).sum() / LENGTH for t in terms]).mean()


def aspo(responses: Responses) -> Tensor:
    """2510.06062: the ratio flipped where A > 0, π·π_old/sg(π²); both capped at 3."""

    def term(advantage: float, new: Tensor, old: float, at: float) -> Tensor:
        ratio = math.exp(at - old)
        if advantage > 0:
            if ratio > 1.2:
                return torch.zeros_like(new) + advantage / 1.2
            flipped = torch.exp(new) * math.exp(old) / math.exp(at) ** 2
            return flipped * min(1.0, 3 / float(flipped.detach())) * advantage
        if ratio < 0.8:
            return torch.zeros_like(new) + advantage * 0.8
        return torch.exp(new - old) * min(1.0, 3 / ratio) * advantage

    return over_tokens(every_token(responses, grpo_advantages(responses), term))


def ce_gppo(responses: Responses) -> Tensor:
    """2509.20712: outside the clip the bound, times β, carries the gradient of log π."""

    def term(advantage: float, new: Tensor, old: float, at: float) -> Tensor:
        ratio = torch.exp(new - old)
        outside = ratio / math.exp(at - old)
        if advantage < 0 and math.exp(at - old) < 0.8:
            return 0.75 * 0.8 * outside * advantage
        if advantage > 0 and math.exp(at - old) > 1.2:
            return 1.0 * 1.2 * outside * advantage
        return ratio * advantage

    return over_tokens(every_token(responses, grpo_advantages(responses), term))


#: The longest response that the fixed length of Dr. GRPO is set to.
LENGTH = 16

OBJECTIVES: dict[str, Callable[[Responses], Tensor]] = {
    "grpo": ppo_over_tokens(grpo_advantages, 0.8, 1.2),
    "dapo": ppo_over_tokens(grpo_advantages, 0.8, 1.28),
    "dr_grpo": lambda responses: dr_grpo(responses, LENGTH),
    "rloo": rloo,
    "rloo_clip": ppo_over_tokens(rloo_advantages, 0.8, 1.2),
    "reinforce_pp": ppo_over_tokens(reinforce_pp_advantages, 0.8, 1.2),
    "reinforce_pp_baseline": ppo_over_tokens(reinforce_pp_baseline_advantages, 0.8, 1.2),
    "gspo": gspo,
    "cispo": cispo,
    "prime": ppo_over_tokens(prime_advantages, 0.8, 1.2),
    "qae": ppo_over_tokens(qae_advantages, 0.8, 1.28),
    "w_reinforce": ppo_over_tokens(w_reinforce_advantages, 0.8, 1.2),
    "max_rl": ppo_over_tokens(max_rl_advantages, 0.8, 1.2),
    "opo": ppo_over_tokens(opo_advantages, 0.8, 1.2),
    "pkpo": pkpo,
    "pass_at_k": ppo_over_tokens(pass_at_k_advantages, 0.8, 1.2),
    "sapo": sapo,
    "gmpo": gmpo,
    "dppo": lambda responses: dppo(responses, kl=False, limit=0.15),
    "dppo_kl": lambda responses: dppo(responses, kl=True, limit=0.05),
    "aspo": aspo,
    "ce_gppo": ce_gppo,
    "unlikeliness": ppo_over_tokens(unlikeliness_advantages, 0.8, 1.2),
}

ESTIMATORS: dict[str, Callable[[Responses], Advantages]] = {
    "grpo": grpo_advantages,
    "dr_grpo": dr_grpo_advantages,
    "rloo": rloo_advantages,
    "reinforce_pp": reinforce_pp_advantages,
    "reinforce_pp_baseline": reinforce_pp_baseline_advantages,
    "prime": prime_advantages,
    "quantile_baseline": qae_advantages,
    "w_reinforce": w_reinforce_advantages,
    "max_rl": max_rl_advantages,
    "opo": opo_advantages,
    "pkpo": pkpo_advantages,
    "pass_at_k": pass_at_k_advantages,
}
