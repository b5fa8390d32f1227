"""Tables of samples: when they are due, and texts that a table could break."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import pytest
from tensorboard.plugin_util import markdown_to_safe_html

from ecrl.callbacks.monitors.samples import LONGEST, SampleMonitor, cell
from ecrl.engines.base import Completion
from ecrl.rollout.trajectory import Trajectory, Turn
from tests.support.monitors import recording


def test_cells_cannot_break_the_table() -> None:
    text = cell("a|b\n`c` <script> " + "x" * 5000)
    assert "|" not in text and "\n" not in text and "`" not in text and "<script" not in text
    assert len(text) < 1000


def trajectories(count: int) -> Sequence[Trajectory]:
    completion = Completion([5], [-1.0], [1.0], "stop", 0)
    return [
        Trajectory([1], [Turn([], completion)], i, 0, i / 4, True, False, {}, None, f"p{i}", f"r{i}")
        for i in range(count)
    ]


def test_sample_tables_are_due_and_of_the_right_size() -> None:
    texts = []
    for iteration in range(3):
        module = recording(iteration)
        SampleMonitor(every=3, count=2).on_rollout(module, trajectories(6))
        texts.append(module.recorder.flush().texts)
    assert texts[:2] == [{}, {}]
    assert texts[2]["samples"].splitlines()[2:] == [
        "| p0 | r0 | &nbsp; | &nbsp; | 0 |  |",
        "| p3 | r3 | &nbsp; | &nbsp; | 0.75 |  |",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "`a` | b",
        "x < 3 && y > 2",
        "&#124; &lt;b&gt;",
        "# **1** _2_ \\frac{1}{2} [a](b) ~c~ $d$",
        "",
        "<br>\n|",
    ],
)
def test_tensorboard_shows_a_cell_as_it_was(text: str) -> None:
    table = markdown_to_safe_html(f"| head | n |\n|---|---|\n| {cell(text)} | 1 |")
    body = re.search(r"<tbody>\s*<tr>\s*<td>(.*)</td>\s*<td>1</td>\s*</tr>\s*</tbody>", table)
    assert body is not None
    assert html.unescape(body.group(1).replace("<br>", "\n")).strip() == text


def test_long_cells_keep_their_ends() -> None:
    short = cell("a" * LONGEST + "middle" + "b" * LONGEST)
    assert short == "a" * (LONGEST // 2) + " … " + "b" * (LONGEST // 2)
