"""Shortest paths."""

from __future__ import annotations

import re
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest

from ecrl.envs import Problem
from ecrl.envs.tasks.graph_path import GraphPathEnv
from ecrl.errors import UsageError
from tests.support.environments import problems


@pytest.mark.parametrize("kwargs", [{}, {"nodes": 5, "edges": 5}, {"nodes": 6, "edges": 4, "weight": 9}])
def test_graph_paths_are_shortest_by_enumeration(kwargs: dict[str, Any]) -> None:
    env, rng = GraphPathEnv(**kwargs), np.random.default_rng(0)
    for problem in problems(env, 15):
        edges: dict[tuple[str, str], int] = {}
        for a, b, weight in re.findall(r"([A-Z])-([A-Z])(?::([0-9]))?", problem.prompt):
            edges[a, b] = edges[b, a] = int(weight or 1)
        start, end = re.findall(r": ([A-Z]) to ([A-Z])", problem.prompt)[0]
        assert (start, end) not in edges
        rest = sorted({a for a, _ in edges} - {start, end})
        lengths: dict[str, int] = {}
        for count in range(len(rest) + 1):
            for middle in permutations(rest, count):
                path = [start, *middle, end]
                steps = list(pairwise(path))
                if all(step in edges for step in steps):
                    lengths["-".join(path)] = sum(edges[step] for step in steps)
        best = min(lengths.values())
        assert all((env.score(problem, p).reward == 1.0) == (d == best) for p, d in lengths.items())
        found = {env.solution(problem, rng).rpartition("\n")[2] for _ in range(30)}
        assert found <= {p for p, d in lengths.items() if d == best}


@pytest.mark.parametrize(
    ("response", "reward", "valid"),
    [
        ("A-B-C", 1, 1),
        ("A=0 B=1 D=1 C=2\nA - D - C\n", 1, 1),
        ("A-D-E-C", 0, 1),
        ("A-B-A-B-C", 0, 1),
        ("A-C", 0, 0),
        ("C-B-A", 0, 0),
        ("A-B", 0, 0),
        ("A", 0, 0),
        ("A--B-C", 0, 0),
        ("a-b-c", 0, 0),
        ("A-B-C.", 0, 0),
        ("A-Z-C", 0, 0),
        ("", 0, 0),
    ],
)
def test_graph_path_by_hand(response: str, reward: float, valid: float) -> None:
    from ecrl.envs.tasks.graph_path import Goal

    graph = {"A": "BD", "B": "AC", "C": "BDE", "D": "ACE", "E": "CD"}
    goal = Goal({a: dict.fromkeys(near, 1) for a, near in graph.items()}, "A", "C", 2)
    score = GraphPathEnv().score(Problem("", goal), response)
    assert (score.reward, score.metrics) == (reward, {"valid": valid})


def test_a_graph_without_room_says_so() -> None:
    with pytest.raises(UsageError, match="take fewer"):
        GraphPathEnv(nodes=3, edges=9).reset(seed=0)
