"""The documentation's site: built without a warning, needs no network, reads well in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ecrl
from tests.support.browser import CHROMIUM, look
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow
PHONE = 390  # pixels


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={site}"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    site = tmp_path_factory.mktemp("docs") / "site"
    done = build(ROOT, site)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return site


def test_a_link_to_nowhere_ends_the_build(tmp_path: Path) -> None:
    for entry in ROOT.iterdir():
        if entry.name not in ("docs", "CONTRIBUTING.md"):
            (tmp_path / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "CONTRIBUTING.md", tmp_path)
    links = "[a](no-page.md) [b](models.md#no-anchor) [c](../configs/no-file.yaml)"
    (tmp_path / "docs" / "guarantees.md").write_text(f"# Guarantees\n\n{links}\n")
    done = build(tmp_path, tmp_path / "built")
    assert done.returncode == 1
    for name in ("no-page.md", "no-anchor", "no-file.yaml"):
        assert re.search(f"WARNING.*{name}", done.stderr), done.stderr


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        fetched = re.findall(
            r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=\"?(https?:[^\s\">]+)", page.read_text()
        )
        assert not fetched, f"{page}: {fetched}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\"?https?:|@import", sheet.read_text()), sheet


def test_links_out_of_the_folder_lead_to_the_repository(site: Path) -> None:
    (address,) = re.findall(r"^repo_url: (\S+)", (ROOT / "mkdocs.yml").read_text(), re.M)
    pages = {page.relative_to(site).as_posix(): page.read_text() for page in site.rglob("*.html")}
    assert f'href="{address}/blob/main/configs/experiment/paper_law.yaml"' in pages["scale.html"]
    assert f'href="{address}/blob/main/benchmarks/README.md"' in pages["results/index.html"]
    assert 'href="../contributing.html#a-strategy-three-files"' in pages["guides/strategy.html"]


def test_every_public_name_has_an_entry(site: Path) -> None:
    page = (site / "api.html").read_text()
    for name in ecrl.__all__:
        assert f'id="ecrl.{name}"' in page, f"{name} has no entry: does its docstring exist?"


def test_examples_are_code_and_defaults_are_values(site: Path) -> None:
    page = (site / "api.html").read_text()
    assert "<blockquote>" not in page and page.count("&gt;&gt;&gt;") + page.count('class="gp"') > 20
    for maker in ("count(", "choice(", "default_factory"):
        assert maker not in re.sub(r"<[^>]+>", "", page), maker


#: Opens the pages in a frame as wide as a phone, then in a wide one, and posts what a reader sees.
PROBE = """<!doctype html><iframe></iframe><script>
const frame = document.querySelector("iframe"), wait = ms => new Promise(done => setTimeout(done, ms));
const loaded = act => new Promise(done => { frame.onload = () => done(frame.contentDocument); act(); });
const open = page => loaded(() => { frame.src = page; });
const width = pixels => { frame.style.width = `${pixels}px`; frame.style.height = "900px"; };
async function look() {
  width(PHONE);
  const wide = {};
  for (const page of PAGES) {
    const {documentElement: whole} = await open(page);
    if (whole.scrollWidth > whole.clientWidth) wide[page] = whole.scrollWidth;
  }
  width(1280);
  const front = await open("index.html");
  const picture = front.querySelector("article img");
  const seen = {wide, title: front.querySelector("h1").firstChild.textContent,
    picture: [picture.naturalWidth, picture.clientWidth],
    box: front.querySelector("input.md-search__input").clientWidth};
  const input = front.querySelector("input.md-search__input");
  input.focus();
  input.value = "update.grad_clip";
  for (let i = 0; i < 200 && !front.querySelector(".md-search-result__item"); i++) {
    input.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true}));
    await wait(100);
  }
  seen.found = [...front.querySelectorAll(".md-search-result__link")].map(link => link.getAttribute("href"));
  const link = [...front.querySelectorAll("nav a")].find(a => a.textContent.trim() === "Metrics");
  seen.went = (await loaded(() => link.click())).querySelector("h1").firstChild.textContent;
  return seen;
}
look().catch(error => ({error: String(error)})).then(
  seen => fetch("seen", {method: "POST", body: JSON.stringify(seen)}));
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the site in")
def test_the_site_in_a_browser(site: Path, tmp_path: Path) -> None:
    pages = sorted(page.relative_to(site).as_posix() for page in site.rglob("*.html"))
    pages.remove("404.html")
    probe = PROBE.replace("PHONE", str(PHONE)).replace("PAGES", json.dumps(pages))
    (site / "probe.html").write_text(probe)
    seen = look(site, "probe.html", tmp_path, timeout=240)
    assert "error" not in seen, seen
    assert seen["wide"] == {}  # nothing sticks out on a phone; wide tables scroll by themselves
    assert seen["title"] == "ecrl" and min(seen["picture"]) > 300
    assert seen["box"] > 100
    assert any("configuration.html" in link for link in seen["found"]), seen
    assert seen["went"] == "Metrics"
