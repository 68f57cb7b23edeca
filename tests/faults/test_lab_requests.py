"""Requests that the lab's page never sends, and data files that mean it ill."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStoreWriter
from tests.helpers.candidates import make_candidates
from tests.helpers.lab_server import Page, make_inputs, open_page

NASTY = '<script>alert("x")</script>{{ 7 * 7 }}'
ESCAPING = "secret.jpg"


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((48, 36, 3), 99, dtype=np.uint8)).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with HTML for names, images, and links that lead out of their folder."""
    folder = tmp_path_factory.mktemp("lab")
    names = [NASTY, "shoe", "bag"]
    settings = {"class_names": names}
    with PredictionStoreWriter(folder / NASTY[:9], category_ids=[1, 2, 3], settings=settings) as w:
        for image_id in ("a.jpg", ESCAPING, f"{NASTY[:8]}.jpg", "missing.jpg"):
            made: Candidates = make_candidates(3, count=9, categories=2, image_id=image_id)
            made.category_ids[:] += 1
            w.add(made)
    write_image(folder / "images" / "a.jpg")
    write_image(folder / "outside" / ESCAPING)
    (folder / "images" / ESCAPING).symlink_to(folder / "outside" / ESCAPING)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Page]:
    inputs = make_inputs(folder / NASTY[:9], None, images=str(folder / "images"))
    with open_page(inputs, folder) as page:
        yield page


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": "user@127.0.0.1:{port}"},
        {"Host": "127.0.0.1:{port}.evil.example"},
        {"Host": None},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"X-Lab": None},
        {"X-Lab": "0"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_other_pages_and_names_are_refused(page: Page, headers: dict[str, str | None]) -> None:
    given = {key: value and value.format(port=page.port) for key, value in headers.items()}
    for method, path, body in (
        ("GET", "/api/lab", None),
        ("POST", "/api/command", {"settings": page.workspace.start.to_dict()}),
    ):
        status, answered, content = page.request(method, path, body, given)
        assert status == 403, content
        assert b"categories" not in content
        assert "Access-Control-Allow-Origin" not in answered


@pytest.mark.parametrize("path", ["/", "/static/style.css", "/api/photo?index=1"])
def test_what_tags_ask_for_is_refused_to_other_pages_too(page: Page, path: str) -> None:
    headers = {"X-Lab": None}
    assert page.request("GET", path, None, headers)[0] == 200
    for more in (
        {"Host": f"evil.example:{page.port}"},
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ):
        assert page.request("GET", path, None, headers | more)[0] == 403


def test_a_preflight_is_refused(page: Page) -> None:
    headers = {"X-Lab": None, "Origin": "http://evil.example"}
    status, answered, _ = page.request("OPTIONS", "/api/score", None, headers)
    assert status == 403
    assert not [name for name in answered if name.lower().startswith("access-control")]


def test_every_answer_has_the_policy(page: Page) -> None:
    for path in ("/", "/static/style.css", "/api/lab", "/nothing", "/api/photo?index=1"):
        _, headers, _ = page.request("GET", path)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Server"] == "lab"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/static//etc/passwd",
        "/static/",
        "/static/.",
        "/static/style.css/",
        "/static/style.css%00.js",
        "/../../etc/passwd",
        "/static/..\\server.py",
    ],
)
def test_no_path_leads_out_of_the_package(page: Page, path: str) -> None:
    assert page.request("GET", path)[0] == 404


def test_no_link_leads_out_of_the_folder_of_images(page: Page) -> None:
    indices = {one["image_id"]: one["index"] for one in page.get("/api/lab")["image_list"]}
    for kind in ("photo", "thumbnail"):
        status, headers, content = page.request("GET", f"/api/{kind}?index={indices['a.jpg']}")
        assert (status, headers["Content-Type"], content[:2]) == (200, "image/jpeg", b"\xff\xd8")
        for name in (ESCAPING, "missing.jpg"):
            assert page.request("GET", f"/api/{kind}?index={indices[name]}")[0] == 404


@pytest.mark.parametrize(
    "index", ["", "-1", "4", "1.5", "x", "../a.jpg", "9" * 30, "%00", "%D9%A3"]
)
def test_images_are_named_by_index_alone(page: Page, index: str) -> None:
    status, _, content = page.request("GET", f"/api/photo?index={index}")
    assert status == 400
    assert b"index must be" in content


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON"),
        (b"[]", "a JSON object"),
        (b"{", "JSON"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "no number"),
        (b'{"a": 1e999}', "not finite"),
        (b"[" * 200_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b"\xff\xfe{}", "JSON"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a": ' + b"9" * 5000 + b"}", "JSON"),
    ],
    ids=range(11),
)
def test_other_bodies_are_refused(page: Page, body: bytes, message: str) -> None:
    status, _, content = page.request("POST", "/api/score", body)
    assert status == 400
    assert message in json.loads(content)["error"]
    assert content.count(b"\n") == 0


def test_a_large_body_is_refused(page: Page) -> None:
    status, _, _ = page.request("POST", "/api/score", b"{" + b" " * (1 << 20) + b"}")
    assert status == 413
    status, _, _ = page.request("POST", "/api/score", b"", {"Content-Length": str(1 << 40)})
    assert status == 413


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": None}, "settings must be an object"),
        ({"settings": {"score_threshold": 0.5}}, "must be given"),
        ({"settings": {"unknown": 1}}, "postprocess must have keys among"),
        ({"client": 5}, "client must be"),
        ({"client": "x" * 65}, "client must have"),
        ({"sequence": -1}, "sequence must be"),
        ({"sequence": True}, "sequence must be"),
        ({"sequence": 1 << 60}, "sequence must be"),
        ({"index": 99}, "index must be from 0 to 3, got 99"),
        ({"index": True}, "index must be"),
        ({"index": "0"}, "index must be"),
    ],
    ids=str,
)
def test_values_that_are_not_legal_are_named(
    page: Page, change: dict[str, Any], message: str
) -> None:
    status, answer = page.post("/api/image", **({"index": 0} | change))
    assert status == 400
    assert message in answer["error"]


@pytest.mark.parametrize(
    "values",
    [
        {"score_threshold": "${oc.env:HOME}"},
        {"score_threshold": "!!python/object/apply:os.system [id]"},
        {"steps": "${hydra:run}"},
        {"remove_categories": [10**40]},
        {"score_threshold_per_class": {"a" * 5000: 0.5}},
        {"nms_kind": NASTY},
        {"min_area_raster": "1x99999999"},
        {"max_per_image": 10**400},
    ],
    ids=range(8),
)
def test_settings_are_values_and_nothing_else(page: Page, values: dict[str, Any]) -> None:
    settings = {**page.workspace.start.to_dict(), **values}
    status, answer = page.post("/api/image", index=0, settings=settings)
    assert status in (200, 400), answer
    assert "Traceback" not in json.dumps(answer)


def test_names_of_a_data_file_are_text(page: Page) -> None:
    """The page has them from JSON alone; the page itself escapes what the template shows."""
    lab = page.get("/api/lab")
    assert NASTY in [one["name"] for one in lab["categories"]]
    status, headers, content = page.request("GET", "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"alert(" not in content
    assert b"<script>" not in content
    status, headers, content = page.request("GET", "/%3Cscript%3E")
    assert (status, headers["Content-Type"]) == (404, "application/json")
    assert b"<script>" not in content


@pytest.mark.parametrize("name", ["", "../x", "a/b", "x.yaml", "ü", "a" * 200, "x\n", ".", "$(id)"])
def test_other_names_of_settings_are_refused(page: Page, folder: Path, name: str) -> None:
    status, answer = page.post("/api/write_settings", name=name)
    assert status == 400
    assert "name must be" in answer["error"]
    assert not list(folder.rglob("*.yaml"))


def test_a_file_that_the_lab_did_not_write_is_not_overwritten(page: Page, folder: Path) -> None:
    own = folder / "conf" / "postprocess" / "mine.yaml"
    own.parent.mkdir(parents=True)
    try:
        for text in ("score_threshold: 0.7\n", "# Found by python -m src.search.\n", ""):
            own.write_text(text)
            status, answer = page.post("/api/write_settings", name="mine")
            assert status == 400
            assert "is not overwritten" in answer["error"]
            assert own.read_text() == text
        own.unlink()
        for _ in range(2):  # its own it may
            assert page.post("/api/write_settings", name="mine")[0] == 200
        assert own.read_text().startswith("# Chosen in python -m src.lab.\n")
    finally:
        own.unlink(missing_ok=True)
        own.parent.rmdir()


def test_the_state_is_data_and_limited(page: Page, folder: Path) -> None:
    state = {"html": NASTY, "yaml": "!!python/none"}
    assert page.post("/api/session", state=state) == (200, {"saved": True})
    assert page.get("/api/lab")["session"] == state
    for wrong in ([1], "x", None):
        assert page.post("/api/session", state=wrong)[0] == 400
    assert page.post("/api/session", state={"x": "y" * 300_000})[0] == 400
    assert page.get("/api/lab")["session"] == state
    saved = page.workspace.options.session_file
    assert saved is not None
    saved.write_bytes(saved.read_bytes()[:-20])
    assert page.get("/api/lab")["session"] is None


def test_without_the_token_nobody_gets_in(folder: Path) -> None:
    inputs = make_inputs(folder / NASTY[:9], None)
    with open_page(inputs, folder, token="s3cret") as page:
        for path in ("/", "/?token=wrong", "/?token=", "/api/lab", "/static/style.css"):
            assert page.request("GET", path)[0] == 403
        status, headers, _ = page.request("GET", "/?token=s3cret")
        assert (status, headers["Location"]) == (303, "/")
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        with_cookie = {"Cookie": cookie.partition(";")[0]}
        for path in ("/", "/api/lab", "/static/style.css"):
            assert page.request("GET", path, None, with_cookie)[0] == 200
        stranger = {**with_cookie, "Host": f"evil.example:{page.port}"}
        assert page.request("GET", "/api/lab", None, stranger)[0] == 403
