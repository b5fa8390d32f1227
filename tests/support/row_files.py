"""Files of rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
