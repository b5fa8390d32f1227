"""Names of arms: short, and no two the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ecrl.config.compose import build_config
from ecrl.config.limits import leaves
from ecrl.report.names import Named, arm_names, preset_of


def named(*words: str, folders: dict[int, str], **more: Any) -> Named:
    """Return an arm made by overrides, and by further settings."""
    settings = {key: value for key, value, _ in leaves(build_config(list(words)))}
    settings |= {key.replace("__", "."): value for key, value in more.items()}
    return Named({seed: Path("runs", name) for seed, name in folders.items()}, settings)


def names(*arms: Named) -> list[str]:
    return arm_names(arms, {})


@pytest.mark.parametrize("preset", ["kl_cov", "kl_cov_32b", "kl_cov_small", "clip_cov_small"])
def test_a_preset_is_known_by_its_settings(preset: str) -> None:
    settings = named(f"strategy=[{preset}]", folders={0: "a"}).settings
    own = {key.removeprefix("strategy."): value for key, value in settings.items()}
    assert preset_of("strategy", {k: v for k, v in own.items() if k.split(".")[0] in preset}) == preset


def test_folders_then_presets_then_settings() -> None:
    small, plain = ["strategy=[kl_cov_small]"], ["strategy=[]"]
    stamped = "20260102-030405-kl_cov-seed0"
    assert names(named(*plain, folders={0: "plain"}), named(*small, folders={0: "mine"})) == ["plain", "mine"]
    assert names(named(*plain, folders={0: "plain"}), named(*small, folders={0: stamped})) == [
        "plain",
        "kl_cov_small",
    ]
    # A number at the end is a seed only if all folders end with theirs.
    assert names(named(*plain, folders={3: "lr1e-3"}), named(*small, folders={3: "lr1e-4"})) == [
        "lr1e-3",
        "lr1e-4",
    ]
    assert names(named(*plain, folders={3: "a-3"}), named(*small, folders={1: "b1", 2: "b2"})) == ["a", "b"]
    # Seeds in folders of other names.
    assert names(
        named(*plain, folders={1: "x", 2: "y"}), named(*small, folders={1: "z", 2: "w"}, update__lr=1e-5)
    ) == ["no strategy", "kl_cov_small"]
    twice = [
        named(*small, folders={1: "x", 2: "y"}, update__lr=1e-4, env__kwargs__path="/home/me/a.jsonl"),
        named(*small, folders={1: "z", 2: "w"}, update__lr=1e-5, env__kwargs__path="/home/me/b.jsonl"),
    ]
    third = named(*plain, folders={1: "u", 2: "v"})  # what it lacks is in no name
    assert names(*twice, third) == [
        "kl_cov_small, lr=0.0001, path=a.jsonl",
        "kl_cov_small, lr=1e-05, path=b.jsonl",
        "no strategy",
    ]
    clipped = named("objective=gspo", *small, folders={1: "x", 2: "y"})
    assert names(clipped, named(*small, folders={1: "z", 2: "w"})) == [
        "kl_cov_small, gspo",
        "kl_cov_small, grpo",
    ]
    assert names(*[named(*plain, folders={1: "x", 2: "y"})] * 2) == ["no strategy", "no strategy (2)"]


def test_a_changed_preset_is_not_called_by_its_name() -> None:
    arms = [
        named("strategy=[kl_cov_small]", "strategy.kl_cov.fraction=0.2", folders={1: "x", 2: "y"}),
        named("strategy=[kl_cov_small]", folders={1: "z", 2: "w"}),
        named("strategy=[]", folders={1: "u", 2: "v"}),
    ]
    assert names(*arms) == ["kl_cov", "kl_cov_small", "no strategy"]


def test_a_long_name_of_settings_is_cut() -> None:
    own = {f"key{i}": "x" * 30 for i in range(9)}
    arms = [named("strategy=[]", folders={1: "x", 2: "y"}, **own, last=n) for n in range(2)]
    assert len(set(names(*arms))) == 2 and all(len(name) < 55 for name in names(*arms))
