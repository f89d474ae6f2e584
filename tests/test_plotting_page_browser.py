"""The page of a piece in a headless Chromium of the system, by Playwright; without them these tests skip."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from symusic import Note, Score, Track

from musiclm.plotting import page
from musiclm.rendering.soundfont import bundled
from tests.test_plotting_page import HOSTILE

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install musiclm[browser]")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt-get install chromium"),
]
PHONE = {"viewport": {"width": 400, "height": 800}, "has_touch": True, "is_mobile": True}

Opened = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as library:
        chromium = library.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, tmp_path: Path) -> Iterator[Opened]:
    """Open the page of a score from disk. Whatever the console says, a dialog or a request fails the test in the end."""
    found: list[str] = []
    contexts = []

    def open_page(score: Score, *, title: str = "song.mid", prompt: float | None = None, **options: Any) -> Any:
        file = tmp_path / "song.html"
        file.write_bytes(page.piece_page(score, title=title, prompt=prompt, soundfont=bundled()).encode())
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: found.append(f"console: {message.text}"))
        tab.on("pageerror", lambda error: found.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: (found.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.on(
            "request", lambda request: found.append(request.url) if request.url[:5] not in ("file:", "data:") else None
        )
        tab.goto(file.as_uri())
        until(tab, "!sound.hasAttribute('src') || !isNaN(sound.duration)")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert found == []


def until(tab: Any, expression: str) -> None:
    """Wait until an expression is true. Playwright's own waiting evaluates strings in the page, which its policy refuses."""
    for _ in range(400):
        if tab.evaluate(expression):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(f"not within 20 seconds: {expression}")


def now(tab: Any) -> float:
    return tab.evaluate("now()")


def head(tab: Any) -> float:
    """Return where the playhead is, in pixels from the left edge of the music."""
    return tab.evaluate("head.getBoundingClientRect().left + 1 - sheet.getBoundingClientRect().left - GUTTER")


def num_pixels(tab: Any, colour: str) -> int:
    """Return how many pixels of the picture have a colour, #rrggbb, apart from antialiasing."""
    count = """wanted => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {
        const copy = new OffscreenCanvas(roll.width, roll.height).getContext("2d");
        copy.drawImage(roll, 0, 0);
        const pixels = copy.getImageData(0, 0, roll.width, roll.height).data;
        const own = [1, 3, 5].map(i => parseInt(wanted.slice(i, i + 2), 16));
        let count = 0;
        for (let i = 0; i < pixels.length; i += 4) count += own.every((v, c) => Math.abs(pixels[i + c] - v) < 3);
        done(count);
    })))"""
    return tab.evaluate(count, colour)


@pytest.fixture
def loud(song: Score) -> Score:
    """Give the song at full velocity, so that its notes have the plain colours of their tracks."""
    for track in song.tracks:
        for n in track.notes:
            n.velocity = 127
    return song


def test_it_plays_and_the_playhead_moves_and_pauses(opened: Opened, song: Score):
    tab = opened(song)
    assert (now(tab), head(tab)) == (0, pytest.approx(0, abs=1))
    tab.get_by_role("button", name="Play").click()
    until(tab, "sound.currentTime > 1")
    assert tab.evaluate("sound.duration") >= 16 and not tab.evaluate("sound.muted")
    tab.get_by_role("button", name="Pause").click()
    until(tab, "sound.paused && play.textContent === 'Play'")
    at = now(tab)
    assert at > 1
    assert head(tab) == pytest.approx(at * tab.evaluate("zoom"), abs=2)
    assert float(tab.get_by_role("slider").input_value()) == pytest.approx(at, abs=0.05)
    tab.wait_for_timeout(300)
    assert now(tab) == at


def test_the_view_follows_the_playhead_until_it_is_scrolled_by_hand(opened: Opened, song: Score):
    tab = opened(song, viewport={"width": 500, "height": 800})
    tab.keyboard.press("Space")
    until(tab, "scroller.scrollLeft > 100")
    assert tab.get_by_label("follow").is_checked()
    tab.locator("#scroll").hover()
    tab.mouse.wheel(-400, 0)
    until(tab, "!document.getElementById('follow').checked")


def test_tracks_are_hidden_and_shown(opened: Opened, loud: Score):
    tab = opened(loud)
    colours = ("#3b6fb6", "#d9822b", "#3f9b62")
    before = [num_pixels(tab, colour) for colour in colours]
    assert min(before) > 100
    tab.get_by_label("Chords").uncheck()
    after = [num_pixels(tab, colour) for colour in colours]
    assert after[1] == 0 and after[0] >= before[0] and after[2] == before[2]
    tab.get_by_label("Chords").focus()
    tab.keyboard.press("Space")
    assert [num_pixels(tab, colour) for colour in colours] == before
    assert tab.evaluate("sound.paused"), "space on a checkbox is its own"
    tab.get_by_role("button", name="Hide all").click()
    assert [num_pixels(tab, colour) for colour in colours] == [0, 0, 0]
    assert tab.evaluate("roll.dataset.notes") == "0"


def test_the_prompt_is_paler(opened: Opened, loud: Score):
    from musiclm.plotting import paler

    pale = paler("#3b6fb6", 0.55)
    assert num_pixels(opened(loud), pale) == 0
    tab = opened(loud, prompt=12.0)
    assert num_pixels(tab, pale) > 100 and num_pixels(tab, "#3b6fb6") > 100
    assert "The prompt, to bar 4, is paler" in tab.locator("#about").inner_text()


def test_keys_and_clicks_seek_and_zoom(opened: Opened, song: Score):
    tab = opened(song)
    for keys, seconds in (
        (["ArrowRight"], 2),
        (["ArrowRight", "ArrowLeft", "ArrowRight"], 4),
        (["Shift+ArrowRight"], 6),
        (["Shift+ArrowLeft", "Shift+ArrowLeft"], 2),
        (["ArrowLeft", "ArrowLeft"], 0),
    ):
        for each in keys:
            tab.keyboard.press(each)
        assert now(tab) == pytest.approx(seconds, abs=0.01), keys
    slider = tab.get_by_role("slider")
    slider.focus()
    tab.keyboard.press("End")
    assert now(tab) == pytest.approx(16, abs=0.2)
    assert slider.get_attribute("aria-valuetext").startswith("0:1")
    assert slider.get_attribute("aria-valuetext").endswith("bar 8")
    tab.keyboard.press("Home")
    zoom = tab.evaluate("zoom")
    tab.keyboard.press("+")
    assert tab.evaluate("zoom") == pytest.approx(1.5 * zoom)
    tab.keyboard.press("0")
    assert tab.evaluate("sheet.clientWidth <= scroller.clientWidth")
    for _ in range(12):
        tab.get_by_role("button", name="zoom in").click()
    assert tab.evaluate("zoom") == 400
    assert int(tab.evaluate("roll.dataset.notes")) < song.note_num()
    tab.locator("#roll").click(position={"x": 46 + 800, "y": 100})
    assert now(tab) == pytest.approx(2.0 + tab.evaluate("scroller.scrollLeft") / 400, abs=0.02)
    slider.fill("5")
    assert now(tab) == pytest.approx(5, abs=0.01)


def test_every_control_has_a_name_and_is_reached_by_tab(opened: Opened, song: Score):
    tab = opened(song)
    reached = []
    for _ in range(14):
        tab.keyboard.press("Tab")
        reached.append(
            tab.evaluate("document.activeElement.id || document.activeElement.closest('li')?.innerText || ''")
        )
    assert [name.split("\n")[0].strip() for name in reached[:11]] == [
        *("play", "when", "scroll", "out", "in", "fit", "follow"),
        *("Tune", "Chords", "Drums", "all"),
    ]
    tree = tab.locator("body").aria_snapshot()
    for line in (
        'slider "position"',
        'region "piano roll, scrolls sideways"',
        'img "72 notes on 3 tracks, which are listed below"',
        'checkbox "Tune Flute, 24 notes, C5 to G5" [checked]',
        'checkbox "Drums 24 notes" [checked]',
    ):
        assert line in tree, tree
    assert "8 bars, 72 notes, 16 s." in tree


def test_names_that_are_hostile_run_nothing(opened: Opened, song: Score):
    for name in HOSTILE[:4]:
        track = Track(name, 10)
        track.notes.append(Note(0, 480, 70, 80))
        song.tracks.append(track)
    tab = opened(song, title=HOSTILE[0])
    tab.wait_for_timeout(300)
    assert tab.title() == HOSTILE[0] == tab.locator("h1").inner_text()
    names = tab.locator("#tracks bdi").all_inner_texts()
    assert names == ["Tune", "Chords", "Drums", *HOSTILE[:4]]
    assert tab.locator("img, svg").count() == 0


def test_the_policy_stops_what_would_be_injected(browser, tmp_path: Path, song: Score):
    """Without the policy the same page runs it."""
    text = page.piece_page(song, title="song", soundfont=bundled())
    tab = browser.new_page()
    found: list[str] = []
    tab.on("dialog", lambda dialog: (found.append(dialog.message), dialog.dismiss()))
    injected = (
        "<script>alert('script')</script><img src=x onerror=alert('image')><details open ontoggle=alert('event')>"
    )
    for policy, expected in (("Content-Security-Policy", []), ("X-None", ["event", "image", "script"])):
        changed = text.replace("Content-Security-Policy", policy).replace("<main>", f"<main>{injected}")
        (tmp_path / "a.html").write_bytes(changed.encode())
        tab.goto((tmp_path / "a.html").as_uri())
        tab.wait_for_timeout(500)
        assert sorted(found) == expected
    tab.close()


def test_on_a_phone_nothing_is_cut_and_a_tap_seeks(opened: Opened, song: Score):
    song.tracks[0].name = "A very long name " * 8 + "x" * 90
    tab = opened(song, **PHONE)
    assert tab.evaluate("document.documentElement.scrollWidth") == 400
    assert tab.evaluate("Math.min(...[...document.querySelectorAll('button')].map(b => b.offsetHeight || 99))") >= 40
    tab.locator("#roll").tap(position={"x": 46 + 120, "y": 100})
    until(tab, "now() > 1.9 && now() < 2.1")
    tab.get_by_role("button", name="Play").tap()
    until(tab, "sound.currentTime > 2.3")


def test_colours_are_those_of_the_system(opened: Opened, song: Score):
    grounds = {}
    for scheme in ("light", "dark"):
        tab = opened(song, color_scheme=scheme)
        grounds[scheme] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert num_pixels(tab, {"light": "#ffffff", "dark": "#1d2026"}[scheme]) > 10_000
    assert grounds["light"] != grounds["dark"]
    tab.emulate_media(color_scheme="light")
    assert num_pixels(tab, "#ffffff") > 10_000


def test_without_sound_the_page_says_so_and_can_be_read(opened: Opened, monkeypatch, song: Score):
    monkeypatch.setattr("musiclm.rendering.ogg.to_ogg", lambda score, soundfont: None)
    tab = opened(song)
    assert tab.get_by_role("button", name="Play").is_disabled()
    assert "There is no sound" in tab.get_by_role("status").inner_text()
    tab.keyboard.press("ArrowRight")
    assert head(tab) == pytest.approx(2 * tab.evaluate("zoom"), abs=2)


@pytest.mark.parametrize("options", [{"viewport": {"width": 1280, "height": 900}}, PHONE], ids=["wide", "phone"])
def test_drums_alone_and_a_single_note_are_pages_too(opened: Opened, song: Score, options: dict[str, Any]):
    drums = song.copy()
    drums.tracks = type(song.tracks)([t for t in song.tracks if t.is_drum])
    one = Score(480)
    one.tracks.append(Track("", 0))
    one.tracks[0].notes.append(Note(0, 1, 0, 1))
    for score, num_notes in ((drums, 24), (one, 1)):
        tab = opened(score, **options)
        tab.keyboard.press("0")
        until(tab, f"roll.dataset.notes === '{num_notes}'")
