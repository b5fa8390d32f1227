"""What every metric means, for TensorBoard and for docs/metrics.md.

    python -m ecrl.training.glossary > docs/metrics.md

``<…>`` in a name stands for any text: a data set, a strategy, a number.
"""

from __future__ import annotations

import re
from functools import cache

from ecrl.config.eval_sets import VALIDATION_MEAN

#: Names that TensorBoard also shows under ``overview/``, with the metric that each repeats.
OVERVIEW = {
    "overview/reward": "rollout/reward",
    "overview/validation": VALIDATION_MEAN,
    "overview/entropy": "policy/entropy",
    "overview/length": "rollout/length",
    "overview/truncated": "rollout/truncated",
}

GLOSSARY = {
    "rollout/reward": "Mean reward of all completions that were drawn, before any filter.",
    "rollout/reward_std": "Standard deviation of these rewards, over all completions.",
    "rollout/length": "Mean length of a response, in tokens.",
    "rollout/length_max": "Length of the longest response, in tokens.",
    "rollout/truncated": "Share of responses that were cut off at `rollout.max_new_tokens`.",
    "rollout/overlong_prompts": "Number of problems whose prompts were too long; see `rollout.overlong_prompts`.",
    "rollout/env_errors": "Number of episodes in which the environment's code raised, with `env.on_error=zero`.",
    "rollout/partial": "Share of episodes that more than one version of the weights drew, with `rollout.partial=true`.",
    "rollout/zero_variance": "Share of groups whose completions all have the same reward: they carry no signal.",
    "rollout/groups": "Number of groups that were drawn.",
    "rollout/groups_trained": "Number of groups that the update learns from, after the filters.",
    "rollout/completions": "Number of completions that were drawn.",
    "rollout/tokens": "Number of response tokens that were drawn.",
    "rollout/entropy": "Entropy of all that was drawn, by the engine, in nats: mean over each response, then over responses.",
    "policy/entropy": "Entropy of the policy before the update at the responses that train, in nats (arXiv 2505.22617, eq. 1).",
    "policy/loss": "Loss of an optimizer step, penalties included; the mean over the iteration's steps.",
    "policy/grad_norm": "Global norm of the gradient before clipping, all processes together.",
    "policy/lr": "Learning rate of the last optimizer step.",
    "policy/ratio": "Mean of π/π_old over the tokens of a minibatch, before its step.",
    "policy/clip_high": "Share of tokens that lose their gradient at the upper bound of the ratio.",
    "policy/clip_low": "Share of tokens that lose their gradient at the lower bound of the ratio.",
    "policy/kl_behaviour": "KL(π_old‖π), in nats a token (k3 estimator): how far the updates have moved the policy.",
    "mismatch/kl": "KL of the engine's distribution μ to the trainer's π_old, in nats a token (k3 estimator).",
    "mismatch/max": "Largest |log π_old − log μ| of a token, in nats.",
    "mismatch/outside": "Share of tokens whose π_old/μ lies outside [0.5, 2].",
    "strategy/<name>/fraction": "Share of tokens that the strategy changed.",
    "strategy/<name>/coefficient": "Coefficient of the strategy's penalty.",
    "strategy/<name>/target": "Entropy that the budget wants now, in nats.",
    "strategy/<name>/error": "How far entropy is below that target, as a share of it.",
    "strategy/<name>/knob": "Value of the knob that the budget moves.",
    VALIDATION_MEAN: "Mean over the validation sets of each one's avg@k.",
    "val/<set>/avg@<k>": "Mean reward of k sampled answers to each validation problem.",
    "val/<set>/pass@<k>": "Chance that at least one of k sampled answers is right (unbiased estimate).",
    "val/<set>/maj@<k>": "How often the most frequent of k answers is right; a tie counts in part.",
    "val/<set>/greedy": "Mean reward of the greedy answer.",
    "val/<set>/length": "Mean length of a sampled answer, in tokens.",
    "val/<set>/overlong_prompts": "Number of problems whose prompts were too long; where the policy does not read them, they count as wrong.",
    "val/<set>/env_errors": "Number of answers for which the environment's code raised, with `env.on_error=zero`; left out where there are none.",
    "cov/mean": "Mean over tokens of the covariance of log-probability and advantage: it drives entropy down (arXiv 2505.22617, eq. 10).",
    "cov/max": "Largest token covariance.",
    "cov/q<share>": "Quantile of the token covariances.",
    "cov/top_<share>%": "Mean covariance of that share of tokens with the highest ones.",
    "cov/accuracy_<range>": "Mean token covariance of prompts whose group has a mean reward in that range.",
    "cov/group/mean": "Mean over groups of the covariance of whole responses within their group.",
    "cov/group/accuracy_<range>": "The same, over groups with a mean reward in that range.",
    "dynamics/measured": "Measured change of entropy in an iteration, in nats.",
    "dynamics/by_logits": "Change of entropy that −Cov(log π, Δz) of the logits predicts, in nats.",
    "dynamics/by_tokens": "Change of entropy that the token covariances predict, up to a factor.",
    "dynamics/by_responses": "Change of entropy that the response covariances predict, up to a factor.",
    "dynamics/correlation_<prediction>": "Correlation of a prediction with the measured changes so far.",
    "dynamics/slope_<prediction>": "Slope of the measured changes over a prediction.",
    "law/a": "a of R = −a·exp(H) + b, fitted to the run so far.",
    "law/b": "b of R = −a·exp(H) + b.",
    "law/r2": "Share of the variance of R that the law explains.",
    "law/rmse": "Root mean square error of the law, in units of R.",
    "law/ceiling": "R at H = 0, where the law ends: b − a.",
    "law/ceiling_low": "Lower end of the ceiling's 95 % interval.",
    "law/ceiling_high": "Upper end of the ceiling's 95 % interval.",
    "law/entropy_spent": "Share of the first entropy that is spent.",
    "law/gain_reached": "Share of the way from the first R to the ceiling that is done.",
    "env/<metric>": "Mean of what the environment reports with each score; see docs/environments.",
    "judge/requests": "Requests to the judge of `env=judge`, validation's since the last iteration included.",
    "judge/seconds": "Mean seconds of a request to the judge.",
    "judge/cached": "Share of the verdicts that cost no request: they were in the cache, or just being asked for.",
    "judge/retries": "Requests to the judge that were sent because another had failed.",
    "judge/failures": "Responses on which the judge gave no verdict after all tries; see `env.on_error`.",
    "prime/loss": "Cross-entropy of the process reward model with the outcomes, in nats a response.",
    "<model>/loss": "Loss of an auxiliary model.",
    "<model>/grad_norm": "Global norm of an auxiliary model's gradient, before clipping.",
    "<model>/accuracy": "Share of responses whose outcome the auxiliary model tells from its rewards.",
    "<model>/reward": "Mean over responses of the rewards that the auxiliary model gives.",
    "time/total": "Seconds of the whole iteration.",
    "time/sync": "Seconds in which the engine got the policy's weights.",
    "time/generate": "Seconds in which completions were awaited; threads may score others meanwhile.",
    "time/verify": "Seconds in which environments posed and scored problems while no completion was awaited.",
    "time/verifier_queue": "Mean seconds that a verification waited for a free process.",
    "time/score": "Seconds of passes for old and reference log-probabilities.",
    "time/plan": "Seconds of passes that strategies need before an optimizer step.",
    "time/auxiliary": "Seconds of auxiliary models.",
    "time/update": "Seconds of forward and backward passes and optimizer steps.",
    "time/validate": "Seconds of validation, generation and verification included.",
    "time/probe": "Seconds of the monitor of entropy dynamics.",
    "time/engine_idle": "Share of the iteration, without validation, in which the engine had nothing to draw.",
    "time/trainer_idle": "Share of the iteration, without validation, in which the trainer waited for the rollout.",
    "throughput/tokens_per_second": "Response tokens a second, over the iteration without validation.",
} | {name: f"Repeats `{source}`." for name, source in OVERVIEW.items()}  # fmt: skip


@cache
def meaning(name: str) -> str | None:
    """Return what a metric means; None for a name that is not ours."""
    if name in GLOSSARY:
        return GLOSSARY[name]
    return next((text for pattern, text in _patterns() if pattern.fullmatch(name)), None)


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Names with a placeholder, in order."""
    parts = {name: re.split(r"<[^>]+>", name) for name in GLOSSARY if "<" in name}
    return [(re.compile(".+".join(map(re.escape, parts[name]))), GLOSSARY[name]) for name in parts]


def as_markdown() -> str:
    """Return the page docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Written by `python -m ecrl.training.glossary > docs/metrics.md`. Each name stands in a row of",
        "`metrics.jsonl` and in TensorBoard, where a chart's ⓘ shows its meaning. `overview/` is in TensorBoard only.",
    ]
    part = ""
    for name, text in GLOSSARY.items():
        if name.partition("/")[0] != part:
            part = name.partition("/")[0]
            lines += ["", f"## {part}", "", "| name | meaning |", "|---|---|"]
        lines.append(f"| `{name}` | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
