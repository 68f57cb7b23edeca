"""The file that says which class of a checkpoint a category starts from."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from src.annotations.categories import IMATERIALIST_2019_LABELS
from src.errors import InputError
from src.mmdet_bridge.checkpoints.category_map import (
    COCO_CLASSES,
    read_category_map,
    source_class_names,
)

NAMES = {0: "shirt, blouse", 16: "tie", 24: "bag, wallet", 26: "umbrella"}
COMMON: dict[str, Any] = {
    "category_ids": [26, 0, 16, 24],
    "category_names": NAMES,
    "source_classes": 80,
    "source_names": COCO_CLASSES,
}

BILLION_LAUGHS = "\n".join(
    ["0: &l0 [lol]"]
    + [f"{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 16)]
    + ["16: *l15", ""]
)


def test_coco_classes_are_mmdetections() -> None:
    """mmdetection's list is read from its text: importing its data sets takes half a minute."""
    package = importlib.util.find_spec("mmdet")
    assert package is not None
    assert package.origin is not None
    text = (Path(package.origin).parent / "datasets" / "coco.py").read_text()
    (meta,) = (
        ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "METAINFO"
    )
    assert meta["classes"] == COCO_CLASSES


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.yaml", "umbrella: 25\n16: tie\nbag, wallet: handbag\n"),
        ("map.yml", "26: umbrella\ntie: 27\n24: 26\n0: null\n"),
        ("map.json", '{"26": 25, "16": "tie", "bag, wallet": "handbag"}'),
        ("map.csv", 'category,source\n26,umbrella\ntie,27\n"bag, wallet",handbag\n0,\n'),
        ("map.csv", "note,source,category\nx, 25 , 26\ny,tie,16\nz,26,24\n"),
    ],
)
def test_every_spelling_says_the_same(tmp_path: Path, name: str, text: str) -> None:
    for encoding in ("utf-8", "utf-8-sig"):  # the second with a byte order mark, as of Excel
        (tmp_path / name).write_text(text, encoding=encoding)
        assert read_category_map(tmp_path / name, **COMMON) == [25, None, 27, 26]


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "weights.md").read_text()
    (tmp_path / "map.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    class_map = read_category_map(
        tmp_path / "map.yaml",
        **COMMON
        | {
            "category_ids": range(46),
            "category_names": IMATERIALIST_2019_LABELS.category_names,
        },
    )
    assert {category: pick for category, pick in enumerate(class_map) if pick is not None} == {
        16: COCO_CLASSES.index("tie"),
        17: COCO_CLASSES.index("baseball glove"),
        24: COCO_CLASSES.index("handbag"),
        26: COCO_CLASSES.index("umbrella"),
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("map.yaml", "umbrela: 25\n", r"map\.yaml: category 'umbrela': no such name; near it: umb"),
        ("map.yaml", "zzz: 25\n", r"category 'zzz': no such name$"),
        ("map.yaml", "5: 25\n", r"category 5 must be one of 26, 0, 16, 24, or a name"),
        ("map.yaml", "16: 80\n", r"category 16: class 80 must be from 0 to 79, or a name"),
        ("map.yaml", "16: -1\n", r"category 16: class -1 must be from 0 to 79"),
        ("map.yaml", "16: ties\n", r"category 16: class 'ties': no such name; near it: tie"),
        (
            "map.yaml",
            "16: 1.5\n",
            r"category 16: the class must be a whole number or .*got 1\.5",
        ),
        ("map.yaml", BILLION_LAUGHS, r"category 0: the class must be a whole .*, got a list"),
        (
            "map.yaml",
            "16: true\n",
            r"category 16: the class must be a whole number or .*got True",
        ),
        ("map.yaml", "16: 3\ntie: 4\n", r"category 'tie' is given twice"),
        ("map.yaml", "16: 3\n16: 4\n", r"category 16 is given twice"),
        ("map.yaml", "a: [\n", r"map\.yaml: while parsing"),
        (
            "map.yaml",
            "- 1\n- 2\n",
            r"must hold lines 'category: class' \(YAML or JSON\), or, as \.csv",
        ),
        ("map.yaml", "", r"must hold lines 'category: class'"),
        ("map.csv", "a,b\n1,2\n", r"must hold lines .* the columns category,source"),
        ("map.csv", "category,source\n", r"must hold lines"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_category_map(tmp_path / name, **COMMON)


def test_no_file_and_no_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"category_map must be a file, got .*none\.yaml"):
        read_category_map(tmp_path / "none.yaml", **COMMON)
    (tmp_path / "map.yaml").write_text("16: tie\n")
    with pytest.raises(
        InputError, match=r"class 'tie' must be from 0 to 4: the checkpoint names no classes"
    ):
        read_category_map(
            tmp_path / "map.yaml", **COMMON | {"source_names": None, "source_classes": 5}
        )


@pytest.mark.parametrize(
    ("meta", "classes", "names"),
    [
        ({"CLASSES": ("a", "b")}, 2, ("a", "b")),
        ({"dataset_meta": {"classes": ["a", "b"]}}, 2, ("a", "b")),
        ({"dataset_meta": {"CLASSES": ("a", "b")}}, 2, ("a", "b")),
        ({"CLASSES": ("a", "b")}, 3, None),
        ({"CLASSES": None}, 80, COCO_CLASSES),
        ({}, 80, COCO_CLASSES),
        ({}, 46, None),
    ],
)
def test_where_names_of_classes_come_from(
    meta: dict[str, Any], classes: int, names: tuple[str, ...] | None
) -> None:
    assert source_class_names(meta, classes) == names
