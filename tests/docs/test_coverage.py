"""Whatever users may lean on by name is documented, and the documents lead nowhere that is not there."""

import ast
import re
from pathlib import Path

import pytest

from tests.docs import tables
from tidings.web.openapi import operations

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
SOURCES = sorted((ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_made_parts_are_as_they_would_be_made(document: Path) -> None:
    """`make fix` makes them anew."""
    text = document.read_text("utf-8")
    assert tables.made(text) == text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#\s]*)(?:#[^)]*)?\)", document.read_text("utf-8")):
        assert not target or (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_within_documents_have_a_heading(document: Path) -> None:
    text = document.read_text("utf-8")
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#\s]*)#([^)]+)\)", text):
        page = (document.parent / target) if target else document
        headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
        assert anchor in {anchor_of(heading) for heading in headings}, f"{target}#{anchor}"


def anchor_of(heading: str) -> str:
    """The anchor of a heading, as the usual renderers make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def codes_raised() -> set[str]:
    """Every `code=` the source gives an error, and the literals handed on to the functions that render one."""
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "code":
                found |= {
                    each.value
                    for each in ast.walk(node.value)
                    if isinstance(each, ast.Constant) and isinstance(each.value, str)
                }
    return found


def test_every_error_code_is_documented() -> None:
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    assert {code for code in codes_raised() if f"`{code}`" not in text} == set()


def test_every_call_is_documented() -> None:
    """Somewhere in the documents stands its method and path."""
    text = "\n".join(document.read_text("utf-8") for document in DOCUMENTS)
    paths = operations.PATHS
    assert len(paths) > 8
    missing = [path for path in paths if path.replace("/api/1.0", "").split("{")[0].rstrip("/") not in text]
    assert missing == []


def test_sections_that_the_code_cites_exist() -> None:
    """`contract §2.2` in a docstring is a section of docs/contract.md."""
    text = (ROOT / "docs" / "contract.md").read_text("utf-8")
    sections = set(re.findall(r"^#+ (\d+[a-z]?(?:\.\d+)?)\b", text, re.MULTILINE))
    for source in SOURCES:
        for cited in re.findall(r"contract ((?:§[\d.a-z]+(?:, )?)+)", source.read_text("utf-8")):
            for section in re.findall(r"§(\d+[a-z]?)", cited):
                assert section in sections, f"{source.name}: §{section}"


def test_the_fixed_bounds_have_a_reason() -> None:
    """Each stands below a comment, alone or right after another of its kind."""
    lines = (ROOT / "src" / "tidings" / "limits.py").read_text("utf-8").splitlines()
    bounds = [number for number, line in enumerate(lines) if ": Final = " in line]
    assert len(bounds) > 20
    for number in bounds:
        above = lines[number - 1]
        if ": Final = " in above:
            above = lines[number - 2]
        assert above.startswith("# ") and not above.startswith("# --"), lines[number]
