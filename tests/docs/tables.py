"""The parts of the documents that are made from the code: `make fix` writes them, a test holds them to it."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from tidings.cli import main
from tidings.config import describe
from tidings.targets import DENIED

DOCS: Final = Path(__file__).parents[2] / "docs"
# What stands between `<!-- made: NAME -->` and `<!-- end -->` is made.
_MADE: Final = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def settings() -> str:
    """Every setting: its variable, its default, what it means."""
    rows = [f"| `{each.variable}` | {_code(each.default)} | {_cell(each.meaning)} |" for each in describe()]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *rows])


def _code(default: str | None) -> str:
    if default is None:
        return "none"
    return f"`{default}`" if re.fullmatch(r"[\w:/.,*-]+", default) else _cell(default)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def commands() -> str:
    """Every command: what it does, its arguments, its options, its example."""
    return "\n".join(_sections(main, "tidings"))


def _sections(command: click.Command, path: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            yield from _sections(below, f"{path} {name}")
        return
    context = click.Context(command, info_name=path)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"## {path}\n"
    yield f"`{path} {usage}`\n"
    prose, _, examples = inspect.cleandoc(command.help or "").partition("\b\n")
    yield prose.strip() + "\n"
    yield "| option | meaning |\n| --- | --- |"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and parameter.name != "help":
            yield f"| `{_cell(record[0])}` | {_cell(record[1])} |"
    yield ""
    _, _, lines = examples.partition("\n")
    if lines:
        yield "Example:\n" if lines.count("\n") == 0 else "Examples:\n"
        yield textwrap.indent(textwrap.dedent(lines), "    ")
        yield ""


def ports() -> str:
    """The ports that nothing is sent to, by what answers there."""
    rows = [f"| {kind} | {', '.join(map(str, numbers))} |" for kind, numbers in DENIED.items()]
    return "\n".join(["| what answers there | ports |", "| --- | --- |", *rows])


MAKERS: Final = {"settings": settings, "commands": commands, "ports": ports}


def made(text: str) -> str:
    """A document with its made parts made anew."""
    return _MADE.sub(lambda match: f"{match[1]}\n{MAKERS[match[2]]()}\n\n{match[3]}", text)


def write() -> None:
    for document in sorted(DOCS.glob("*.md")):
        text = document.read_text("utf-8")
        if (renewed := made(text)) != text:
            document.write_text(renewed, "utf-8")
            print(f"renewed {document.name}")


if __name__ == "__main__":
    write()
