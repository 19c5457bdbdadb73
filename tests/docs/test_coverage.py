"""Whatever users may lean on by name is documented, and the documents lead nowhere that is not there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs import tables
from tidings import errors
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


def codes_raised() -> dict[str, set[int]]:
    """Every code that an error of the API can carry, and the statuses it comes with."""
    found: dict[str, set[int]] = {}
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            for code, status in _codes_of(node):
                found.setdefault(code, set()).add(status)
    return found


def _codes_of(node: ast.AST) -> Iterator[tuple[str, int]]:
    match node:
        case ast.ClassDef(name=name):  # an error whose code is its own
            for below in ast.walk(node):
                if isinstance(below, ast.Call) and ast.unparse(below.func) == "super().__init__":
                    yield from ((code, _status(name)) for code in _literals(below, "code"))
        case ast.FunctionDef(name="at"):  # a code that is meant where none is named
            yield from ((str(ast.literal_eval(default)), 400) for default in node.args.kw_defaults if default)
        case ast.Call(func=ast.Name("answer"), args=[ast.Call(args=[_, ast.Constant(str(code)), *_]), *_]):
            (status,) = (int(ast.unparse(each.value)) for each in node.keywords if each.arg == "status")
            yield code, status
        case ast.Call(func=ast.Name(name) | ast.Attribute(value=ast.Name(name), attr="at")):
            if issubclass(getattr(errors, name, object), errors.RequestError):
                yield from ((code, _status(name)) for code in _literals(node, "code"))


def _status(name: str) -> int:
    return int(getattr(errors, name).status)


def _literals(call: ast.Call, keyword: str) -> Iterator[str]:
    values = (each.value for each in call.keywords if each.arg == keyword)
    constants = (below for value in values for below in ast.walk(value) if isinstance(below, ast.Constant))
    return (constant.value for constant in constants if isinstance(constant.value, str))


def test_every_error_code_is_documented_with_its_statuses() -> None:
    """And nothing else is."""
    text = (ROOT / "docs" / "errors.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d, ]+) \|", text, re.MULTILINE)
    assert [code for code, _ in rows] == sorted(code for code, _ in rows)
    assert {
        code: {int(status) for status in statuses.split(", ")} for code, statuses in rows
    } == codes_raised()


def test_every_call_is_documented() -> None:
    """Somewhere in the documents stands its method and path."""
    text = "\n".join(document.read_text("utf-8") for document in DOCUMENTS)
    calls = {
        f"{method.upper()} {path.removeprefix('/api/1.0')}"
        for path, methods in operations.PATHS.items()
        for method in methods
        if method != "parameters"
    }
    assert len(calls) > 15
    assert {call for call in calls if f"`{call}`" not in text} == set()


def sections_of_the_contract() -> set[str]:
    """Its headings (`2.2`), and the numbered entries below them (`0.7`, `12.13`)."""
    found: set[str] = set()
    heading = ""
    for line in (ROOT / "docs" / "contract.md").read_text("utf-8").splitlines():
        if match := re.match(r"#+ (\d+[a-z]?(?:\.\d+)?)\b", line):
            heading = match[1]
            found.add(heading)
        elif match := re.match(r"(\d+)\. |\| (\d+) \|", line):
            found.add(f"{heading}.{match[1] or match[2]}")
    return found


def test_sections_that_the_code_cites_exist() -> None:
    """`contract §2.2` in a docstring is a section of docs/contract.md."""
    sections = sections_of_the_contract()
    assert {"0a", "0.12", "1.4", "12.30"} <= sections
    cited = {
        (section.rstrip("."), source.name)
        for source in [*SOURCES, *(ROOT / "tests").rglob("*.py")]
        for citation in re.findall(r"contract ((?:§[\d.a-z]+(?:, )?)+)", source.read_text("utf-8"))
        for section in re.findall(r"§([\d.a-z]+)", citation)
    }
    assert {(section, name) for section, name in cited if section not in sections} == set()


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
