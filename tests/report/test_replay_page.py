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
        notes=["Not counted: 3."],
    )
    part = [{"prompt": f"<q{row}>", "reward": row / 4} for row in range(4)]
    return replay_page(
        tokens,
        where="runs/x, iteration 7",
        command="ecrl replay runs/x iteration=7",
        strategies=["clip_cov, preset clip_cov_small: fraction=0.02"],
        notes=["A <note>."],
        part=part,
        most=1,
    )


def test_what_the_page_says() -> None:
    text = page(4)
    assert "<title>Replay of runs/x, iteration 7</title>" in text and "A &lt;note&gt;." in text
    assert "8 tokens in 1 minibatches." in text and "<pre>ecrl replay runs/x iteration=7</pre>" in text
    assert "<li>clip_cov, preset clip_cov_small: fraction=0.02</li>" in text
    assert "Not counted: 3." in text.partition("</table>")[2] and text.count("Not counted: 3.") == 1
    text = text.replace("<wbr>", "")
    assert "<td>clip_cov</td><td>2</td><td>25.00%</td><td>0.125</td>" in text
    assert "<td>clip_cov, kl_cov</td><td>1</td><td>50.0%</td><td>100.0%</td>" in text
    assert "1 of 2 chosen tokens, by the size of their covariance." in text
    assert "Row 0: 1 of 4 tokens chosen, underlined" in text and "Row 3: 1 of 4" in text
    assert '<i class="m" tabindex="0" style="--e:1.00;--c:1.00"' in text
    assert 'data-v="entropy 0.125 nats, covariance +0.5000 nats, weight 1 → 0"' in text
    assert "&lt;q3&gt;" in text and "reward 0.75, 4 tokens" in text and "<b>" not in text
    assert '<td>&#x27;a&lt;b&gt; &#x27;</td><td class="prose">weight 1 → 0</td><td>0.5</td>' in text
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text) == []


PROBE = """<script>addEventListener("load",()=>{
const chosen=document.querySelectorAll(".response i")[1];
const shade=()=>getComputedStyle(document.querySelectorAll(".response i")[2]).backgroundColor;
const shades=[shade()];document.querySelector("#t-entropy").click();shades.push(shade());chosen.focus();
parent.postMessage({width:innerWidth,shades,line:getComputedStyle(chosen).textDecorationLine,
said:getComputedStyle(chosen,"::after").content,
prose:getComputedStyle(document.querySelector("td.prose")).textAlign,
done:document.querySelector("td.prose").getBoundingClientRect().right,
hints:[...document.querySelectorAll(".scroll")].map(box=>[box.scrollWidth>box.clientWidth+1,
box.previousElementSibling.offsetHeight>0]),
wide:document.documentElement.scrollWidth-document.documentElement.clientWidth},"*")})</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the page in")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    desk, phone = probed(page(400), PROBE, tmp_path)
    # Tables that go on beyond a phone's screen say so, and none on a desk; what was done is in sight.
    assert all(goes_on == said for seen in (desk, phone) for goes_on, said in seen["hints"])
    assert not any(goes_on for goes_on, _ in desk["hints"]) and phone["hints"][-1] == [True, True]
    assert phone["done"] <= 390 and desk["prose"] == "left"
    for seen in (desk, phone):
        assert seen["wide"] <= 0 and seen["line"] == "underline"
        # Blue below 0, as covariance comes first; then the entropy in orange.
        assert seen["shades"][0].startswith("rgba(0, 114, 178") and seen["shades"][1].startswith(
            "rgba(213, 94, 0"
        )
        assert seen["said"].endswith('weight 1 → 0"')
