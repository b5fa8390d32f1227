"""The page of all keys is what the schema says."""

from __future__ import annotations

from ecrl.config.keys import all_keys
from ecrl.report.configuration_page import as_markdown
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "configuration.md").read_text()


def test_the_page_is_what_the_schema_says() -> None:
    assert as_markdown() == PAGE, (
        "write it anew: python -m ecrl.report.configuration_page > docs/configuration.md"
    )
    for key in all_keys():
        assert f"\n| `{key}` | " in PAGE or f"# {key}\n" in PAGE


def test_a_row_has_type_limits_and_defaults() -> None:
    for row in (
        "| `rollout.max_new_tokens` | whole number, at least 1 | `16`; `1024` with `model.path` |",
        "| `rollout.top_p` | number, in (0, 1] | `1.0` |",
        "| `trainer.parallel` | one of fsdp, ddp | `fsdp` |",
        "| `checkpoint.load` | last, best or an iteration | `last` |",
        "| `strategy` | a list of names | `[kl_cov_small]` |",
        "| `eval.sets.NAME.k` | whole number, at least 1 | – |",
        "| `engine.gpu_memory_utilization` | `0.4` |",
    ):
        assert f"\n{row}" in PAGE
