"""The picture of completions: lines, colours, when it is due."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import torch

from ecrl.callbacks.monitors.token_picture import WIDTH, Sample, TokenPicture, draw, drawable, pieces
from tests.support.monitors import faces, plan_of, recording
from tests.support.tokens import make_tokens


def test_pieces_end_where_lines_end() -> None:
    assert list(pieces(WIDTH - 2, 5)) == [(0, WIDTH - 2, 2), (1, 0, 3)]
    assert list(pieces(0, 2 * WIDTH)) == [(0, 0, WIDTH), (1, 0, WIDTH)]


def test_what_the_font_lacks_is_a_box() -> None:
    assert drawable("a b\n") == "a␣b⏎" and drawable("字🙂") == "□□" and drawable("") == "□"


def test_colours_follow_the_numbers() -> None:
    figure = draw([Sample("$x$", ["a", "$b_", "c" * 100], [2.0, -2.0, 0.0], [0.0, 1.0, 0.5])], 2.0, 1.0)
    cov, entropy = faces(figure)
    assert len(cov) == len(entropy) == 4  # the last token spans two lines
    red, blue = cov[:, 0], cov[:, 2]
    assert red[0] > blue[0] + 0.3 and blue[1] > red[1] + 0.3 and abs(red[2] - blue[2]) < 0.05
    brightness = entropy[:, :3].sum(1)
    assert brightness[0] > brightness[2] == brightness[3] > brightness[1]
    figure.savefig(io.BytesIO())  # a dollar sign is not mathematics here


def test_text_lies_on_its_boxes() -> None:
    figure = draw([Sample("", ["m" * WIDTH], [1.0], [1.0])], 1.0, 1.0)
    figure.savefig(io.BytesIO())
    axes = figure.axes[0]
    (line,) = [text for text in axes.texts if len(text.get_text()) == WIDTH]
    assert line.get_window_extent().width == pytest.approx(axes.get_window_extent().width, rel=0.01)


def test_the_picture_is_due_and_spread() -> None:
    tokens = make_tokens([-1.0] * 9, [1.0] * 9, sequences=list(range(9)))
    tokens = replace(tokens, token_ids=torch.arange(20, 29))
    due = []
    for iteration in range(2):
        module = recording(iteration)
        TokenPicture(every=2, count=4).on_plan(module, plan_of(tokens), fresh=True)
        due.append(module.recorder.flush().figures)
    assert not due[0]
    assert [len(column) for column in faces(due[1]["covariance/completions"])] == [4, 4]
    module = recording(1)
    TokenPicture(every=2, count=0).on_plan(module, plan_of(tokens), fresh=True)
    assert not module.recorder.flush().figures
