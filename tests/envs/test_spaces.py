"""The space of texts."""

from __future__ import annotations

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest

from ecrl.envs.spaces import SharedTexts, Text


def test_text_space() -> None:
    space = Text(5, seed=0)
    assert "" in space
    assert "∀x∈ℝ" in space
    assert "12345" in space
    assert "123456" not in space
    assert 12 not in space
    assert space == Text(5)
    assert hash(space) == hash(Text(5))
    assert space != Text(6)
    assert space != gym.spaces.Text(5)
    assert {len(space.sample()) for _ in range(200)} == {0, 1, 2, 3, 4, 5}
    assert max(len(Text(10_000, seed=0).sample()) for _ in range(200)) <= 64


def test_text_space_samples_by_its_seed() -> None:
    space = Text(1000)
    space.seed(3)
    first = [space.sample() for _ in range(5)]
    space.seed(3)
    twin = pickle.loads(pickle.dumps(space))
    assert [twin.sample() for _ in range(5)] == [space.sample() for _ in range(5)] == first
    assert set("".join(space.sample() for _ in range(500))) == set(map(chr, range(32, 127)))


def test_text_space_refuses_masks_and_bad_lengths() -> None:
    with pytest.raises(ValueError, match="mask"):
        Text(5).sample(mask=(1, None))
    with pytest.raises(ValueError, match="-1"):
        Text(-1)


def test_shared_texts_are_a_view() -> None:
    memory = np.zeros((2, 4), np.int32)
    texts = SharedTexts(memory)
    empty = copy.deepcopy(texts)
    memory[1] = [3, ord("a"), 0x1F600, 0]
    assert tuple(texts) == ("", "a\U0001f600\x00")
    assert texts[0:1] == ("",)
    assert empty == ("", "")
