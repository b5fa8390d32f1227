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
from ecrl.errors import UsageError

_MAX_RESPONSE = 1 << 16
_MAX_DRAWS = 1000

#: Weight of each neighbour, by node.
Graph = Mapping[str, Mapping[str, int]]


class Goal(NamedTuple):
    """What a response has to do: walk ``graph`` from ``start`` to ``end`` at the cost ``length``."""

    graph: Graph
    start: str
    end: str
    length: int


class GraphPathEnv(ReasoningEnv):
    """Find a shortest path in an undirected graph.

    Prompt ``A-B B-C A-D: A to C``, a right response ``A-B-C``; with weights ``A-B:3`` the sum of the
    weights counts, else the number of edges. Any shortest path is right. Start and end are no neighbours.
    The last line that is not empty counts.

    Args:
        nodes: 3 to 26.
        edges: edges beyond the ``nodes − 1`` that hold the graph together, 0 to 50; a full graph has no more.
        weight: largest weight of an edge, 1 to 9; 1 draws a graph without weights.
        split: ``train`` or ``val``.
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
        """Draw a tree, further edges, and two nodes that no edge joins."""
        for _ in range(_MAX_DRAWS):
            pairs = self._pairs(rng)
            apart = [p for p in combinations(ascii_uppercase[: self.nodes], 2) if p not in pairs]
            if apart:
                break
        else:
            raise UsageError(
                f"A graph of {self.nodes} nodes and {self.edges} more edges joins all; take fewer."
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
        return Problem(f"{' '.join(texts)}: {start} to {end}\n", goal, key)

    def score(self, problem: Problem, response: str) -> Score:
        """Give 1 for a path along edges, from start to end, of the smallest length."""
        goal: Goal = problem.answer
        path = _parse(response)
        if path is None or (path[0], path[-1]) != (goal.start, goal.end):
            return Score(0.0, {"valid": 0.0})
        if any(b not in goal.graph.get(a, {}) for a, b in pairwise(path)):
            return Score(0.0, {"valid": 0.0})
        length = _length(goal.graph, path)
        # All shortest paths are one answer: a majority vote is on the length.
        return Score(float(length == goal.length), {"valid": 1.0}, str(length))

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Write the distances from the start, nearest first, then the path; the wrong one wanders."""
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
    """Length of the shortest path to every node, nearest first (Dijkstra)."""
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
    """Go back from the end, at each node to a random one of the neighbours on a shortest path."""
    path = [goal.end]
    while path[0] != goal.start:
        here = path[0]
        before = [n for n, w in goal.graph[here].items() if distances[n] + w == distances[here]]
        path.insert(0, before[int(rng.integers(len(before)))])
    return path


def _wander(goal: Goal, rng: np.random.Generator) -> list[str]:
    """Walk to random unseen neighbours; a walk that ends too soon or too well becomes a jump to the end."""
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
    """Read the last line as ``A-B-C``, spaces around the nodes allowed."""
    if len(response) > _MAX_RESPONSE:
        return None
    last = response.strip(whitespace).rpartition("\n")[2]
    path = [node.strip(whitespace) for node in last.split("-")]
    known = all(len(node) == 1 and node in ascii_uppercase for node in path)
    return path if known else None
