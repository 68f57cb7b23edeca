"""Hooks of mkdocs: pages of the repository's root and the reference, which lie outside ``docs/``.

A page has the links that work in the repository. They are turned into links of the site; what is no
page of it (a folder of tests, the licence) stays as text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "experiments/**/*")
SUFFIXES = {".md", ".jpg", ".png", ".svg"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Add the pages of the reference to the navigation."""
    config.nav.append({"Reference": list(reference_pages())})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the root, what they show, and a page of the reference for each package."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            if path.suffix in SUFFIXES:
                name = path.relative_to(ROOT).as_posix()
                files.append(File.generated(config, _on_site(name), abs_src_path=str(path)))
    for name, text in reference_pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Turn links of the repository into links of the site."""
    place = _in_repository(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        mark, text, target, anchor = match[1], match[2], match[3], match[4] or ""
        if not target or ":" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        found = files.get_file_from_path(_on_site(path))
        if found is None and (ROOT / path).exists():
            return text
        own = posixpath.relpath(_on_site(path), posixpath.dirname(page.file.src_uri) or ".")
        return f"{mark}[{text}]({own}{anchor})"

    # code has no links
    parts = re.split(r"(^(?: {4,}|```).*$)", markdown, flags=re.MULTILINE)
    return "".join(part if n % 2 else LINK.sub(link, part) for n, part in enumerate(parts))


def reference_pages() -> dict[str, str]:
    """Return the text of each page of the reference, by its place on the site."""
    names = re.findall(r'"([^"]+)": "([^"]+)"', (ROOT / "src/__init__.py").read_text())
    lines = ["# Public API", "", "What `from src import ...` gives.", ""]
    lines += [
        f"- [`{name}`][{module}.{name}]"
        for name, module in sorted((n, module) for module, found in names for n in found.split())
    ]
    pages = {"reference/index.md": "\n".join(lines)}
    for package in sorted(path.parent for path in (ROOT / "src").glob("*/__init__.py")):
        modules = [
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for path in sorted(package.rglob("*.py"))
            if path.name != "__main__.py" and path.read_text().strip()
        ]
        text = "\n\n".join(f"::: {module}" for module in modules)
        pages[f"reference/{package.name}.md"] = f"# src.{package.name}\n\n{text}\n"
    return pages


def _on_site(path: str) -> str:
    """Return the place on the site of a file of the repository."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def _in_repository(place: str) -> str:
    """Return the file of the repository that a page is made of."""
    if place == "index.md":
        return "README.md"
    return place if (ROOT / place).exists() else f"docs/{place}"
