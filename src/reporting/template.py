"""Templates of pages: one file each, with its style and its script, allowed by their hashes."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from src.reporting.palette import category_colour, css_colour

_FOLDER = Path(__file__).parent / "templates"
SCRIPTS = ("report_images.js", "report_drawing.js", "report_main.js")  # one module together


@dataclass(frozen=True, slots=True)
class Inline:
    """A style or a script in a page, and its hash for the page's policy."""

    text: Markup
    hash: Markup


def inline(*names: str) -> Inline:
    """Return files of the templates as one style or script.

    The hash is of exactly what stands between the tags, so the template adds not even a space.
    """
    text = "".join((_FOLDER / name).read_text(encoding="utf-8") for name in names)
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Inline(Markup(text), Markup(f"'sha256-{digest}'"))


def template(name: str, *, has_script: bool = False) -> Template:
    """Load the template of a page; it escapes every text."""
    environment = Environment(
        loader=PackageLoader("src.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "style": inline("report.css"),
        "script": inline(*SCRIPTS) if has_script else None,
        "category_colour": category_colour,
        "css_colour": css_colour,
    }
    return environment.get_template(name)
