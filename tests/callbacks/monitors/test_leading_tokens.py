"""The table of tokens with the largest covariance."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ecrl.callbacks.monitors.leading_tokens import LeadingTokens, leaders
from tests.support.monitors import plan_of, recording
from tests.support.tokens import make_tokens


def test_leading_tokens_by_hand() -> None:
    ids = torch.tensor([4, 2, 4, 9, 2])
    rows = leaders(ids, torch.tensor([1.0, -1.0, 2.0, 2.5, 0.5]), torch.tensor([0.1, 0.2, 0.3, 0.4, 0.6]))
    assert [row[:2] for row in rows] == [(4, 2), (9, 1), (2, 2)]
    assert [row[2:] for row in rows] == [pytest.approx(r) for r in [(1.5, 0.2), (2.5, 0.4), (-0.25, 0.4)]]


def test_the_table_is_due_and_shows_text() -> None:
    due = []
    for iteration in range(4):
        module = recording(iteration)
        space, pipe = (module.tokenizer(c, add_special_tokens=False)["input_ids"][0] for c in " |")
        tokens = replace(make_tokens([-1.0, -3.0], [1.0, 0.0]), token_ids=torch.tensor([pipe, space]))
        LeadingTokens(every=2).on_plan(module, plan_of(tokens), fresh=True)
        due.append(module.recorder.flush().texts)
    assert [bool(texts) for texts in due] == [False, True, False, True]
    lines = due[1]["covariance/tokens"].splitlines()
    assert sorted(lines[2:]) == ["| &#124; | 1 | 0.5 | 1 |", "| ␣ | 1 | 0.5 | 1 |"]
