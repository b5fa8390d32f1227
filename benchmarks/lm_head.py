"""Peak memory and time of a GRPO loss from hidden states: plain formula, ecrl's LM head, Liger kernel's loss.

    python benchmarks/lm_head.py --rounds 3 --output lm_head.json

Forward and backward of the same clipped loss on the same random inputs. Each measurement is a separate
process; the versions take turns, in rotating order, and their gradients are compared. Memory is the peak
above the inputs, including the gradient of the LM head's weight. Liger computes no entropy, so it is left
out of the case with an entropy bonus; ecrl computes the entropy in both. It needs Linux; Liger needs ``pip
install liger-kernel`` (otherwise its row says that it is not installed).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

GIB = 2**30
RESERVE = 2 * GIB  # memory left to the rest of the machine
SEQUENCE = 1024  # tokens of a completion; Liger processes one at a time, as TRL calls it
CLIP, BONUS = 0.2, 0.01
DOES_NOT_FIT, NOT_INSTALLED = 3, 4  # exit codes of a worker
CASES = {"loss": ["plain", "ecrl", "liger"], "loss and entropy bonus": ["plain", "ecrl"]}


@dataclass(frozen=True)
class Size:
    """Number of tokens, vocabulary, hidden size and device of a measurement."""

    tokens: int
    vocabulary: int
    hidden: int
    device: str


# ------------------------------------------------------------------ the three versions


def clipped(logprobs: Any, advantages: Any) -> Any:
    """Token-mean PPO loss on fresh samples: the ratio is 1, and its gradient is not 0."""
    import torch

    ratio = (logprobs - logprobs.detach()).exp()
    a = advantages.repeat_interleave(len(logprobs) // len(advantages))
    return -torch.minimum(ratio * a, ratio.clamp(1 - CLIP, 1 + CLIP) * a).mean()


def plain(hidden: Any, weight: Any, targets: Any, advantages: Any, bonus: float) -> Any:
    import torch

    logp = torch.log_softmax((hidden @ weight.T).float(), -1)
    loss = clipped(logp.gather(1, targets[:, None]).squeeze(1), advantages)
    return loss + bonus * (logp.exp() * logp).sum(-1).mean() if bonus else loss


def ecrl(hidden: Any, weight: Any, targets: Any, advantages: Any, bonus: float) -> Any:
    from ecrl.policy.lm_head import token_stats

    logprobs, entropy = token_stats(hidden, weight, targets)
    loss = clipped(logprobs, advantages)
    return loss - bonus * entropy.mean() if bonus else loss


def liger(hidden: Any, weight: Any, targets: Any, advantages: Any, bonus: float) -> Any:
    import torch
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

    shape = len(advantages), len(targets) // len(advantages)
    function = LigerFusedLinearGRPOLoss(
        beta=0.0, epsilon_low=CLIP, epsilon_high=CLIP, loss_type="dapo", use_ref_model=False,
        compiled=hidden.device.type == "cuda",
    )  # fmt: skip
    mask = torch.ones(shape, device=hidden.device)
    loss, _ = function(hidden.view(*shape, -1), weight, targets.view(shape), mask, advantages)
    return loss


VERSIONS: dict[str, Callable[..., Any]] = {"plain": plain, "ecrl": ecrl, "liger": liger}


# ------------------------------------------------------------------ one measurement


def field(path: str, name: str) -> int:
    """Read a `name: 123 kB` line of a file in /proc; return bytes."""
    line = next(line for line in Path(path).read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def limit_memory() -> None:
    """Limit this process's memory, so that an allocation fails before the kernel kills a process."""
    import resource

    limit = field("/proc/self/status", "VmSize") + field("/proc/meminfo", "MemAvailable") - RESERVE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    Path("/proc/self/oom_score_adj").write_text("1000")


def make_inputs(size: Size) -> list[Any]:
    import torch

    torch.manual_seed(0)
    kind = {"device": size.device, "dtype": torch.bfloat16 if size.device == "cuda" else torch.float32}
    hidden = torch.randn(size.tokens, size.hidden, **kind).requires_grad_()
    weight = torch.empty(size.vocabulary, size.hidden, **kind).normal_(0, 0.02).requires_grad_()
    targets = torch.randint(size.vocabulary, (size.tokens,), device=size.device)
    return [hidden, weight, targets, torch.randn(max(1, size.tokens // SEQUENCE), device=size.device)]


def worker(which: str, case: str, size: Size) -> dict[str, Any]:
    """Measure one forward and backward in this process."""
    import torch

    bonus = 0.0 if case == "loss" else BONUS
    # A first call sets up thread pools, libraries and kernels before the baseline is read.
    VERSIONS[which](*make_inputs(Size(64, 512, size.hidden, size.device)), bonus).backward()
    inputs = make_inputs(size)
    cuda = size.device == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        limit_memory()
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = field("/proc/self/status", "VmRSS")
    start = time.perf_counter()
    loss = VERSIONS[which](*inputs, bonus)
    loss.backward()
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated() if cuda else field("/proc/self/status", "VmHWM")
    return {
        "seconds": seconds,
        "gib": (peak - before) / GIB,
        "loss": float(loss.detach()),
        "gradients": [float(t.grad.float().norm()) for t in inputs[:2]],
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
    }


def run_worker(arguments: argparse.Namespace) -> None:
    import torch

    try:
        size = Size(arguments.tokens, arguments.vocabularies[0], arguments.hidden, arguments.device)
        print(json.dumps(worker(arguments.worker, arguments.case, size)))
    except ModuleNotFoundError as error:
        sys.exit(NOT_INSTALLED if error.name in ("liger_kernel", "triton") else str(error))
    except (torch.OutOfMemoryError, MemoryError):
        sys.exit(DOES_NOT_FIT)
    except RuntimeError as error:  # the CPU allocator's
        if "memory" not in str(error).lower():
            raise
        sys.exit(DOES_NOT_FIT)


# ------------------------------------------------------------------ all of them


def measure(which: str, case: str, size: Size) -> dict[str, Any] | str:
    """Run a worker; return its result, or a string that says why there is none."""
    command = [
        sys.executable, __file__, "--worker", which, "--case", case, "--tokens", str(size.tokens),
        "--vocabularies", str(size.vocabulary), "--hidden", str(size.hidden), "--device", size.device,
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600)
    if done.returncode == NOT_INSTALLED:
        return "not installed"
    if done.returncode in (DOES_NOT_FIT, -9):  # -9: the kernel killed it when memory ran out
        return "does not fit"
    done.check_returncode()
    result: dict[str, Any] = json.loads(done.stdout)
    print(f"{size.vocabulary} {case} {which}: {result['seconds']:.2f} s, {result['gib']:.2f} GiB", flush=True)
    return result


def compare(case: str, size: Size, rounds: int) -> dict[str, list[Any]]:
    """Run the versions in turns; a version without a result is not run again."""
    versions = CASES[case]
    runs: dict[str, list[Any]] = {which: [] for which in versions}
    for index in range(rounds):
        turn = index % len(versions)
        for which in versions[turn:] + versions[:turn]:
            if not any(isinstance(run, str) for run in runs[which]):
                runs[which].append(measure(which, case, size))
    check_same([run[0] for run in runs.values() if isinstance(run[0], dict)], size.device)
    return runs


def check_same(results: list[dict[str, Any]], device: str) -> None:
    """Stop if the versions' gradients differ."""
    tolerance = 2e-2 if device == "cuda" else 1e-3  # of norms; bfloat16 on CUDA
    for result in results[1:]:
        pairs = zip(result["gradients"], results[0]["gradients"], strict=True)
        if any(abs(a - b) > tolerance * abs(b) for a, b in pairs):
            raise SystemExit(f"The versions disagree: {results}")


def median(runs: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(run[key] for run in runs))


def median_and_range(runs: list[dict[str, Any]], key: str) -> str:
    values = [run[key] for run in runs]
    return f"{median(runs, key):.2f} ({min(values):.2f}–{max(values):.2f})"


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| vocabulary | gradient of | version | seconds | GiB | × time | × memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        base = row["runs"]["plain"]
        for which, runs in row["runs"].items():
            cells = [f"{row['vocabulary']:,}", row["case"], which]
            if isinstance(runs[0], str):
                cells += [runs[0], "", "", ""]
            else:
                cells += [median_and_range(runs, "seconds"), median_and_range(runs, "gib")]
                beside = which != "plain" and not isinstance(base[0], str)
                cells += [
                    f"{median(runs, k) / median(base, k):.2f}" if beside else "" for k in ("seconds", "gib")
                ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[32_000, 151_936])
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--worker", choices=list(VERSIONS), help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_worker(arguments)
        return
    load, rows = os.getloadavg()[0], []
    for vocabulary in arguments.vocabularies:
        size = Size(arguments.tokens, vocabulary, arguments.hidden, arguments.device)
        for case in CASES:
            rows.append({**asdict(size), "case": case, "runs": compare(case, size, arguments.rounds)})
    about = f"{arguments.tokens:,} tokens, hidden size {arguments.hidden}, {arguments.device}"
    print(f"\n{table(rows)}\n\n{about}; median (min–max) of {arguments.rounds}; load before: {load:.1f}.")
    if arguments.output:
        arguments.output.write_text(json.dumps({"load": load, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
