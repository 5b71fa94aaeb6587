"""`/playground`: what the page is made of, and what it may do."""

import re
import shutil
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from app import main
from app.about import About
from app.cascade.errors import ConfigurationError
from app.features.streaming import playground
from tests.conftest import Serve, key_and_entry

PATH = "/playground"
TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def loaded(client: httpx.Client) -> dict[str, httpx.Response]:
    """The page and all that it loads, by path."""
    found = {PATH: client.get(PATH)}
    names = re.findall(r'\s(?:src|href)="([^"#]+)"', found[PATH].text)
    paths = [urljoin(PATH, name) for name in names]
    for path in paths:
        if path not in found:
            found[path] = client.get(path)
            paths += [urljoin(path, name) for name in re.findall(r'from "(.+)"', found[path].text)]
    return found


def test_the_page_and_what_it_loads_is_served_with_its_media_type(client: httpx.Client) -> None:
    found = loaded(client)
    assert found.pop(PATH).headers["content-type"] == "text/html; charset=utf-8"
    assert len(found) == 6
    for path, answer in found.items():
        assert answer.status_code == 200, path
        assert answer.headers["content-type"] == TYPES[path.rpartition(".")[2]]


def test_it_may_load_and_call_nothing_but_this_service(client: httpx.Client) -> None:
    for path, answer in loaded(client).items():
        allowed = dict(
            directive.split(" ", 1)
            for directive in answer.headers["content-security-policy"].split("; ")
        )
        assert allowed.pop("require-trusted-types-for") == "'script'"
        own = {"script-src", "style-src", "img-src", "connect-src"}
        assert {name for name, value in allowed.items() if value == "'self'"} == own
        others = {name: value for name, value in allowed.items() if name not in own}
        none = ("default-src", "base-uri", "form-action", "frame-ancestors", "trusted-types")
        assert others == dict.fromkeys(none, "'none'"), path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert path.startswith(PATH)


def test_what_the_policy_forbids_is_not_tried(client: httpx.Client) -> None:
    inline = r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:"
    assert not re.search(inline, client.get(PATH).text)
    for path, answer in loaded(client).items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write", answer.text)
        elsewhere = re.sub(r"http://www\.w3\.org/2000/svg", "", answer.text)
        assert "//" not in re.sub(r"(?m)^\s*//.*$|\s//\s.*$", "", elsewhere), path


def test_a_browser_asks_whether_it_has_changed(client: httpx.Client) -> None:
    for path, answer in loaded(client).items():
        assert answer.headers["cache-control"] == "no-cache"
        tag = answer.headers["etag"]
        same = client.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        assert "content-security-policy" in same.headers
        assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_page_is_open_and_the_same_for_everybody(serve: Serve) -> None:
    key, entry = key_and_entry("ann")
    client = serve(api_keys=entry)
    assert client.post("/api/query/stream", json={"query": "hi"}).status_code == 401
    found = client.get(PATH)
    assert found.status_code == 200
    assert found.content == client.get(PATH, headers={"X-API-Key": key}).content


def test_the_page_names_the_service_and_its_name_is_no_markup(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "about", lambda: About("<b>R&D", "1", ""))
    page = serve().get(PATH).text
    assert "<title>&lt;b&gt;R&amp;D" in page
    assert "<b>R" not in page


def test_what_a_file_manager_leaves_is_not_served(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(playground.FOLDER, tmp_path / "page")
    (tmp_path / "page" / ".DS_Store").write_bytes(b"x")
    monkeypatch.setattr(playground, "FOLDER", tmp_path / "page")
    client = serve()
    assert client.get(PATH).status_code == 200
    assert client.get(f"{PATH}/.DS_Store").status_code == 404


@pytest.mark.parametrize(
    ("wanted", "environment", "status"),
    [
        ("", "development", 200),
        ("", "production", 404),
        ("off", "development", 404),
        ("on", "production", 200),
    ],
)
def test_production_serves_it_only_if_told_to(
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    environment: str,
    status: int,
) -> None:
    monkeypatch.setenv("PLAYGROUND", wanted)
    _, entry = key_and_entry("ann")
    client = serve(api_keys=entry, environment=environment)
    for path in (PATH, f"{PATH}/playground.js"):
        assert client.get(path).status_code == status


def test_it_is_served_or_not(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYGROUND", "maybe")
    with pytest.raises(ConfigurationError, match=r"^PLAYGROUND: "):
        serve()


def test_it_is_no_part_of_the_documented_api(client: httpx.Client) -> None:
    assert not any(PATH in path for path in client.get("/openapi.json").json()["paths"])
