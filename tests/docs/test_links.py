"""The links between the repository's Markdown files, README included, which is no page of the site."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from pymdownx.slugs import slugify

from tests.support.paths import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "benchmarks").glob("*.md"), *(ROOT / "docs").rglob("*.md")]
_slug = slugify(case="lower")


@cache
def anchors(page: Path) -> set[str]:
    """Those of a page's titles."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {_slug(re.sub(r"\[(.+?)\]\(.*?\)", r"\1", title), "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", text):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        assert not anchor or file.suffix != ".md" or anchor in anchors(file), f"{target}#{anchor}"
