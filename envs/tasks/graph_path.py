"""Graph path: find a shortest path between two nodes."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from itertools import combinations, pairwise
from string import ascii_uppercase, whitespace
from typing import NamedTuple

import numpy as np

from ecrl.envs.arguments import check_integer
from ecrl.envs.base import Problem, ReasoningEnv, Score, Split
from ecrl.envs.tasks.instructions import ask, final_answer
from ecrl.errors import UsageError

_MAX_RESPONSE = 1 << 16
_MAX_DRAWS = 1000

#: For each node, its neighbours and the weights of the edges to them.
Graph = Mapping[str, Mapping[str, int]]


class Goal(NamedTuple):
    """What a response has to do: find a path in ``graph`` from ``start`` to ``end`` of this ``length``."""

    graph: Graph
    start: str
    end: str
    length: int


class GraphPathEnv(ReasoningEnv):
    """Find a shortest path in an undirected graph.

    A prompt is ``A-B B-C A-D: A to C``, a right response ``A-B-C``. The length of a path is the sum of its
    weights (written as ``A-B:3``), or the number of its edges if there are no weights. Any shortest path is
    right. No edge joins start and end. The last line of a response that is not empty counts.

    Args:
        nodes: number of nodes, 3 to 26.
        edges: number of edges beyond the ``nodes − 1`` that connect the graph, 0 to 50; as many as fit.
        weight: largest weight of an edge, 1 to 9; 1 draws a graph without weights.
        split: ``train`` or ``val``.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(self, *, nodes: int = 6, edges: int = 3, weight: int = 1, split: Split = "train") -> None:
        super().__init__(split=split)
        check_integer("nodes", nodes, 3, 26)
        check_integer("edges", edges, 0, 50)
        check_integer("weight", weight, 1, 9)
        self.nodes = nodes
        self.edges = edges
        self.weight = weight

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw a tree, further edges, and two nodes that no edge joins.

        Raises:
            UsageError: with so many edges, an edge joins every two nodes.
        """
        for _ in range(_MAX_DRAWS):
            pairs = self._pairs(rng)
            apart = [p for p in combinations(ascii_uppercase[: self.nodes], 2) if p not in pairs]
            if apart:
                break
        else:
            raise UsageError(
                f"With {self.edges} more edges, a graph of {self.nodes} nodes has all edges; take fewer."
            )
        graph: dict[str, dict[str, int]] = {name: {} for name in ascii_uppercase[: self.nodes]}
        texts = []
        for i in rng.permutation(len(pairs)).tolist():
            weight = int(rng.integers(1, self.weight + 1))
            a, b = pairs[i]
            graph[a][b] = graph[b][a] = weight
            texts.append(f"{a}-{b}" + (f":{weight}" if self.weight > 1 else ""))
        start, end = rng.permutation(apart[int(rng.integers(len(apart)))]).tolist()
        goal = Goal(graph, start, end, _distances(graph, start)[end])
        asked = sorted((start, end))
        key = f"{' '.join(sorted(texts))}: {asked[0]} to {asked[1]}"
        edges = " ".join(texts)
        lengths = " (its length behind the colon)" if self.weight > 1 else ""
        messages = ask(
            f"An undirected graph has edges{lengths} {edges}. Find a shortest path from {start} to {end}.",
            "the path, written such as A-B-C,",
        )
        return Problem(f"{edges}: {start} to {end}\n", goal, key, messages)

    def score(self, problem: Problem, response: str) -> Score:
        """Give 1 for a shortest path from start to end."""
        goal: Goal = problem.answer
        path = _parse(final_answer(response))
        if path is None or (path[0], path[-1]) != (goal.start, goal.end):
            return Score(0.0, {"valid": 0.0})
        if any(b not in goal.graph.get(a, {}) for a, b in pairwise(path)):
            return Score(0.0, {"valid": 0.0})
        length = _length(goal.graph, path)
        # The length is the answer, so that all shortest paths count as the same in a majority vote.
        return Score(float(length == goal.length), {"valid": 1.0}, str(length))

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Write the distances from the start, nearest first, then the path; a wrong path is too long."""
        goal: Goal = problem.answer
        distances = _distances(goal.graph, goal.start)
        near = [f"{node}={d}" for node, d in distances.items() if d <= goal.length]
        path = _shortest(goal, distances, rng) if correct else _wander(goal, rng)
        return f"{' '.join(near)}\n{'-'.join(path)}"

    def _pairs(self, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Draw the edges, as pairs in alphabetical order."""
        order = [ascii_uppercase[i] for i in rng.permutation(self.nodes).tolist()]
        tree = {_pair(order[i], order[int(rng.integers(i))]) for i in range(1, self.nodes)}
        rest = [p for p in combinations(ascii_uppercase[: self.nodes], 2) if p not in tree]
        more = rng.permutation(len(rest))[: self.edges].tolist()
        return sorted(tree) + [rest[i] for i in more]


def _pair(a: str, b: str) -> tuple[str, str]:
    return (a, b) if a < b else (b, a)


def _distances(graph: Graph, start: str) -> dict[str, int]:
    """Return the length of the shortest path to every node, nearest first (Dijkstra)."""
    found: dict[str, int] = {}
    heap = [(0, start)]
    while heap:
        length, node = heapq.heappop(heap)
        if node not in found:
            found[node] = length
            for neighbour, weight in graph[node].items():
                heapq.heappush(heap, (length + weight, neighbour))
    return found


def _shortest(goal: Goal, distances: Mapping[str, int], rng: np.random.Generator) -> list[str]:
    """Draw a shortest path: from the end, go back to a random neighbour that lies on one."""
    path = [goal.end]
    while path[0] != goal.start:
        here = path[0]
        before = [n for n, w in goal.graph[here].items() if distances[n] + w == distances[here]]
        path.insert(0, before[int(rng.integers(len(before)))])
    return path


def _wander(goal: Goal, rng: np.random.Generator) -> list[str]:
    """Return a wrong path: a random walk that is too long, or start and end alone if it is not."""
    path = [goal.start]
    while path[-1] != goal.end:
        unseen = [n for n in goal.graph[path[-1]] if n not in path]
        if not unseen:
            return [goal.start, goal.end]
        path.append(unseen[int(rng.integers(len(unseen)))])
    return path if _length(goal.graph, path) > goal.length else [goal.start, goal.end]


def _length(graph: Graph, path: list[str]) -> int:
    return sum(graph[a][b] for a, b in pairwise(path))


def _parse(response: str) -> list[str] | None:
    """Read the last line as ``A-B-C``, with spaces allowed around the nodes; None if it is no path."""
    if len(response) > _MAX_RESPONSE:
        return None
    last = response.strip(whitespace).rpartition("\n")[2]
    path = [node.strip(whitespace) for node in last.split("-")]
    known = all(len(node) == 1 and node in ascii_uppercase for node in path)
    return path if known else None
