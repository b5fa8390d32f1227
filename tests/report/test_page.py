"""The page: escaped, alone, and in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ecrl.cli import main
from tests.support.browser import CHROMIUM, probed
from tests.support.reports import make_pair


def test_text_is_escaped(runs: Path, tmp_path: Path) -> None:
    evil = '<img src=x onerror="document.title=1">'
    for seed in (1, 2, 3):
        (runs / f"better-{seed}").rename(runs / f"{evil}-{seed}")
    assert main(["report", str(runs), f"output={tmp_path / 'out'}", f"title={evil}"]) == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<img src=x" not in page and page.count("&lt;img src=x") >= 5
    # Nothing comes from elsewhere.
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', page) == [] and "@import" not in page


#: Tells the page around it what a reader would see, after a click on the second column's head and on tokens.
PROBE = """<script>addEventListener("load",()=>{
const table=document.querySelector("#final");
const names=()=>[...table.tBodies[0].rows].map(r=>r.cells[0].textContent);
table.querySelectorAll("th")[1].click();const down=names();table.querySelectorAll("th")[1].click();
const shown=()=>[...document.images].filter(i=>i.clientWidth).map(i=>i.className);
const before=shown();document.querySelector("#x-tokens").click();
const token=document.querySelector(".response i"),shade=()=>getComputedStyle(token).backgroundColor;
const shades=[shade()];document.querySelector("#t-covariance").click();shades.push(shade());token.focus();
parent.postMessage({images:[...document.images].map(i=>[i.naturalWidth,i.clientWidth,i.clientHeight]),
down,up:names(),before,shades,said:getComputedStyle(token,"::after").content,after:shown(),width:innerWidth,
wide:document.documentElement.scrollWidth-document.documentElement.clientWidth,
heads:[...document.querySelectorAll("h2,h3")].map(h=>h.textContent)},"*")})</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the page in")
def test_the_page_in_a_browser(real_sweep: Path, tmp_path: Path) -> None:
    assert main(["report", str(real_sweep)]) == 0
    report = real_sweep / "report"
    page = (report / "index.html").read_text()
    desk, phone = probed(page, PROBE, tmp_path)
    for seen in (desk, phone):
        assert len(seen["images"]) == len(list(report.glob("figures/*.svg"))) > 20
        assert all(natural > 100 for natural, _, _ in seen["images"])
        assert all(100 < w <= seen["width"] and h > 100 for _, w, h in seen["images"] if w)
        assert seen["wide"] <= 0  # nothing sticks out; wide tables scroll by themselves
        # One image of each figure is shown, over the chosen axis.
        assert len(seen["before"]) == len(seen["after"]) == len(list(report.glob("figures/*.csv")))
        assert {*seen["before"]} == {"x-iterations", ""} and {*seen["after"]} == {"x-tokens", ""}
        # A token's background is its entropy, then its covariance; a tap says both.
        assert all(re.fullmatch(r"rgba\(\d+, \d+, \d+, [\d.]+\)", shade) for shade in seen["shades"])
        assert re.match(r'"entropy [\d.]+ nats(, covariance [+-][\d.]+ nats)?"', seen["said"])
    assert sorted(desk["down"]) == sorted(desk["up"]) == ["before RL", "grpo", "on_policy"]
    numbers = [n for n in desk["down"] if n != "before RL"]
    assert desk["down"][-1] == "before RL" and [n for n in desk["up"] if n != "before RL"] == numbers[::-1]
    assert {
        "What these runs cannot say",
        "Final figures",
        "The update",
        "The entropy law",
        "Make it again",
    } <= {*desk["heads"]}
    assert "<td>update.<wbr>minibatches</td>" in page  # a key breaks behind its dots
    assert "ecrl sweep sweep.yaml" in page and (report / "sweep.yaml").exists()


#: Tells how wide the page and the first columns of its tables are, whatever is folded.
WIDTHS = """<script>addEventListener("load",()=>{
document.querySelectorAll("details").forEach(d=>d.open=true);
const width=e=>e.getBoundingClientRect().width;
parent.postMessage({width:innerWidth,
wide:document.documentElement.scrollWidth-document.documentElement.clientWidth,
first:[...document.querySelectorAll("td:first-child")].map(width),
heights:[...document.querySelectorAll("td:first-child")].map(e=>e.clientHeight)},"*")})</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the page in")
def test_long_names_and_a_fork_in_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # rows show folders as given: their height must not depend on it
    names = ["x" * 60, "a-fork-with-a-name-of-more-than-sixty-letters-and-many-hyphens"]
    paths = make_pair(tmp_path, names=names)
    assert main(["report", *(path.name for path in paths), "output=out"]) == 0
    desk, phone = probed((tmp_path / "out" / "index.html").read_text(), WIDTHS, tmp_path)
    for seen, most in ((desk, 26 * 16), (phone, 0.42 * 390)):
        assert seen["wide"] <= 0 and len(seen["first"]) > 50
        assert max(seen["first"]) <= most + 20
        assert min(seen["first"]) > 30 and max(seen["heights"]) < 200
