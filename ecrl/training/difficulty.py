"""Measures how hard the training problems of a finite set are for a policy: its pass rate on each."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecrl.config.eval_sets import ValidationSet, validation_sets
from ecrl.config.schema import Config
from ecrl.envs.datasets.pass_rates import read_pass_rates
from ecrl.envs.safe_calls import make
from ecrl.errors import UsageError
from ecrl.metrics import MetricsRecorder
from ecrl.rollout.env_pools import TRAIN
from ecrl.rollout.problem_order import ordered_keys
from ecrl.rollout.trajectory import Trajectory
from ecrl.training.datamodule import RolloutDataModule
from ecrl.training.preflight import preflight
from ecrl.training.run import prepare
from ecrl.training.validation import Evaluation, chunks, sampling_of

SAY_EVERY = 30.0  # seconds between lines that say how far the measuring is


@dataclass(frozen=True)
class Difficulty:
    """How hard a set is.

    Attributes:
        path: the file with each problem's pass rate.
        rates: the pass rates ``[P]``.
    """

    path: Path
    rates: NDArray[np.float64]


def measure(config: Config, output: Path, say: Callable[[str], None] = print) -> Difficulty:
    """Answer every training problem of ``config.env`` ``eval.k`` times, and write each one's pass rate.

    What ``output`` already holds is not measured again.

    Args:
        config: the whole configuration; ``eval`` says how answers are drawn.
        output: a JSON-lines file, see ``ecrl.envs.datasets.pass_rates``.
        say: shows a line to the user, from the first process only.

    Raises:
        UsageError: something in the configuration cannot work, the environment has no end, or the file was
            measured with other settings.
    """
    config.eval.sets = {}
    warnings = preflight(config, training=False, splits=("train",))
    keys = _keys(config)
    _check_settings(config, output)
    trainer, module, _ = prepare(config, say, warnings)
    if not module.process_group.is_first:
        say = _silent
    measuring = _Measuring(config, module, keys, output, say)
    trainer.validate(module, datamodule=measuring, verbose=False)
    module.process_group.wait()  # the first process has written the last line
    rates = read_pass_rates(str(output)).rates
    return Difficulty(output, np.asarray([rates[int(key)] for key in dict.fromkeys(keys.tolist())]))


class _Measuring(RolloutDataModule):
    """Answers problems in place of a validation."""

    def __init__(
        self, config: Config, module: Any, keys: NDArray[np.uint64], output: Path, say: Callable[[str], None]
    ) -> None:
        super().__init__(config, module.objective, module.strategies, module.scorer, say)
        self._keys = keys
        self._output = output
        self._say = say

    def _validate(self) -> Evaluation:
        """Answer what was not measured before, chunk by chunk; a chunk is on disk before the next begins."""
        (of,) = self.sets
        group = self.scorer.process_group
        pending = group.first(self._pending)
        begun = said = time.perf_counter()
        overlong = 0
        with self._synced():
            for chunk in chunks(len(pending), of.k):
                problems = [pending[i] for i in chunk]
                sampling, unseen = sampling_of(of), MetricsRecorder()
                drawn = self.collector.collect(TRAIN, problems, of.k, sampling, 0, unseen)
                overlong += sum(t.overlong for t in drawn) // of.k
                if group.is_first:
                    self._write(problems, drawn, of.k)
                now, done = time.perf_counter(), chunk.stop
                if now - said > SAY_EVERY:
                    said, left = now, (now - begun) / done * (len(pending) - done)
                    self._say(f"{done}/{len(pending)} problems, {left / 60:.0f} min left")
        if overlong:
            self._say(f"{overlong} prompts are too long for the policy; their pass rate is 0.")
        return Evaluation({}, {})

    def _pending(self) -> list[int]:
        """Begin the file, or cut off its incomplete last line; return the problems that it lacks."""
        if not self._output.exists():
            self._output.parent.mkdir(parents=True, exist_ok=True)
            self._output.write_text(json.dumps({"measured": _settings(self.config)}) + "\n")
        text = self._output.read_bytes()
        with self._output.open("r+b") as file:
            file.truncate(text.rfind(b"\n") + 1)
        known = set(read_pass_rates(str(self._output)).rates)
        first = dict(reversed([(key, n) for n, key in enumerate(self._keys.tolist())]))
        return sorted(n for key, n in first.items() if key not in known)

    def _write(self, problems: Sequence[int], drawn: Sequence[Trajectory], k: int) -> None:
        right = np.asarray([t.reward >= 1 for t in drawn]).reshape(-1, k)
        with self._output.open("a") as file:
            for number, share in zip(problems, right.mean(1).tolist(), strict=True):
                key = f"{int(self._keys[number]):016x}"
                file.write(json.dumps({"key": key, "pass_rate": share, "answers": k}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def _keys(config: Config) -> NDArray[np.uint64]:
    """Return the hash of each training problem's key ``[P]``, in the order in which a run poses them."""
    env = make(config.env.id, "train", dict(config.env.kwargs))
    keys = ordered_keys(env, config.seed)
    env.close()
    if keys is None:
        raise UsageError(
            f"{config.env.id} makes problems without end, so their pass rates cannot be measured one by one."
        )
    return keys


def _settings(config: Config) -> dict[str, Any]:
    """Return what the measuring depends on, as the file's first line holds it."""
    of: ValidationSet = validation_sets(config)[0]
    drawn = {"k": of.k, "temperature": of.temperature, "top_p": of.top_p, "max_new_tokens": of.max_new_tokens}
    model = {"model": config.model.path, "chat": asdict(config.model.chat)}
    return json.loads(json.dumps({**model, "env": config.env.id, **drawn, "seed": config.seed}))  # type: ignore[no-any-return]


def _check_settings(config: Config, output: Path) -> None:
    """Refuse to go on with a file that was measured with other settings.

    Raises:
        UsageError: names the first that differs.
    """
    if not output.exists():
        return
    theirs, ours = read_pass_rates(str(output)).measured, _settings(config)
    for name in ours:
        if theirs.get(name) != ours[name]:
            raise UsageError(
                f"{output} was measured with {name}={theirs.get(name)!r}, not {ours[name]!r}; choose another "
                "output."
            )


def _silent(line: str) -> None:
    """Say nothing."""
