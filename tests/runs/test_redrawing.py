"""What a user is told whose run kept no tokens."""

from __future__ import annotations

from pathlib import Path

from ecrl.runs.redrawing import how_to_draw_again


def test_from_the_last_checkpoint_before_in_a_copy(tmp_path: Path) -> None:
    run_dir = tmp_path / "my run"
    for iteration in (10, 20, 30):
        (run_dir / "checkpoints" / str(iteration)).mkdir(parents=True)
    copy = f"'{tmp_path}/my run-tokens'"
    assert how_to_draw_again(run_dir, 21).endswith(
        f"cp -r '{run_dir}' {copy} && ecrl train resume={copy} checkpoint=20 log.rollout_tokens=true"
    )
    assert "checkpoint=10 " in how_to_draw_again(run_dir, 20)  # that of iteration 20 comes after its rollout
    without = how_to_draw_again(run_dir, 10)
    assert "no checkpoint before iteration 10" in without and "train it again" in without
