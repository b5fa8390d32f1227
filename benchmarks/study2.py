"""The second study's tables and pages, from its runs or from the packed figures that are committed.

    python benchmarks/study2.py                      # from docs/results/study2/*.parquet
    python benchmarks/study2.py --runs runs/study2   # pack the parts that were run there, then the same

Writes ``docs/results/study2/tables.md`` with the verdict on each claim of protocol.md and the endpoints of each
comparison, the figures beside it, and the page of ``ecrl report`` for each part into ``--pages``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from study2.claims import Verdict, verdicts
from study2.endpoints import ENDPOINTS, table
from study2.pack import pack, unpack
from study2.packed import Runs, read

from ecrl.__main__ import run as ecrl

FOLDER = Path("docs/results/study2")
#: Parts whose arms are compared with their first one.
COMPARED = ("main", "second")
