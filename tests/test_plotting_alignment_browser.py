"""The page of an alignment in a headless Chromium of the system, by Playwright; without them these tests skip."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musiclm.plotting import alignment_plot
from tests.test_plotting_alignment import canon, found_in

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install musiclm[browser]")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt-get install chromium"),
]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Any]:
    """Open a page of 16 notes against 16; whatever the console says and any request fail the test in the end."""
    score = canon()
    score.tracks[0].name = "<b>Melody</b>"
    found = found_in(score)
    found.shares[...] = 0.1 * np.eye(16)
    found.shares[1, 0] = np.roll(np.eye(16), 1, 1)
    file, said = tmp_path / "page.html", []
    file.write_text(alignment_plot.page(found, name="m", title="<i>song</i>", note=5, layer=0), "utf-8")
    with playwright.sync_playwright() as library:
        chromium = library.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1000, "height": 1200})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
        page.goto(file.as_uri())
        yield page
        chromium.close()
    assert not said


def test_a_target_note_is_chosen_by_keys_pointer_and_matrix_and_tells_what_it_attends_to(opened):
    assert opened.inner_text("h1") == "<i>song</i>"
    assert "source: <b>Melody</b>" in opened.inner_text("#key")
    assert "bar 2, beat 2 (Bass part) attends to: B5, bar 2, beat 2, 10 %." in opened.inner_text("#description")
    opened.keyboard.press("ArrowRight")
    assert "bar 2, beat 3 (Bass part) attends to: F♯5, bar 2, beat 3, 10 %." in opened.inner_text("#description")
    box = opened.locator("#rolls").bounding_box()
    opened.mouse.move(box["x"] + 60, box["y"] + box["height"] - 30)
    assert opened.get_attribute("#rolls", "data-note") == "0"
    opened.click("#matrix", position={"x": 9, "y": 9 + 9 * opened.locator("#matrix").bounding_box()["height"] / 16})
    assert opened.get_attribute("#rolls", "data-note") == "9"


def test_layer_and_heads_change_what_is_shown(opened):
    opened.locator("#layers button").nth(1).click()
    assert "attends to: F♯5, bar 2, beat 3, 33 %" in opened.inner_text("#description")  # the mean of three heads
    for head in (1, 2):
        opened.locator("#heads button").nth(head).click()
    assert "attends to: F♯5, bar 2, beat 3, 100 %." in opened.inner_text("#description")
    opened.locator("#heads button").nth(0).click()  # one is always shown
    assert "100 %" in opened.inner_text("#description")
