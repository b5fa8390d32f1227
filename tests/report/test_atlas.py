"""The atlas: what it measures, what it separates, and its place on the page."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ecrl.cli import main
from ecrl.report.atlas import atlas, sentences, table
from ecrl.report.data import MANY, compare
from ecrl.report.runs import group, read_run
from ecrl.runs.commands import Command, save_command
from tests.support.reports import make_run, rows

#: What each arm gains more than the baseline; one is far better, one far worse, the others within the noise.
GAINS = {"plain": 0.0, "entropy_bonus": 0.3, "clip_higher": -0.3, "kl_cov": 0.004}


def make_arms(folder: Path, gains: dict[str, float]) -> list[Path]:
    """Write two seeds of each arm; the noise of the second is 0.01, up or down by turns."""
    paths = []
    for number, (arm, gain) in enumerate(gains.items()):
        for seed in (1, 2):
            noise = 0.01 * (seed - 1) * (-1) ** number
            metrics = rows(seed)
            for row in metrics:
                row |= {"time/validate": 30.0} if row["iteration"] % 2 == 0 else {}
                if row["iteration"]:  # the same start for all
                    row |= {k: v + gain + noise for k, v in row.items() if k.startswith("val/")}
            run = make_run(
                folder / f"{arm}-{seed}", f"seed={seed}", f"update.lr={number + 1}e-5", metrics=metrics
            )
            save_command(run, Command(0, [f"strategy=[{arm}]" if number else "strategy=[]", f"seed={seed}"]))
            paths.append(run)
    return paths


def test_arms_are_grouped_by_what_the_seeds_separate(tmp_path: Path) -> None:
    comparison = compare(group([read_run(path) for path in make_arms(tmp_path, GAINS)], {}), "plain")
    places = atlas(comparison)
    assert [p.arm.name for p in places] == ["plain", "entropy_bonus", "kl_cov", "clip_higher"]
    assert [p.verdict("avg@4") for p in places] == ["not separated", "higher", "not separated", "lower"]
    assert sentences(places)[0] == "avg@4 gained, against plain: 1 higher, 1 not separated, 1 lower."
    base, best = places[0], places[1]
    # Entropy is 0.6·exp(−t/20); its start is the mean of the first 3 iterations, its end that of the last 8.
    start, end = (sum(math.exp(-t / 20) for t in ts) / len(ts) for ts in (range(1, 4), range(33, 41)))
    assert base.kept[1] == pytest.approx(end / start)
    assert best.gained["avg@4"][1] - base.gained["avg@4"][1] == pytest.approx(0.3)
    assert best.against["avg@4"].mean == pytest.approx(0.29)  # −0.01 − 0.01 in the second of two seeds
    # 36 s an iteration, of which 30 s are validation in every second.
    assert base.seconds[1] == pytest.approx(21.0)
    shown = table(places)
    assert [shown.rows[1][c] for c in (0, 1)] == ["entropy_bonus", "1"]
    assert shown.rows[1][5] == "higher" and (1, 4) in shown.strong and (2, 4) not in shown.strong
    assert shown.links == {
        (1, 0): "#method-entropy_bonus",
        (2, 0): "#method-kl_cov",
        (3, 0): "#method-clip_higher",
    }


def test_one_seed_separates_nothing(tmp_path: Path) -> None:
    paths = make_arms(tmp_path, {"plain": 0.0, "entropy_bonus": 0.9})
    places = atlas(
        compare(group([read_run(path) for path in paths if path.name.endswith("-1")], {}), "plain")
    )
    assert [p.verdict("avg@4") for p in places] == ["not separated"] * 2
    assert "–" in table(places).rows[1]


@pytest.mark.slow
def test_many_arms_have_an_atlas(tmp_path: Path) -> None:
    make_arms(tmp_path / "runs", GAINS | {f"arm{n}x": 0.01 * n for n in range(MANY - 3)})
    assert main(["report", str(tmp_path / "runs"), f"output={tmp_path / 'out'}", "baseline=plain"]) == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert 'href="#method-kl_cov"' in page and 'id="method-kl_cov"' in page
    assert page.index("The atlas") < page.index("Final figures")
    assert (tmp_path / "out" / "figures" / "atlas_avg_4.csv").exists()
    assert "## The atlas" in (tmp_path / "out" / "report.md").read_text()
