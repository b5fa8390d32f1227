"""The page of `ecrl replay`: what it says, and how it looks in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ecrl.report.replay_page import replay_page
from ecrl.training.replayed_tokens import ReplayedTokens
from tests.support.browser import CHROMIUM, probed


def page(length: int) -> str:
    """Return the page of two responses of so many tokens; a strategy changed the second token of each."""
    n, chosen = 2 * length, [1, length + 1]
    tokens = ReplayedTokens(
        minibatch=[0] * n,
        row=[0] * length + [3] * length,
        position=[*range(length)] * 2,
        text=["a<b> "] * n,
        token_id=[5] * n,
        covariance=[0.5 if i == 1 else -0.25 for i in range(n)],
        logprob=[-1.0] * n,
        entropy=[0.125] * n,
        advantage=[1.0] * n,
        final_advantage=[1.0] * n,
        low=[0.8] * n,
        high=[1.2] * n,
        weight=[float(i not in chosen) for i in range(n)],
        penalty=[0.0] * n,
        done=["weight 1 → 0" if i in chosen else "" for i in range(n)],
        changed={"clip_cov": chosen, "kl_cov": [1]},
    )
    part = [{"prompt": f"<q{row}>", "reward": row / 4} for row in range(4)]
    return replay_page(tokens, where="runs/x, iteration 7", notes=["A <note>."], part=part, most=1)


def test_what_the_page_says() -> None:
    text = page(4)
    assert "runs/x, iteration 7: 8 tokens in 1 minibatches." in text and "A &lt;note&gt;." in text
    assert "<td>clip_cov</td><td>2</td><td>25.00%</td><td>0.125</td>" in text
    assert "<td>clip_cov, kl_cov</td><td>1</td><td>50.0%</td><td>100.0%</td>" in text
    assert "1 of 2 chosen tokens, by the size of their covariance." in text
    assert "Row 0: 1 of 4 tokens chosen, underlined" in text and "Row 3: 1 of 4" in text
    assert '<i class="m" tabindex="0" style="--e:1.00;--c:1.00"' in text
    assert 'data-v="entropy 0.125 nats, covariance +0.5000 nats, weight 1 → 0"' in text
    assert "&lt;q3&gt;" in text and "reward 0.75, 4 tokens" in text and "<b>" not in text
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text) == []


PROBE = """<script>addEventListener("load",()=>{
const chosen=document.querySelectorAll(".response i")[1];
const shade=()=>getComputedStyle(document.querySelectorAll(".response i")[2]).backgroundColor;
const shades=[shade()];document.querySelector("#t-entropy").click();shades.push(shade());chosen.focus();
parent.postMessage({width:innerWidth,shades,line:getComputedStyle(chosen).textDecorationLine,
said:getComputedStyle(chosen,"::after").content,
wide:document.documentElement.scrollWidth-document.documentElement.clientWidth},"*")})</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the page in")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    for seen in probed(page(400), PROBE, tmp_path):
        assert seen["wide"] <= 0 and seen["line"] == "underline"
        # Blue below 0, as covariance comes first; then the entropy in orange.
        assert seen["shades"][0].startswith("rgba(0, 114, 178") and seen["shades"][1].startswith(
            "rgba(213, 94, 0"
        )
        assert seen["said"].endswith('weight 1 → 0"')
