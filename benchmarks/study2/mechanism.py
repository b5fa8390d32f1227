"""Does the covariance of log-probability and advantage predict how fast entropy falls?

    python benchmarks/study2/mechanism.py                        # four policies × five seeds, under a minute
    python benchmarks/study2/mechanism.py --output docs/results/study2/mechanism.csv

The theory (https://arxiv.org/abs/2505.22617, section 4) is for a policy with a logit of its own for every
state and action, moved by plain gradient steps. A language model in training has neither: its states share
parameters, and Adam scales each step. Here the two are taken apart on a task small enough for a table: write
three digits whose sum leaves the remainder that the prompt asks for. The policy is a table or a network over
the prefix, its steps are plain (SGD) or Adam's. All four start as the same policy and draw by the same random
numbers. Updates are strictly on-policy GRPO, as in the paper's own check.

Each iteration measures the change of entropy at the positions that were drawn, and what predicts it:

    by_logits      mean_s −Cov_{a~π}[log π(a|s), Δz_{s,a}]      the first-order identity
    by_tokens      −Cov_i[log π_i, A_i]                         i: the iteration's tokens

Here the covariance over responses, −mean_x Cov_y[log π(y|x)/|y|, A(y)], is that over tokens: responses are
equally long, and advantages of a prompt sum to 0.

The table gives their correlation with it over a run's iterations: mean over the seeds ± half the 95 % t
interval.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ecrl.algorithm.covariance import token_covariance
from ecrl.analysis.stats import interval

PROMPTS, GROUP, DIGITS, LENGTH = 16, 8, 10, 3
MODULUS = 5  # so that a fifth of all responses is right
NONE = DIGITS  # the mark of a digit that is not written yet
ITERATIONS, SEEDS = 300, (101, 102, 103, 104, 105)
#: Kind of policy, optimizer, learning rate; chosen on seeds 0 and 1, where all four learn the task.
POLICIES = {
    "table, SGD": ("table", torch.optim.SGD, 60.0),
    "table, Adam": ("table", torch.optim.Adam, 0.1),
    "network, SGD": ("network", torch.optim.SGD, 0.5),
    "network, Adam": ("network", torch.optim.Adam, 3e-3),
}
FIELDS = ("iteration", "reward", "entropy", "change", "by_logits", "by_tokens")


class Network(nn.Module):
    """Logits ``[N, DIGITS]`` of states ``[N, 3]``: the prompt and the two digits before, or ``NONE``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.ModuleList([nn.Embedding(n, 32) for n in (PROMPTS, DIGITS + 1, DIGITS + 1)])
        self.layers = nn.Sequential(nn.Tanh(), nn.Linear(32, 64), nn.Tanh(), nn.Linear(64, DIGITS))
        nn.init.normal_(self.layers[-1].weight, std=0.3)  # surer than chance, as a policy after its warm-up

    def forward(self, states: Tensor) -> Tensor:  # noqa: D102
        return self.layers(sum(table(states[:, i]) for i, table in enumerate(self.embed)))


class Table(nn.Module):
    """A logit of its own for every state and action, equal to those of a network at first."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        prompts, digits = torch.arange(PROMPTS), torch.arange(DIGITS + 1)
        with torch.no_grad():
            self.logits = nn.Parameter(network(torch.cartesian_prod(prompts, digits, digits)))

    def forward(self, states: Tensor) -> Tensor:  # noqa: D102
        prompt, first, second = states.unbind(1)
        return self.logits[(prompt * (DIGITS + 1) + first) * (DIGITS + 1) + second]


def draw(policy: nn.Module, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw ``GROUP`` responses to each prompt: states ``[B, LENGTH, 3]`` and actions ``[B, LENGTH]``."""
    prompt = torch.arange(PROMPTS).repeat_interleave(GROUP)
    state = torch.stack([prompt, torch.full_like(prompt, NONE), torch.full_like(prompt, NONE)], 1)
    states, actions = [], []
    for position in range(LENGTH):
        cumulative = policy(state).softmax(-1).cumsum(-1)
        uniform = torch.rand(len(prompt), 1, generator=random, dtype=cumulative.dtype)
        action = (cumulative < uniform).sum(-1).clamp(max=DIGITS - 1)
        states.append(state)
        actions.append(action)
        state = state.clone()
        state[:, min(position + 1, 2)] = action
    return torch.stack(states, 1), torch.stack(actions, 1)


def train(
    kind: str, optimizer: type[torch.optim.Optimizer], lr: float, seed: int
) -> Iterator[tuple[float, ...]]:
    """Train a policy and yield what ``FIELDS`` names, an iteration each."""
    torch.manual_seed(seed)
    network = Network().double()
    policy: nn.Module = network if kind == "network" else Table(network)
    steps = optimizer(policy.parameters(), lr=lr)
    random = torch.Generator().manual_seed(seed)
    for iteration in range(1, ITERATIONS + 1):
        with torch.no_grad():
            states, actions = draw(policy, random)
        right = actions.sum(1) % MODULUS == states[:, 0, 0] % MODULUS
        groups = right.double().view(PROMPTS, GROUP)
        centred = groups - groups.mean(1, keepdim=True)
        advantages = (centred / (groups.std(1, keepdim=True) + 1e-6)).view(-1)

        flat = states.view(-1, 3)
        logits = policy(flat)
        logprobs = logits.log_softmax(-1)
        taken = logprobs.gather(1, actions.view(-1, 1)).squeeze(1)
        per_token = advantages.repeat_interleave(LENGTH)
        steps.zero_grad()
        (-per_token * taken).mean().backward()
        steps.step()

        with torch.no_grad():
            before, after = entropy(logits), entropy(policy(flat))
            by_logits = -covariance_over_actions(logprobs, policy(flat) - logits).mean()
            by_tokens = -token_covariance(taken, per_token).mean()
        change = (after - before).mean()
        measured = (groups.mean(), before.mean(), change, by_logits, by_tokens)
        yield iteration, *map(float, measured)


def covariance_over_actions(logprobs: Tensor, moved: Tensor) -> Tensor:
    """Return ``Cov_{a~π}[log π(a|s), Δz_{s,a}]`` of each state, ``[N]``, from ``[N, DIGITS]``."""
    p = logprobs.exp()
    return (p * logprobs * moved).sum(-1) - (p * logprobs).sum(-1) * (p * moved).sum(-1)


def entropy(logits: Tensor) -> Tensor:
    """Return the entropy ``[N]`` of logits ``[N, DIGITS]``, nats."""
    logprobs = logits.log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def main() -> None:
    """Train all, write the iterations, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--output", type=Path, help="CSV file for every iteration")
    arguments = parser.parse_args()
    runs = {
        (name, seed): np.array(list(train(*setting, seed)))
        for name, setting in POLICIES.items()
        for seed in arguments.seeds
    }
    if arguments.output:
        write(runs, arguments.output)
    print("\n".join(table(runs)))


def table(runs: Mapping[tuple[str, int], np.ndarray]) -> list[str]:
    """Return the lines of the table: correlations of each policy, over its seeds."""
    lines = ["| policy | reward at the end | entropy, first, last | r by logits | by tokens |"]
    lines.append("|---|---|---|---|---|")
    for name in POLICIES:
        mine = np.stack([rows for (policy, _), rows in runs.items() if policy == name])  # [seeds, T, fields]
        reward, first, last = mine[:, -20:, 1].mean(), mine[:, 0, 2].mean(), mine[:, -1, 2].mean()
        found = [
            interval([float(np.corrcoef(run[:, 3], run[:, FIELDS.index(by)])[0, 1]) for run in mine])
            for by in ("by_logits", "by_tokens")
        ]
        cells = " | ".join(f"{r.mean:.2f} ± {r.half:.2f}" for r in found)
        lines.append(f"| {name} | {reward:.2f} | {first:.2f}, {last:.2f} | {cells} |")
    return lines


def read(path: Path) -> dict[tuple[str, int], np.ndarray]:
    """Read the iterations of each run that ``write`` wrote."""
    runs: dict[tuple[str, int], list[list[float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            runs.setdefault((row["policy"], int(row["seed"])), []).append([float(row[f]) for f in FIELDS])
    return {run: np.array(rows) for run, rows in runs.items()}


def write(runs: Mapping[tuple[str, int], np.ndarray], path: Path) -> None:
    """Write a row for each iteration of each run."""
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["policy", "seed", *FIELDS])
        for run, rows in runs.items():
            table.writerows([*run, int(row[0]), *(f"{x:.5g}" for x in row[1:])] for row in rows)


if __name__ == "__main__":
    main()
