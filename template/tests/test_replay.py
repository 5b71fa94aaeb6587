"""`replay`: a team's own prompts through the cascade."""

import csv
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from app.cli import cli
from app.http import logs
from tests.conftest import (
    ACCEPTED,
    CASCADE,
    DIRECT,
    REJECTED,
    Answering,
    Stub,
    answer_json,
    cascade_toml,
    eventually,
    said,
)
from tests.served import SOURCE

Run = Callable[..., Result]
SECRET = "the prompt that nobody else should see"
EXAMPLES = CASCADE.parents[1] / "examples" / "prompts.jsonl"


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A file with a prompt of each outcome."""
    path = tmp_path / "prompts.jsonl"
    write(path, ACCEPTED, REJECTED, DIRECT)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, cascade_file: Path, tmp_path: Path) -> Run:
    """Runs the command against models that answer; keywords set variables."""
    monkeypatch.setenv("CASCADE_FILE", str(cascade_file))
    monkeypatch.setenv("SIMULATOR", "off")
    monkeypatch.setenv("UPSTREAM_ATTEMPTS", "1")
    monkeypatch.setenv("LEDGER_URL", f"sqlite:///{tmp_path}/ledger.sqlite3")

    def invoke(*arguments: str | Path, **variables: str) -> Result:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(cli, ["replay", *map(str, arguments)])
        logs.configure("INFO")
        assert "Traceback" not in result.output
        return result

    monkeypatch.setattr(logging, "raiseExceptions", False)
    return invoke


def write(path: Path, *lines: object) -> None:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def kept(path: Path) -> list[dict[str, Any]]:
    """The results in a file, without its first line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[1:]]


def results_of(path: Path) -> Path:
    return path.with_suffix(".replay.jsonl")


def environment(cascade_file: Path) -> dict[str, str]:
    """For the command as a process of its own."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(SOURCE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CASCADE_FILE": str(cascade_file),
        "SIMULATOR": "off",
        "LEDGER_URL": "memory://",
    }


def report_of(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


# --- what it reports ------------------------------------------------------------------------------


def test_it_says_what_the_cascade_would_save(run: Run, prompts: Path) -> None:
    result = run(prompts)
    assert result.exit_code == 0, result.output
    assert "of what simulator-large alone costs" in result.stdout.splitlines()[0]
    assert "3 of 3 prompts answered · 50% of drafts accepted" in result.stdout
    assert "rejected in line" in result.stdout


def test_json_has_the_same_numbers_for_scripts(run: Run, prompts: Path) -> None:
    report = report_of(run(prompts, "--json"))
    assert report["complete"] is True
    assert (report["accepted"], report["rejected"], report["direct"]) == (1, 1, 1)
    assert report["acceptance"] == 0.5
    assert report["saved"] == pytest.approx(report["baseline_cost"] - report["cost"])
    rows = kept(results_of(prompts))
    assert report["cost"] == pytest.approx(sum(float(row["cost"]) for row in rows))
    assert sum(group["answered"] for group in report["by_complexity"].values()) == 3
    assert report["latency_ms"]["cascade"]["count"] == 3
    (rejected,) = report["rejected_drafts"]
    assert (rejected["line"], rejected["reason"]) == (2, rows_by_line(rows)[2]["reason"])


def rows_by_line(rows: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {row["line"]: row for row in rows}


def test_the_result_file_has_the_rejected_draft_and_the_answer(run: Run, prompts: Path) -> None:
    run(prompts)
    row = rows_by_line(kept(results_of(prompts)))[2]
    assert row["outcome"] == "rejected"
    assert row["draft"].startswith("I'm not sure")
    assert row["answer"].startswith("AI")
    assert row["verifier_ms"] <= row["latency_ms"]


def test_csv_has_a_line_for_each_prompt(run: Run, prompts: Path, tmp_path: Path) -> None:
    run(prompts, "--csv", tmp_path / "out.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [row["outcome"] for row in rows] == ["accepted", "rejected", "direct"]
    assert float(rows[0]["saved"]) > 0 > float(rows[1]["saved"])


def test_a_spreadsheet_computes_nothing_of_it(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", {"id": "=1+1", "query": ACCEPTED})
    run(tmp_path / "in.jsonl", "--csv", tmp_path / "out.csv")
    assert "\n1,'=1+1,accepted," in (tmp_path / "out.csv").read_text()


def test_numbers_without_any_answer_are_no_crash(run: Run, prompts: Path, tmp_path: Path) -> None:
    result = run(prompts, "--limit", "0", "--html", tmp_path / "out.html")
    assert result.exit_code == 0
    assert "No prompt is answered yet." in result.stdout


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_neither_the_terminal_nor_a_log_has_prompts_and_answers(
    run: Run, tmp_path: Path, arguments: list[str], logged: list[str]
) -> None:
    path = tmp_path / "in.jsonl"
    write(path, f"[[drafter:poor]] {SECRET}", f"[[both:500]] {SECRET}", {"prompt": 1, "x": SECRET})
    result = run(path, *arguments)
    assert SECRET in results_of(path).read_text()
    assert SECRET not in result.output
    assert "I'm not sure" not in result.output
    assert SECRET not in "\n".join(logged)


def test_only_its_user_can_read_what_it_writes(run: Run, prompts: Path, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    run(prompts, "--html", page)
    for path in (results_of(prompts), page):
        assert path.stat().st_mode & 0o077 == 0 or sys.platform == "win32"


def test_the_example_can_be_tried_at_once(run: Run, tmp_path: Path) -> None:
    result = run(EXAMPLES, "--results", tmp_path / "results.jsonl", "--json")
    assert result.exit_code == 0, result.output
    report = report_of(result)
    assert min(report["accepted"], report["rejected"], report["direct"]) >= 1
    assert len(report["by_complexity"]) >= 4


# --- the page -------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page has: tags, links, and whether all that opens is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_needs_nothing_but_itself(run: Run, prompts: Path, tmp_path: Path) -> None:
    run(prompts, "--html", tmp_path / "out.html")
    page = Page((tmp_path / "out.html").read_text(encoding="utf-8"))
    assert not page.open
    assert not page.addresses
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert page.tags.count("svg") > 8
    words = " ".join(page.words)
    assert "I'm not sure about that one" in words
    assert "The cascade would" in words


def test_the_page_shows_markup_as_text(run: Run, tmp_path: Path) -> None:
    hostile = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
    write(tmp_path / "in.jsonl", {"id": hostile, "query": f"[[drafter:poor]] {hostile}"})
    run(tmp_path / "in.jsonl", "--html", tmp_path / "out.html")
    page = Page((tmp_path / "out.html").read_text(encoding="utf-8"))
    assert not {"script", "img"} & set(page.tags)
    assert hostile in " ".join(page.words)


def test_the_page_can_be_shown_to_others_without_texts(
    run: Run, tmp_path: Path, prompts: Path
) -> None:
    run(prompts, "--html", tmp_path / "out.html", "--no-texts")
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "Rejected drafts" in text
    assert "I&#x27;m not sure" not in text
    assert "poor" not in text


# --- what it reads --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        ACCEPTED,
        {"query": ACCEPTED},
        {"prompt": ACCEPTED, "owner": "a field of yours"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ACCEPTED}]}]},
        {"custom_id": "1", "url": "/v1/chat/completions",
         "body": {"model": "x", "messages": [{"role": "user", "content": ACCEPTED}]}},
    ],
    ids=["text", "query", "prompt", "messages", "batch"],
)  # fmt: skip
def test_a_line_may_have_any_of_these_forms(run: Run, tmp_path: Path, line: object) -> None:
    write(tmp_path / "in.jsonl", line)
    assert report_of(run(tmp_path / "in.jsonl", "--json"))["accepted"] == 1


BAD = {
    b"{": "this is not JSON from column 2 on: write",
    b"[]": "this is neither an object nor a text",
    b'{"question": "x"}': "there is no question in it",
    b'" "': "the last message must be the user's, and not empty",
    b'{"query": 1}': "query: Input should be a valid string",
    b'{"query": "x", "max_tokens": 0}': "max_tokens: Input should be greater than or equal to 1",
    b'{"messages": [{"role": "assistant", "content": "x"}]}': "the last message must be the user's",
    b'{"messages": [{"role": "user", "content": "x"}], "tools": [{}]}': "tools are not replayed",
    b"\xff": "this is not UTF-8: save the file so",
    b'"\\ud800"': "half a surrogate pair",
    b"[" * 100_000: "nested too deeply",
}


def test_bad_lines_are_told_by_number_and_the_others_go_on(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    first = b'\xef\xbb\xbf"What is AI?"\r\n\n'
    path.write_bytes(first + b"\n".join(BAD) + b'\n"What is AI?"')
    result = run(path, "--json")
    assert result.exit_code == 3
    report = report_of(result)
    assert report["answered"] == 2
    assert [each["line"] for each in report["bad_lines"]] == list(range(3, 3 + len(BAD)))
    for number, why in enumerate(BAD.values(), 3):
        assert f"{path}, line {number}: " in result.stderr
        assert why in result.stderr


def test_many_bad_lines_do_not_bury_the_rest(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", *[1] * 500, ACCEPTED)
    result = run(tmp_path / "in.jsonl")
    assert len(result.stderr.splitlines()) < 30
    assert "and 480 more lines that are no prompts" in result.stderr


@pytest.mark.parametrize("text", ["", "\n\n", "{}\n"])
def test_a_file_without_prompts_is_refused(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "in.jsonl").write_text(text)
    result = run(tmp_path / "in.jsonl")
    assert result.exit_code == 1
    assert "there is no prompt in it; write" in result.stderr
    assert not results_of(tmp_path / "in.jsonl").exists()


def test_a_file_that_is_not_there_is_refused(run: Run, tmp_path: Path) -> None:
    result = run(tmp_path / "none.jsonl")
    assert result.exit_code == 1
    assert "none.jsonl: cannot be read (FileNotFoundError)" in result.stderr


@pytest.mark.parametrize("option", ["--results", "--csv", "--html"])
def test_what_is_read_is_never_written_over(run: Run, prompts: Path, option: str) -> None:
    before = prompts.read_bytes()
    result = run(prompts, option, prompts)
    assert result.exit_code == 1
    assert "four different files" in result.stderr
    assert prompts.read_bytes() == before


@pytest.mark.parametrize("text", ['{"a": 1}\n{"b": 2', "notes", '{"replay": 2, "cascade": {}}\n'])
def test_a_file_of_something_else_is_left_as_it_is(
    run: Run, prompts: Path, tmp_path: Path, text: str
) -> None:
    other = tmp_path / "notes.txt"
    other.write_text(text)
    result = run(prompts, "--results", other)
    assert result.exit_code == 1
    assert "is no result file of replay, and is left as it is" in result.stderr
    assert other.read_text() == text


# --- going on -------------------------------------------------------------------------------------


@pytest.fixture
def counting(stub: Callable[[Answering], Stub], tmp_path: Path) -> tuple[Stub, Path]:
    """An upstream that counts what it is asked, and a `cascade.toml` that names it."""
    upstream = stub(answer_stream)
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(upstream.url, upstream.url), encoding="utf-8")
    return upstream, path


async def answer_stream(_: web.Request) -> web.StreamResponse:
    text = "AI is the field of building computer systems that do tasks of human thinking."
    return web.Response(text=f"data: {json.dumps(said(text))}\n\ndata: [DONE]\n\n")


def questions(upstream: Stub) -> list[str]:
    return [request.body["messages"][-1]["content"] for request in upstream.received]


def test_what_is_answered_is_never_asked_again(
    run: Run, prompts: Path, counting: tuple[Stub, Path]
) -> None:
    upstream, path = counting
    write(prompts, "What is AI?", "What is ML?")
    first = report_of(run(prompts, "--json", CASCADE_FILE=str(path)))
    asked = len(upstream.received)
    result = run(prompts, "--json")
    assert "2 are answered already; 0 to ask" in result.stderr
    assert report_of(result) == first
    assert len(upstream.received) == asked


def test_the_same_prompt_twice_is_asked_twice(
    run: Run, prompts: Path, counting: tuple[Stub, Path]
) -> None:
    upstream, path = counting
    write(prompts, "What is AI?", "What is AI?")
    assert report_of(run(prompts, "--json", CASCADE_FILE=str(path)))["answered"] == 2
    assert questions(upstream).count("What is AI?") >= 2


def test_of_a_changed_file_only_what_is_new_is_asked(
    run: Run, prompts: Path, counting: tuple[Stub, Path]
) -> None:
    upstream, path = counting
    write(prompts, "What is AI?", "What is ML?")
    run(prompts, CASCADE_FILE=str(path))
    upstream.received.clear()
    write(prompts, "What is new?", "What is AI?")
    result = run(prompts, "--json")
    assert set(questions(upstream)) == {"What is new?"}
    assert "1 of its results are of no prompt in this replay" in result.stderr
    assert "1 are answered already; 1 to ask" in result.stderr
    assert report_of(result)["answered"] == 2


def test_other_options_are_another_question(run: Run, prompts: Path) -> None:
    run(prompts)
    assert "3 of its results are of no prompt" in run(prompts, "--max-tokens", "50").stderr


def test_results_of_another_cascade_are_told_apart(run: Run, prompts: Path, tmp_path: Path) -> None:
    run(prompts)
    before = results_of(prompts).read_bytes()
    changed = tmp_path / "changed.toml"
    text = CASCADE.read_text().replace("input_price = 2.50", "input_price = 3.75")
    changed.write_text(text.replace("DRAFTER_KEY", "").replace("VERIFIER_KEY", ""))
    result = run(prompts, CASCADE_FILE=str(changed), SIMULATOR="off")
    assert result.exit_code == 1
    assert "has the results of another cascade" in result.stderr
    assert "verifier.input_price was 2.50, is 3.75" in result.stderr
    assert "Give --results another file" in result.stderr
    assert results_of(prompts).read_bytes() == before


def test_what_failed_is_asked_again(
    run: Run, prompts: Path, stub: Callable[[Answering], Stub], tmp_path: Path
) -> None:
    down = True

    async def answer(request: web.Request) -> web.StreamResponse:
        if down:
            return web.Response(status=500)
        return await answer_stream(request)

    upstream = stub(answer)
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(upstream.url, upstream.url), encoding="utf-8")
    write(prompts, "What is AI?")
    failed = run(prompts, "--json", CASCADE_FILE=str(path))
    assert failed.exit_code == 3
    assert report_of(failed)["failures"][0]["line"] == 1
    assert "gave no answer: unavailable (HTTP 500)" in report_of(failed)["failures"][0]["reason"]
    down = False
    assert run(prompts).exit_code == 0


def test_half_a_line_is_mended(run: Run, prompts: Path) -> None:
    run(prompts)
    path = results_of(prompts)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    result = run(prompts)
    assert result.exit_code == 0
    assert "its last line was cut short, and is asked again" in result.stderr
    assert "2 are answered already; 1 to ask" in result.stderr
    assert len(kept(path)) == 3


def test_ctrl_c_keeps_what_is_answered_and_the_same_command_goes_on(
    cascade_file: Path, tmp_path: Path, run: Run
) -> None:
    path = tmp_path / "in.jsonl"
    write(path, *[f"[[both:slow]] What is AI? {number}" for number in range(30)])
    options = ("--concurrency", "3", "--max-tokens", "3")
    command = (sys.executable, "-m", "app", "replay", str(path), *options)
    env = environment(cascade_file)
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    results = results_of(path)
    assert eventually(lambda: results.exists() and results.read_bytes().count(b"\n") > 3)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130, told
    assert "the same command goes on from" in told
    answered = kept(results)
    assert 3 <= len(answered) < 30
    assert all(row["outcome"] != "failed" for row in answered)
    # What was under way is kept: nothing is paid for twice.
    write(path, *[f"[[both:slow]] What is AI? {row['line'] - 1}" for row in answered])
    assert f"{len(answered)} are answered already; 0 to ask" in run(path, *options).stderr


def test_a_kill_loses_only_what_was_under_way(cascade_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    write(path, *[f"[[both:slow]] What is AI? {number}" for number in range(30)])
    options = ("--concurrency", "3", "--max-tokens", "3")
    command = (sys.executable, "-m", "app", "replay", str(path), *options)
    env = environment(cascade_file)
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    results = results_of(path)
    assert eventually(lambda: results.exists() and results.read_bytes().count(b"\n") > 3)
    process.kill()
    process.wait()
    assert results.read_bytes().endswith(b"\n")
    assert len(kept(results)) >= 3


def test_two_runs_do_not_write_the_same_file(
    run: Run, prompts: Path, cascade_file: Path, tmp_path: Path
) -> None:
    write(prompts, "[[both:hang]] What is AI?")
    command = (sys.executable, "-m", "app", "replay", str(prompts))
    env = environment(cascade_file)
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    try:
        results = results_of(prompts)
        assert eventually(lambda: results.exists() and results.stat().st_size > 0)
        second = run(prompts)
    finally:
        process.kill()
        process.wait()
    assert second.exit_code == 1
    assert "another replay is writing it" in second.stderr


# --- limits ---------------------------------------------------------------------------------------


def test_a_limit_asks_the_first_and_no_more(run: Run, prompts: Path) -> None:
    report = report_of(run(prompts, "--limit", "2", "--json"))
    assert (report["prompts"], report["answered"]) == (2, 2)
    assert report_of(run(prompts, "--json"))["answered"] == 3


def test_a_budget_is_never_exceeded_by_all_runs_together(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    write(path, *[f"{DIRECT} {number}" for number in range(20)])
    options = ("--budget", "0.008", "--max-tokens", "200", "--concurrency", "8")
    result = run(path, *options)
    assert result.exit_code == 4
    assert "could exceed the budget of $0.008" in result.stderr
    spent = sum(float(row["cost"]) for row in kept(results_of(path)))
    assert 0.003 < spent <= 0.008
    assert len(kept(results_of(path))) < 20
    assert run(path, *options).exit_code == 4
    assert sum(float(row["cost"]) for row in kept(results_of(path))) <= 0.008


def test_the_services_own_budget_stops_it_too(run: Run, prompts: Path) -> None:
    result = run(prompts, DAILY_BUDGET="0.0001")
    assert result.exit_code == 4
    assert "left of today's budget" in result.stderr
    assert kept(results_of(prompts)) == []


def test_it_is_in_the_books_under_its_own_name(run: Run, prompts: Path) -> None:
    run(prompts)
    assert ",replay,3,1,1,1," in CliRunner().invoke(cli, ["usage", "export"]).stdout


def test_it_gives_up_when_nothing_works(
    run: Run, stub: Callable[[Answering], Stub], tmp_path: Path
) -> None:
    refusing = stub(answer_json({}, 401))
    path = tmp_path / "cascade.toml"
    path.write_text(cascade_toml(refusing.url, refusing.url), encoding="utf-8")
    write(tmp_path / "in.jsonl", *[f"What is {number}?" for number in range(100)])
    result = run(tmp_path / "in.jsonl", "--concurrency", "2", CASCADE_FILE=str(path))
    assert result.exit_code == 4
    assert "10 prompts in a row failed, the last so: The model" in result.stderr
    assert len(kept(results_of(tmp_path / "in.jsonl"))) <= 12


def test_as_many_are_asked_at_a_time_as_it_is_told(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", *[f"[[both:slow]] What is AI? {each}" for each in range(4)])
    began = time.monotonic()
    assert run(tmp_path / "in.jsonl", "--concurrency", "4", "--max-tokens", "2").exit_code == 0
    together = time.monotonic() - began
    began = time.monotonic()
    options = ("--results", tmp_path / "other.jsonl", "--max-tokens", "2", "--concurrency", "1")
    assert run(tmp_path / "in.jsonl", *options).exit_code == 0
    assert time.monotonic() - began > 2 * together


def test_a_disk_that_is_full_stops_it_and_leaves_no_half_line(
    run: Run, cascade_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "in.jsonl"
    write(path, *[f"What is AI? {number}" for number in range(9)])
    # A file that may not grow beyond 2 KiB is as good as a full disk.
    limited = ("sh", "-c", 'ulimit -f 4; exec "$@"', "-", sys.executable)
    process = subprocess.run(
        [*limited, "-m", "app", "replay", str(path)],
        cwd=tmp_path,
        env=environment(cascade_file),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 4, process.stderr
    assert "cannot be written (File too large)" in process.stderr
    assert results_of(path).read_bytes().endswith(b"\n")
    left = 9 - len(kept(results_of(path)))
    assert 0 < left < 9
    assert f"{9 - left} are answered already; {left} to ask" in run(path).stderr
