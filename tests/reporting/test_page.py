"""The page: everything is in it, nothing in it runs, and its numbers are the score's."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from src.metrics.errors import GROUPS, KINDS, MISSED, ErrorAccumulator
from src.metrics.intervals import bootstrap_interval
from src.metrics.scoring import compare, open_ground_truth, open_submission, score_comparison
from src.reporting.examples import choose_examples, load_examples, write_drawings
from src.reporting.gallery import Gallery
from src.reporting.page import Report, render, write_report
from src.reporting.page_images import ComparedImages
from src.reporting.thumbnails import Limits, draw_images
from tests.helpers.report_files import EVIL_NAME, make_data

EVIL_TEXT = "</style><script>alert('x')</script>{{ 7 * 7 }}&amp;"


ELEMENTS = """
html head meta title style body main header footer section article aside h1 h2 h3 p small b i span
div dl dt dd ul li code figure figcaption img table thead tbody tr th td
svg line circle polygon polyline rect text a script noscript
form label select option fieldset legend input button nav dialog
"""


class Page(HTMLParser):
    """Elements, attributes and text of a page; every element is closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.text = [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def make_report(folder, *, images="train", worst=2, best=2, averaging="per_class", **options):
    labels = options.pop("label_descriptions", None)
    images_directory = None if images is None else folder / images
    with (
        open_ground_truth(
            folder / "train.csv", label_descriptions=labels, images_directory=images_directory
        ) as ground_truth,
        open_submission(folder / "submission.csv", ground_truth) as prediction,
    ):
        comparison = compare(ground_truth, prediction, prediction_name="submission.csv")
        names = comparison.labels.category_names
        errors, gallery = ErrorAccumulator(averaging=averaging), Gallery(names)
        score = score_comparison(
            comparison, averaging=averaging, errors=errors, on_errors=gallery.add
        )
        chosen = choose_examples(score, worst=worst, best=best)
        compared = ComparedImages(comparison)
        groups = [load_examples(compared, group, images_directory, names) for group in chosen]
        drawings = draw_images(
            score.image_ids,
            compared,
            gallery,
            images_directory=images_directory,
            limits=options.pop("limits", Limits(max_images=100, max_size_mb=10, image_px=64)),
        )
        return Report(
            title=options.pop("title", "A report"),
            score=score,
            errors=errors.result(),
            interval=bootstrap_interval(score.per_image, num_resamples=200),
            labels=comparison.labels,
            notes=comparison.notes,
            settings=[("Submission", EVIL_TEXT)],
            gallery=gallery,
            drawings=drawings,
            worst=groups[0],
            best=groups[1],
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("report") / "data")


@pytest.fixture(scope="module")
def report(folder):
    return make_report(folder)


@pytest.fixture(scope="module")
def page(report):
    return Page(render(report))


def test_numbers_are_those_of_the_score(report, page):
    text = " ".join(" ".join(page.text).split())
    score = report.score
    assert f"{score.competition_map:.4f}" in text
    assert f"{report.interval.low:.4f} to {report.interval.high:.4f}" in text
    assert "6 images 24 ground-truth instances 23 detections 3 classes" in text
    for key, name in ((4, "jacket"), (31, "sleeve"), (23, "shoe")):
        result = score.classes[key]
        assert (
            f"{key} {name} {result.num_ground_truth} {result.num_detections} 100.0% "
            f"{result.value:.3f}"
        ) in text
    for example in (*report.worst, *report.best):
        assert f"{example.image_id} {example.score:.3f}" in text


def contents(html, tag):
    return re.findall(rf"<{tag}(?: [^>]*)?>(.*?)</{tag}>", html, flags=re.DOTALL)


def sha256(text):
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_nothing_is_fetched_and_only_the_pages_own_script_runs(page, report):
    html = render(report)
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "url(" not in html
    assert "@import" not in html
    assert {tag for tag, _ in page.elements} <= set(ELEMENTS.split())
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert "style" not in attributes
        if tag == "a":
            assert attributes["href"].startswith("#")
        else:
            assert "href" not in attributes
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    (style,), scripts = contents(html, "style"), contents(html, "script")
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{sha256(style)}'; "
        f"script-src 'sha256-{sha256(scripts[-1])}'; base-uri 'none'; form-action 'none'"
    )
    kinds = [attributes["type"] for attributes in page.all("script")]
    assert kinds == ["application/json"] * (len(kinds) - 1) + ["module"]
    assert "innerHTML" not in scripts[-1]


def test_text_from_files_and_settings_is_shown_and_not_obeyed(folder, tmp_path):
    categories = [{"id": number, "name": f"<b>{number}</b>{EVIL_TEXT}"} for number in (4, 23, 31)]
    labels = tmp_path / "labels.json"
    attributes = [{"id": 9, "name": "nine"}]
    labels.write_text(json.dumps({"categories": categories, "attributes": attributes}))
    report = make_report(folder, label_descriptions=labels, title=EVIL_TEXT)
    html = render(report)
    page = Page(html)
    *data, script = contents(html, "script")
    assert script == contents(render(make_report(folder)), "script")[-1], "no text of a file"
    assert len(page.all("script")) == 1 + 1 + 6
    assert not [text for text in data if set(text) & set("<>&")]
    index = json.loads(data[0])
    assert EVIL_NAME in [image["id"] for image in index["images"]]
    assert f"<b>31</b>{EVIL_TEXT}" in [one["name"] for one in index["classes"]]
    text = "".join(page.text)
    assert EVIL_NAME in text
    assert f"<b>31</b>{EVIL_TEXT}" in text
    assert text.count(EVIL_TEXT) >= 5
    assert EVIL_NAME in page.all("img")[0]["alt"]


def test_every_image_has_its_numbers_and_a_drawing(report):
    index, *drawings = map(json.loads, contents(render(report), "script")[:-1])
    score = report.score
    assert [image["id"] for image in index["images"]] == list(score.image_ids)
    assert [image["score"] for image in index["images"]] == pytest.approx(
        score.per_image.tolist(), abs=1e-4
    )
    assert sorted(image["drawing"] for image in index["images"]) == list(range(6))
    for image in index["images"]:
        drawing = drawings[image["drawing"]]
        assert [len(drawing[side]) for side in ("truth", "detections")] == image["counts"]
        jpeg = Image.open(io.BytesIO(base64.b64decode(drawing["jpeg"])))
        assert jpeg.size == (43, 64)
        assert drawing["size"] == [341, 512]
    first = index["images"][index["images"].index(max(index["images"], key=lambda i: i["id"]))]
    assert sum(pair[-1] for pair in first["pairs"]) >= 4


def test_past_a_limit_images_are_listed_without_a_drawing(folder):
    for limits, key in ((Limits(2, 10, 64), "max_images=2"), (Limits(9, 0.012, 64), "max_size_mb")):
        report = make_report(folder, limits=limits)
        html = render(report)
        index, *drawings = map(json.loads, contents(html, "script")[:-1])
        assert len(index["images"]) == 6
        assert 0 < len(drawings) < 6
        assert sum(image["drawing"] >= 0 for image in index["images"]) == len(drawings)
        text = " ".join(" ".join(Page(html).text).split())
        assert f"{len(drawings)} of the 6 images have a drawing, which is as much as {key}" in text


def test_some_images_are_drawn_where_no_script_runs(report, page):
    images = page.all("img")
    assert len(images) == 4
    for attributes in images:
        kind, data = attributes["src"].split(",")
        assert kind == "data:image/jpeg;base64"
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert (attributes["width"], attributes["height"]) == tuple(map(str, image.size))
        assert image.width == 1040


def test_bars_and_classes_lead_to_their_images(page):
    links = {attributes["href"] for attributes in page.all("a")}
    assert {"#images", "#category=31", "#error=missed", "#error=wrong%20class"} <= links
    assert "#category=4&error=missed" in links
    assert "#true=31&predicted=31" in links
    assert "#predicted=31&error=duplicate" in links or "#true=4&error=missed" in links
    assert any(link.startswith("#score=") for link in links)


def test_worst_and_best_images_are_in_order_and_apart(report):
    worst, best = ([example.score for example in group] for group in (report.worst, report.best))
    assert worst == sorted(worst)
    assert best == sorted(best, reverse=True)
    assert worst == sorted(report.score.per_image)[:2]
    assert max(worst) <= min(best)
    every = choose_examples(report.score, worst=4, best=100)
    assert [len(group) for group in every] == [4, 2]
    assert len({name for group in every for name, _ in group}) == 6
    assert [len(group) for group in choose_examples(report.score, worst=0, best=1)] == [0, 1]


def test_missing_and_damaged_images_are_named(folder, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in (folder / "train").iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    (images / EVIL_NAME).unlink()
    (images / f"{1:032x}.jpg").write_bytes(b"not an image")
    report = make_report(folder, images=images)
    page = Page(render(report))
    text = " ".join(" ".join(page.text).split())
    assert "2 of the images below could not be read" in text
    assert f"{EVIL_NAME} {images}/{EVIL_NAME}: the image file is missing" in text
    assert "not an image" in text
    assert len(page.all("img")) == 4
    captions = [attributes["alt"].split(",")[0] for attributes in page.all("img")]
    assert captions.count("no image") == 2
    gray = report.worst[0].image
    assert gray.shape == (640, 427, 3), "in the proportions of the annotation"


def test_without_images_masks_are_drawn_on_gray(folder):
    report = make_report(folder, images=None)
    page = Page(render(report))
    assert len(page.all("img")) == 4
    assert page.all("aside") == []


def test_notes_are_shown(folder, tmp_path):
    data = make_data(tmp_path / "data")
    lines = (data / "submission.csv").read_text().splitlines()
    (data / "submission.csv").write_text(
        "\n".join(line for line in lines if f"{3:032x}" not in line) + "\n"
    )
    text = " ".join(Page(render(make_report(data))).text)
    assert "images not in submission.csv, which count as having no detection: 1 of 6" in text


@pytest.mark.parametrize("averaging", ["per_class", "pooled"])
def test_the_averaging_is_named(folder, averaging):
    text = " ".join(Page(render(make_report(folder, averaging=averaging))).text)
    words = {"per_class": "mean over classes", "pooled": "classes pooled"}
    for name, shown in words.items():
        assert (shown in text) == (name == averaging)


def test_errors_are_shown_with_their_gains(report, page):
    text = " ".join(" ".join(page.text).split())
    errors = report.errors
    assert errors.score == pytest.approx(report.score.competition_map)
    assert errors.gain(MISSED) > 0
    section = text.split("Where the score is lost")[1].split("By class and size")[0]
    for kind in KINDS:
        shown = kind.removeprefix("poor mask, ")
        assert f"{shown} {errors.counts[kind]} {errors.gain(kind):+.4f}" in section
        assert f"{shown}: {errors.gain(kind):+.4f} (" in section  # of the chart's bar
    section = text.split("By class and size")[1].split("By class ")[0]
    for key, name in ((4, "jacket"), (31, "sleeve"), (23, "shoe")):
        gains = errors.by_class[key]
        shown = " ".join(f"{gains[group]:+.4f}" for group in GROUPS)
        assert f"{key} {name} {shown}" in section
    for size, gains in errors.by_size.items():
        assert f"{size} {' '.join(f'{gains[group]:+.4f}' for group in GROUPS)}" in section


def test_a_page_without_errors_has_an_empty_chart(folder, tmp_path):
    """The ground truth against itself."""
    make_data(tmp_path / "data", images=2)
    submission = tmp_path / "data" / "submission.csv"
    submission.write_text((tmp_path / "data" / "train.csv").read_text())
    report = make_report(tmp_path / "data")
    text = " ".join(" ".join(Page(render(report)).text).split())
    assert report.score.competition_map == 1
    assert "missed 0 +0.0000 +0.000 to +0.000" in text


def test_same_input_same_page(folder, report):
    assert render(make_report(folder)) == render(report)


def test_page_is_written_whole_or_not_at_all(report, tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    write_report(report, path)
    assert path.read_text(encoding="utf-8") == render(report)
    assert list(path.parent.iterdir()) == [path]
    monkeypatch.setattr("src.reporting.page.render", lambda report: 1 / 0)
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        write_report(report, path)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_drawings_are_named_by_score(report, tmp_path):
    files = write_drawings([*report.worst, *report.best], tmp_path / "drawings")
    assert sorted((tmp_path / "drawings").iterdir()) == sorted(files)
    assert files[0].name == f"{report.worst[0].score:.4f}_{report.worst[0].image_id}"
    assert [path.name for path in sorted(files)][:2] == [path.name for path in files[:2]]
    for path in files:
        assert Image.open(path).size == (3 * 427 + 20, 640)


def test_rotated_images_lie_under_their_masks(tmp_path):
    """An image with EXIF rotation: stored 80 x 120, shown 120 x 80, as annotated."""
    data = make_data(tmp_path / "data", images=2)
    name = f"{1:032x}.jpg"
    upright = Image.new("RGB", (80, 120))
    upright.paste((255, 0, 0), (0, 0, 80, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(data / "train" / name, exif=exif, quality=95)
    report = make_report(data)
    image = next(e.image for e in (*report.worst, *report.best) if e.image_id == name)
    assert image.shape == (640, 427, 3)
    assert image[30, 200, 0] > 200
    assert image[600, 200, 0] < 50


def test_the_template_is_beside_the_code():
    import src.reporting.page as module

    assert (Path(module.__file__).parent / "templates" / "report.html").is_file()
