"""The second study's tables and pages, from its runs or from the packed figures that are committed.

    python benchmarks/study2.py                      # from docs/results/study2/*.parquet
    python benchmarks/study2.py --runs runs/study2   # pack the parts that were run there, then the same

Writes into docs/results/study2: ``tables.md``, the verdict on each claim of protocol.md and the endpoints of
each comparison; and for the main comparison and the atlas a folder, the report of ``ecrl report``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

from study2 import laws, mechanism
from study2.claims import verdicts
from study2.endpoints import ARMS, ENDPOINTS, table
from study2.pack import pack, unpack
from study2.packed import Runs, read

from ecrl.report.write import write_report
from ecrl.sweep.definition import NAME

FOLDER = Path("docs/results/study2")
#: Parts and the titles of their pages, in the order of the page of tables.
PARTS = {
    "main": "Main comparison",
    "ablation": "Which tokens are restrained",
    "law": "The law, other algorithms",
    "sizes": "The law, smaller models",
    "easier": "The law, easier problems",
    "second": "Second task",
    "atlas": "Atlas of all methods",
}
#: Parts whose arms are compared with their first one in every endpoint.
COMPARED = ("main", "second")
#: Parts that have a report of their own.
REPORTED = ("main", "atlas")


def main() -> None:
    """Pack what was run, and write tables and pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=Path, help="folder with the output of the sweeps, each as its part")
    parser.add_argument("--unpacked", type=Path, default=Path("runs/study2-unpacked"))
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    output: Path = arguments.output
    for part in PARTS if arguments.runs else ():
        if (arguments.runs / part / NAME).exists():
            pack(arguments.runs / part, output / f"{part}.parquet")
    files = {part: file for part in PARTS if (file := output / f"{part}.parquet").exists()}
    for part in files.keys() & REPORTED:
        unpack(files[part], arguments.unpacked / part)
        title = f"The second study: {PARTS[part].lower()}"
        write_report([arguments.unpacked / part], output / part, title=title)
        (output / part / "curves.csv").unlink()  # its numbers are those of the packed file, in more space
    lines = page({part: read(file) for part, file in files.items()}, output / "mechanism.csv")
    (output / "tables.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"Look at it:  {output / 'tables.md'}")


def page(parts: Mapping[str, Runs], of_mechanism: Path) -> Iterator[str]:
    """Yield the lines of the page of tables."""
    yield "# The second study: tables"
    yield "\nMade by `python benchmarks/study2.py` from the files beside it; the terms are those of the"
    yield "[protocol](protocol.md)."
    yield "\n## Verdicts\n\n| claim | measured | verdict |\n|---|---|---|"
    for verdict in verdicts(parts) if "main" in parts else ():
        yield f"| {verdict.claim} | {verdict.figure} | **{verdict.verdict}** |"
    for part in COMPARED:
        for name, measure in ENDPOINTS.items() if part in parts else ():
            yield f"\n## {PARTS[part]}: {name}\n"
            yield from table(parts[part], measure, ARMS if part == "main" else 0)
    yield "\n## The law, arm by arm\n"
    yield from laws.table({part: runs for part, runs in parts.items() if part != "atlas"})
    if of_mechanism.exists():
        yield "\n## Mechanism: correlation of what predicts the change of entropy with it\n"
        yield from mechanism.table(mechanism.read(of_mechanism))


if __name__ == "__main__":
    main()
