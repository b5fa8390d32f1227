"""Peak memory and time of the chunked head beside the plain formula, forward and backward.

Each measurement is a process of its own, and the two take turns. Where the plain version does not fit
into memory, it is also measured at the largest number of tokens that does, in steps of 1,024.

    python benchmarks/score_memory.py --pairs 5 --output docs/results/score_memory.json

Cases: `both` (log-prob and entropy with gradient), `logprobs` (entropy is only reported, without gradient:
plain reinforcement learning, and every strategy that adds no entropy term). Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

GIB = 2**30
RESERVE = 2 * GIB  # left to the rest of the machine
STEP = 1024
DOES_NOT_FIT = 3  # exit code of a worker


def plain(hidden: Any, weight: Any, targets: Any, entropy_gradient: bool) -> tuple[Any, Any]:
    import torch

    logp = torch.log_softmax((hidden @ weight.T).float(), -1)
    with torch.set_grad_enabled(entropy_gradient):
        entropy = -(logp.exp() * logp).sum(-1)
    return logp.gather(1, targets[:, None]).squeeze(1), entropy


def chunked(hidden: Any, weight: Any, targets: Any, entropy_gradient: bool) -> tuple[Any, Any]:
    from ecrl.head import token_stats

    return token_stats(hidden, weight, targets)


def field(path: str, name: str) -> int:
    """A `name: 123 kB` line of a file in /proc, in bytes."""
    line = next(line for line in Path(path).read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def limit_memory() -> None:
    # An allocation then fails in this process, instead of the kernel killing some other one.
    limit = field("/proc/self/status", "VmSize") + field("/proc/meminfo", "MemAvailable") - RESERVE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    Path("/proc/self/oom_score_adj").write_text("1000")


def step(function: Any, inputs: list[Any], entropy_gradient: bool) -> None:
    logprobs, entropy = function(*inputs, entropy_gradient)
    loss = logprobs.mean()
    if entropy_gradient:
        loss = loss + 0.01 * entropy.mean()
    loss.backward()


def worker(args: argparse.Namespace) -> None:
    """Measure one step in this process and print it."""
    import torch

    torch.manual_seed(0)
    device = torch.device(args.device)
    hidden = torch.randn(args.tokens, args.hidden, device=device).requires_grad_()
    weight = torch.empty(args.vocabulary, args.hidden, device=device).normal_(0, 0.02).requires_grad_()
    targets = torch.randint(args.vocabulary, (args.tokens,), device=device)
    function, gradient = {"plain": plain, "ecrl": chunked}[args.worker], args.case == "both"
    # Thread pools and libraries are set up before the baseline is read.
    small = [
        hidden[:64].detach().requires_grad_(),
        weight[:512].detach().requires_grad_(),
        targets[:64] % 512,
    ]
    step(function, small, gradient)
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = field("/proc/self/status", "VmRSS")
        limit_memory()
    start = time.perf_counter()
    try:
        step(function, [hidden, weight, targets], gradient)
    except (RuntimeError, MemoryError) as error:
        if "memory" not in str(error).lower():
            raise
        sys.exit(DOES_NOT_FIT)
    if device.type == "cuda":
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "gib": (peak - before) / GIB, "torch": torch.__version__,
                      "threads": torch.get_num_threads()}))  # fmt: skip


def measure(which: str, case: str, tokens: int, args: argparse.Namespace) -> dict[str, Any] | None:
    """Run a worker; None if it does not fit into memory."""
    command = [
        sys.executable, __file__, "--worker", which, "--case", case, "--tokens", str(tokens),
        "--vocabulary", str(args.vocabulary), "--hidden", str(args.hidden), "--device", args.device,
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode in (DOES_NOT_FIT, -9):  # -9: the kernel chose it when memory ran out
        return None
    done.check_returncode()
    result: dict[str, Any] = json.loads(done.stdout)
    print(f"{case} {tokens} {which}: {result['seconds']:.1f} s, {result['gib']:.2f} GiB", flush=True)
    return result


def spread(runs: list[dict[str, Any]], key: str) -> str:
    values = [run[key] for run in runs]
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def compare(case: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Alternating pairs at the wanted size, and at the largest that the plain version can do."""
    tokens, rows = args.tokens, []
    first = measure("plain", case, tokens, args)
    if first is None:
        print(f"{case}: the plain version does not fit at {tokens} tokens", flush=True)
        alone = [run for _ in range(args.pairs) if (run := measure("ecrl", case, tokens, args))]
        rows.append({"case": case, "tokens": tokens, "plain": [], "ecrl": alone})
    while first is None and tokens > STEP:
        tokens -= STEP
        first = measure("plain", case, tokens, args)
    if first is None:
        return rows
    runs: dict[str, list[dict[str, Any]]] = {"plain": [first], "ecrl": []}
    for index in range(args.pairs):
        # The order within a pair swaps, so that drift hits both alike.
        for which in ("ecrl", "plain") if index % 2 == 0 else ("plain", "ecrl"):
            if len(runs[which]) < args.pairs and (run := measure(which, case, tokens, args)):
                runs[which].append(run)
    rows.append({"case": case, "tokens": tokens, **runs})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| case | tokens | version | seconds | GiB | × time | × memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for which in ("plain", "ecrl"):
            cells = [row["case"], f"{row['tokens']:,}", which]
            if row[which]:
                cells += [spread(row[which], "seconds"), spread(row[which], "gib")]
            else:
                cells += ["does not fit", ""]
            if which == "ecrl" and row["plain"] and row["ecrl"]:
                cells += [
                    f"{middle(row, 'ecrl', k) / middle(row, 'plain', k):.2f}" for k in ("seconds", "gib")
                ]
            else:
                cells += ["", ""]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def middle(row: dict[str, Any], which: str, key: str) -> float:
    return float(statistics.median(run[key] for run in row[which]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--case", choices=["both", "logprobs"], help="default: one after the other")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--worker", choices=["plain", "ecrl"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args)
        return
    load = os.getloadavg()[0]
    rows = [
        row for case in ([args.case] if args.case else ["both", "logprobs"]) for row in compare(case, args)
    ]
    print(f"\n{table(rows)}\n\nMedian (least–most) of {args.pairs}; load average at the start {load:.1f}.")
    if args.output:
        facts = {"vocabulary": args.vocabulary, "hidden": args.hidden, "device": args.device, "load": load}
        args.output.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
