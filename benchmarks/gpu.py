"""Everything to do when a GPU is at hand for three quarters of an hour: one device, one command, no network.

    python benchmarks/gpu.py --output docs/results/gpu                  # all parts, one after the other
    python benchmarks/gpu.py checks large --output docs/results/gpu     # some of them
    python benchmarks/gpu.py --smoke --output /tmp/gpu                  # all parts, tiny, also on a CPU

| part | minutes | what it measures |
|---|---|---|
| checks | 5 | imports; Triton beside torch, flex attention beside sdpa; recomputation, LoRA, FSDP |
| speed | 9 | updates with each packing and LM head, generation, an iteration beside TRL's |
| training | 8 | `ecrl train` in both precisions; stopped and resumed, it must end with the same bits |
| remedies | 9 | an update of 1.5 billion parameters with each remedy for its speed, and its profile |
| large | 9 | 7 billion parameters in FSDP, 16k tokens: peak beside `ecrl plan`'s; a weight sync |

Each part runs in a process of its own, so that one which hangs or breaks the device does not take the others
with it, and each measurement in its own try. A line for each goes to `results.jsonl` as it comes, and
`results.md` has their tables. What a machine lacks (hydra, trl, …) leaves out what needs it. The code of the
parts is in `gpu_parts/`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from gpu_parts.report import Report, device, versions, write_tables

MINUTES = {"checks": 5, "speed": 9, "training": 8, "remedies": 9, "large": 9}
GRACE = 120  # seconds for the measurement that is under way when a part's time is up


def run_part(name: str, output: Path, smoke: bool) -> None:
    """Run one part in this process; one that cannot be imported leaves a line too."""
    report = Report(output, smoke, 60 * MINUTES[name])

    def measured() -> dict[str, str]:
        import_module(f"gpu_parts.{name}").measure(report)
        return {"outcome": "ended"}

    report.add("Parts", {"part": name}, measured)


def run_apart(name: str, output: Path, smoke: bool) -> None:
    """Run one part in a process of its own, with a limit of time."""
    words = [str(Path(__file__).resolve()), name, "--output", str(output), "--apart"] + ["--smoke"] * smoke

    try:
        code = subprocess.run([sys.executable, *words], timeout=60 * MINUTES[name] + GRACE).returncode
        if code == 0:
            return
        outcome = f"its process ended with code {code}"
    except subprocess.TimeoutExpired:
        outcome = "it took too long"
    Report(output, smoke, 1.0).add("Parts", {"part": name}, lambda: {"failed": outcome})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(MINUTES)}; all if none")
    parser.add_argument("--output", type=Path, default=Path("docs/results/gpu"))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on whatever device there is")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - MINUTES.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(MINUTES)}")
    if device().type == "cpu" and not arguments.smoke:
        raise SystemExit("There is no GPU here; --smoke runs the same on a tiny model.")
    if arguments.apart:
        run_part(arguments.parts[0], arguments.output, arguments.smoke)
        return
    Report(arguments.output, arguments.smoke, 1.0).add("Versions", {}, versions)
    for name in arguments.parts or MINUTES:
        run_apart(name, arguments.output, arguments.smoke)
    print(f"\n{write_tables(arguments.output)}")


if __name__ == "__main__":
    main()
