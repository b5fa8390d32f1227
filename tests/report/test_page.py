"""The page: escaped, alone, and in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from ecrl.cli import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_text_is_escaped(runs: Path, tmp_path: Path) -> None:
    evil = '<img src=x onerror="document.title=1">'
    for seed in (1, 2, 3):
        (runs / f"better-{seed}").rename(runs / f"{evil}-{seed}")
    assert main(["report", str(runs), f"output={tmp_path / 'out'}", f"title={evil}"]) == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<img src=x" not in page and page.count("&lt;img src=x") >= 5
    # Nothing comes from elsewhere.
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', page) == [] and "@import" not in page


#: Says in the title what a reader would see, after a click on the second column's head.
PROBE = """<script>addEventListener("load",()=>{
const table=document.querySelector("#final");
const names=()=>[...table.tBodies[0].rows].map(r=>r.cells[0].textContent);
table.querySelectorAll("th")[1].click();const down=names();table.querySelectorAll("th")[1].click();
document.title=JSON.stringify({images:[...document.images].map(i=>[i.naturalWidth,i.clientWidth,i.clientHeight]),
down,up:names(),wide:document.documentElement.scrollWidth-document.documentElement.clientWidth,
heads:[...document.querySelectorAll("h2")].map(h=>h.textContent)})})</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the page in")
@pytest.mark.parametrize("width", [1280, pytest.param(500, marks=pytest.mark.slow)])
def test_the_page_in_a_browser(real_sweep: Path, width: int, tmp_path: Path) -> None:
    assert main(["report", str(real_sweep)]) == 0
    report = real_sweep / "report"
    page = (report / "index.html").read_text()
    probed = tmp_path / "probed.html"
    probed.write_text(page.replace("</main>", f"</main>{PROBE}"))
    dom = browse(f"--window-size={width},900", "--dump-dom", f"file://{probed}")
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)
    assert title is not None
    seen = json.loads(unescape(title[1]))
    assert len(seen["images"]) == len(list(report.glob("*.png"))) >= 8
    assert all(
        natural > 100 and 100 < shown <= width and high > 100 for natural, shown, high in seen["images"]
    )
    assert seen["wide"] <= 0  # nothing sticks out; wide tables scroll by themselves
    assert sorted(seen["down"]) == sorted(seen["up"]) == ["before RL", "grpo", "on_policy"]
    numbers = [n for n in seen["down"] if n != "before RL"]
    assert seen["down"][-1] == "before RL" and [n for n in seen["up"] if n != "before RL"] == numbers[::-1]
    assert {"Final figures", "The entropy law", "Token covariance at the end", "Make it again"} <= {
        *seen["heads"]
    }
    assert "ecrl sweep sweep.yaml" in page and (report / "sweep.yaml").exists()
    picture = tmp_path / "page.png"
    browse(f"--window-size={width},900", f"--screenshot={picture}", f"file://{report / 'index.html'}")
    assert picture.stat().st_size > 10_000


def browse(*words: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
