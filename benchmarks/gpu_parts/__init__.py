"""The parts of `gpu.py`, one a file; each has `measure(report)` and imports what only it needs.

Importing this package makes ecrl importable from a checkout that is not installed.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(1, str(ROOT))
