"""The page `/playground` of an installed service, used in a real Chromium as people use it.

The browser is the machine's own. Where there is none the tests are skipped and the end of the run
says so; CI installs it. What the tests see is in `build/playground` afterwards, for people to look.
"""

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.drive import ACCEPTED, REJECTED, SLOW
from tests.processes import Service, run, serving, wait_for
from tests.variants import ROOT
from tests.workshop import Workshop, rendered

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PICTURES = ROOT / "build" / "playground"
FAILED = "[[both:500]] What is AI?"
HANGING = "[[both:hang]] What is AI?"
STORED = "sessionStorage.length + localStorage.length"
ENDED = re.compile("accepted|rejected|direct|failed|stopped")
DESKTOP, PHONE, NARROW = (1280, 820), (390, 844), (320, 640)
LOOKS: dict[str, tuple[Literal["light", "dark"], tuple[int, int]]] = {
    "light": ("light", DESKTOP),
    "dark": ("dark", DESKTOP),
    "phone": ("dark", PHONE),
}
USUAL = {
    "LEDGER_URL": "memory://",
    "RATE_LIMIT": "1000",
    "UPSTREAM_ATTEMPTS": "1",
    "BREAKER_FAILURES": "1000",
}
"""Tests do not wait for each other's failures."""

Start = Callable[..., Service]


@pytest.fixture(scope="module")
def project(plain: Path, workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service whose package is installed from its wheel: the page comes from there."""
    made = rendered(plain, tmp_path_factory.mktemp("playground") / "service", {})
    workshop.install(made, "--no-editable")
    return made


@pytest.fixture(scope="module")
def start(project: Path) -> Iterator[Start]:
    """Starts the service with some variables; the same ones give the same service."""
    opened: dict[tuple[tuple[str, str], ...], Service] = {}
    with ExitStack() as stack:

        def start(**variables: str) -> Service:
            named = tuple(sorted(variables.items()))
            if named not in opened:
                command = (project / ".venv/bin/my-cascade", "serve", "--port", "0")
                folder = project.parent / f"run-{len(opened)}"
                folder.mkdir()
                shutil.copy(project / "cascade.toml", folder)
                env = {**USUAL, **variables}
                opened[named] = stack.enter_context(serving(*command, cwd=folder, env=env))
            return opened[named]

        yield start


@pytest.fixture(scope="module")
def browser(workshop: Workshop) -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        missing = "no Chromium: install it (Debian has it in the package chromium)"
        assert not os.environ.get("GITHUB_ACTIONS"), missing
        workshop.tell(f"NOT RUN: {Path(__file__).name}, {missing}")
        pytest.skip(missing)
    with sync_playwright() as playwright:
        # Its own sandbox takes rights that containers do not give.
        made = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield made
        made.close()


@dataclass
class Seen:
    """A page, and what its console and the network have seen of it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    urls: list[str] = field(default_factory=list)

    def ask(self, question: str) -> None:
        """By keyboard alone."""
        self.page.keyboard.press("/")
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.type(question)
        self.page.keyboard.press("ControlOrMeta+Enter")

    def ends(self, outcome: str | re.Pattern[str] = ENDED) -> None:
        article = self.page.locator("article")
        expect(article).to_have_attribute("data-outcome", outcome, timeout=15_000)

    def shot(self, name: str) -> None:
        """A picture for people; no barrier for anybody, and nothing to scroll sideways."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")
        told = Axe().run(self.page)
        assert told.violations_count == 0, told.generate_report()
        wide = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide == 0


Open = Callable[..., Seen]


@pytest.fixture
def open_page(browser: Browser, start: Start) -> Iterator[Open]:
    """Opens the page of a service; nothing may go wrong in it until the test ends."""
    pages: list[Seen] = []

    def open_page(
        look: str = "light", size: tuple[int, int] | None = None, **variables: str
    ) -> Seen:
        scheme, usual = LOOKS[look]
        width, height = size or usual
        context = browser.new_context(
            color_scheme=scheme,
            viewport={"width": width, "height": height},
            reduced_motion="reduce",
        )
        seen = Seen(context.new_page())
        pages.append(seen)

        def note(message: Any) -> None:  # noqa: ANN401
            # Chromium tells of each refusal, which the page shows.
            if message.type == "error" and not message.text.startswith("Failed to load resource"):
                seen.errors.append(message.text)

        seen.page.on("console", note)
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.on("request", lambda request: seen.urls.append(request.url))
        seen.page.goto(f"{start(**variables).url}/playground")
        expect(seen.page.locator("#source")).to_have_text(re.compile("simulator|live"))
        return seen

    yield open_page
    for seen in pages:
        seen.page.context.close()
        assert seen.errors == []


# --- what becomes of a query ----------------------------------------------------------------------


@pytest.mark.parametrize("look", LOOKS)
def test_an_accepted_draft_is_the_answer(look: str, open_page: Open) -> None:
    seen = open_page(look)
    seen.ask(ACCEPTED)
    seen.ends("accepted")
    page = seen.page
    expect(page.locator(".step.draft .state")).to_have_text("the answer")
    expect(page.locator(".step.draft .text")).to_contain_text("artificial intelligence")
    expect(page.locator(".judged")).to_have_text("accepted")
    assert all(float(text) > 0.4 for text in page.locator(".meters b").all_text_contents())
    expect(page.locator(".reason")).to_contain_text("checks passed")
    expect(page.locator(".saving")).to_contain_text("%) saved")
    expect(page.locator(".cost")).to_contain_text("$0.0000")
    expect(page.locator("dl")).to_contain_text("simulator-small")
    expect(page.locator("del")).to_have_count(0)
    expect(page.locator("#status")).to_contain_text("Draft accepted. simulator-small: AI")
    seen.shot(f"accepted-{look}")


@pytest.mark.parametrize("look", LOOKS)
def test_a_rejected_draft_is_struck_out_and_replaced(look: str, open_page: Open) -> None:
    seen = open_page(look)
    seen.ask(REJECTED)
    seen.ends("rejected")
    page = seen.page
    expect(page.locator(".step.draft del")).to_contain_text("not sure")
    expect(page.locator(".step.draft .state")).to_have_text("withdrawn")
    expect(page.locator(".judged")).to_have_text("rejected")
    expect(page.locator(".step.verifier .state")).to_have_text("the answer")
    expect(page.locator(".step.verifier .text")).to_contain_text("SQL databases keep data")
    expect(page.locator(".saving")).to_contain_text("lost")
    seen.shot(f"rejected-{look}")


@pytest.mark.parametrize("look", LOOKS)
def test_a_failed_query_says_why_and_can_be_asked_again(look: str, open_page: Open) -> None:
    seen = open_page(look)
    seen.ask(FAILED)
    seen.ends("failed")
    page = seen.page
    expect(page.locator(".problem h3")).to_have_text("Bad Gateway")
    expect(page.locator(".problem .detail")).to_contain_text("simulator-large gave no answer")
    expect(page.locator(".judged")).to_have_text("no draft")
    seen.shot(f"failed-{look}")
    page.locator(".problem button").click()
    expect(page.locator("#history li")).to_have_count(2)
    seen.ends("failed")


def test_a_draft_is_read_before_it_is_withdrawn(open_page: Open) -> None:
    seen = open_page()
    seen.ask(f"[[both:slow]] {REJECTED}")
    draft = seen.page.locator(".step.draft")
    expect(draft.locator(".text")).to_contain_text("I'm not")
    assert draft.get_attribute("data-state") == "writing"
    expect(draft.locator("del")).to_be_visible(timeout=15_000)
    expect(seen.page.locator(".step.verifier .state")).to_have_text("writing…")
    seen.page.keyboard.press("Escape")
    seen.ends("stopped")


def test_the_verifier_can_be_asked_at_once_and_text_be_held_back(open_page: Open) -> None:
    seen = open_page()
    page = seen.page
    page.get_by_text("Options").click()
    page.get_by_label("Hold text back").check()
    seen.ask(REJECTED)
    seen.ends("rejected")
    expect(page.locator(".step.draft .state")).to_have_text("held back")
    expect(page.locator(".step.draft .text")).to_be_empty()
    page.get_by_label("Verifier only").check()
    page.get_by_label("Tokens at most").fill("5")
    seen.ask(ACCEPTED)
    seen.ends("direct")
    expect(page.locator(".step")).to_have_count(1)
    expect(page.locator("dl")).to_contain_text("Cut off")


def test_a_draft_that_comes_back_replaces_the_verifier(
    open_page: Open, project: Path, tmp_path: Path
) -> None:
    text = (project / "cascade.toml").read_text(encoding="utf-8")
    lenient = tmp_path / "cascade.toml"
    wanted = 'on_verifier_failure = "draft"'
    lenient.write_text(re.sub("(?m)^on_verifier_failure.*$", wanted, text), encoding="utf-8")
    seen = open_page(CASCADE_FILE=str(lenient))
    seen.ask("[[drafter:poor]] [[verifier:cut]] What is AI?")
    seen.ends("rejected")
    page = seen.page
    expect(page.locator(".outcome b")).to_have_text("Rejected draft kept")
    states = page.locator(".step .state")
    expect(states).to_have_text(["withdrawn", "withdrawn", "rejected, but all there is"])
    expect(page.locator(".step.draft .text").last).to_contain_text("not sure")


def test_the_session_is_added_up_and_kept_in_a_list(open_page: Open) -> None:
    seen = open_page()
    page = seen.page
    for question in (ACCEPTED, REJECTED, FAILED):
        seen.ask(question)
        seen.ends()
    expect(page.locator("#rate")).to_have_text("50 %")
    expect(page.locator("#rate-of")).to_have_text("1 of 2")
    expect(page.locator("#rate-chart")).to_have_attribute(
        "aria-label", "Drafts accepted, after each: 100 %, 50 %"
    )
    expect(page.locator("#saved-chart circle")).to_have_count(2)
    expect(page.locator("#history .asked")).to_have_text([FAILED, REJECTED, ACCEPTED])
    # By keyboard: what is walked to is shown.
    page.locator("#history [aria-current]").focus()
    for keyname, question in (("End", ACCEPTED), ("ArrowUp", REJECTED), ("Home", FAILED)):
        page.keyboard.press(keyname)
        expect(page.locator("article h2")).to_have_text(question)
    page.reload()
    expect(page.locator("#history li")).to_have_count(0)


def test_what_is_asked_and_answered_is_never_markup(open_page: Open) -> None:
    seen = open_page()
    hostile = "<img src=x onerror=alert(1)> <b>What</b> is AI?"
    seen.ask(hostile)
    seen.ends()
    expect(seen.page.locator("article h2")).to_have_text(hostile)
    expect(seen.page.locator("#stage img, #history img")).to_have_count(0)


# --- stopping, and breaking off -------------------------------------------------------------------


def test_escape_stops_the_query_in_the_service_too(open_page: Open, start: Start) -> None:
    seen = open_page()
    before = outcomes(start()).get("cancelled", 0)
    seen.ask(HANGING)
    expect(seen.page.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    seen.page.keyboard.press("Escape")
    seen.ends("stopped")
    wait_for(lambda: outcomes(start()).get("cancelled", 0) == before + 1)
    expect(seen.page.get_by_role("button", name="Stop", exact=True)).to_be_hidden()
    expect(seen.page.locator("#question")).to_be_focused()


def outcomes(service: Service) -> dict[str, int]:
    found: dict[str, int] = httpx.get(f"{service.url}/api/stats").json()["outcomes"]
    return found


def test_a_stream_that_breaks_off_is_told(open_page: Open, start: Start) -> None:
    doomed = {"MAX_QUERY_CHARS": "1999"}
    seen = open_page(**doomed)
    seen.ask(SLOW)
    expect(seen.page.locator(".step .text")).not_to_be_empty()
    os.killpg(start(**doomed).process.pid, signal.SIGKILL)
    seen.ends("failed")
    expect(seen.page.locator(".problem h3")).to_have_text("The stream broke off")
    expect(seen.page.locator(".step.draft .state")).to_have_text("no answer")
    seen.ask(ACCEPTED)
    expect(seen.page.locator(".problem h3")).to_have_text("No connection")


# --- keys, limits, budgets ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_key(project: Path) -> tuple[str, str]:
    """An API key, and its entry in API_KEYS."""
    told = run(project / ".venv/bin/my-cascade", "keys", "create", "me", "--entry", cwd=project)
    key, entry = (line.partition(":")[2].strip() for line in told.strip().splitlines())
    return key, entry


def test_a_key_is_asked_for_and_sent_in_a_header(
    open_page: Open, made_key: tuple[str, str]
) -> None:
    key, entry = made_key
    seen = open_page(API_KEYS=entry)
    page = seen.page
    seen.ask(ACCEPTED)
    expect(page.get_by_role("dialog")).to_contain_text("This service needs an API key")
    seen.shot("key")
    page.keyboard.type(key)
    page.keyboard.press("Enter")
    # What was refused is asked again.
    seen.ends("accepted")
    assert not any(key in url for url in seen.urls)
    assert page.evaluate(STORED) == 0
    page.reload()
    seen.ask(ACCEPTED)
    expect(page.get_by_role("dialog")).to_be_visible()


def test_a_key_is_kept_for_the_tab_only_if_wanted(
    open_page: Open, made_key: tuple[str, str]
) -> None:
    key, entry = made_key
    seen = open_page(API_KEYS=entry)
    page = seen.page
    page.get_by_role("button", name="API key").click()
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_label("Keep it").check()
    page.get_by_role("button", name="Use it").click()
    page.reload()
    seen.ask(ACCEPTED)
    seen.ends("accepted")
    page.get_by_role("button", name="API key").click()
    page.get_by_role("button", name="Forget it").click()
    seen.ask(ACCEPTED)
    seen.ends("failed")
    assert page.evaluate(STORED) == 0


def test_a_limit_counts_down_to_the_next_try(open_page: Open) -> None:
    seen = open_page(RATE_LIMIT="1")
    seen.ask(ACCEPTED)
    seen.ends("accepted")
    seen.ask(ACCEPTED)
    seen.ends("failed")
    expect(seen.page.locator(".problem .detail")).to_contain_text(
        "More than 1 requests in a minute"
    )
    button = seen.page.locator(".problem button")
    expect(button).to_be_disabled()
    expect(button).to_have_text(re.compile(r"Ask again in (\d+ s|1 min)"))


def test_a_budget_that_is_used_up_says_when_it_is_whole(open_page: Open) -> None:
    seen = open_page(DAILY_BUDGET="0.0001")
    seen.ask(ACCEPTED)
    seen.ends("failed")
    expect(seen.page.locator(".problem h3")).to_have_text("Payment Required")
    expect(seen.page.locator(".problem button")).to_have_text(re.compile("Ask again in .+"))


def test_a_field_that_is_wrong_is_named(open_page: Open) -> None:
    seen = open_page(MAX_QUERY_CHARS="10")
    seen.ask(REJECTED)
    seen.ends("failed")
    expect(seen.page.locator(".problem li")).to_contain_text("query: ")


# --- where it is read -----------------------------------------------------------------------------


def test_it_fits_the_narrowest_phone(open_page: Open) -> None:
    seen = open_page("phone", NARROW)
    seen.shot("narrow")
    seen.ask(REJECTED)
    seen.ends("rejected")
    seen.shot("narrow-rejected")


def test_only_the_simulator_is_asked_to_fail(open_page: Open) -> None:
    expect(open_page().page.locator("#faults")).to_be_visible()
    live = open_page(SIMULATOR="off", OPENAI_API_KEY="none").page
    expect(live.locator("#source")).to_have_text("live")
    expect(live.locator("#faults")).to_be_hidden()


def test_an_example_is_asked_by_a_click(open_page: Open) -> None:
    seen = open_page()
    seen.page.get_by_role("button", name="What is AI?", exact=True).click()
    seen.ends("accepted")
