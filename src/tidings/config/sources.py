"""Where settings come from: flags, the environment, a file. Every value is traced to where it was written.

A value is text wherever it stands; the file may also use numbers, booleans and arrays. An empty value is the same
as none, since container files cannot leave a variable out.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final

PREFIX: Final = "TIDINGS_"
# They belong to the commands that speak HTTP to a service.
CLIENT_VARIABLES: Final = frozenset({"TIDINGS_URL", "TIDINGS_TOKEN"})
# Kubernetes puts such variables beside every container of a namespace with a service named tidings.
_SERVICE_LINK: Final = re.compile(
    r"TIDINGS_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_LINK_VALUE: Final = re.compile(r"(tcp|udp|sctp)://\S+")
# Settings are a page of text; whatever is larger is another file.
FILE_BYTES_MAX: Final = 1 << 20
_SHOWN_CHARS_MAX: Final = 100
# What may be shown of an address with a password in it, wherever the rest puts the password.
_SCHEMES: Final = frozenset({"postgresql", "postgres", "mysql", "http", "https", "socks5"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A setting as people write it: the environment variable, or the key of the file."""

    name: str
    default: str
    meaning: str
    # Never printed: the value; or, of an address, all that may hold credentials.
    secret: bool
    credentials: bool
    # Whether the file may give it as an array.
    many: bool
    read: Callable[[str], object] = field(repr=False)

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()


@dataclass(frozen=True, slots=True)
class Written:
    """A value, and where it was written."""

    text: str
    place: str


@dataclass(frozen=True, slots=True)
class Given:
    """What the sources come to: values by the setting's name, where each was written, and what is wrong."""

    values: Mapping[str, object]
    places: Mapping[str, str]
    mistakes: tuple[str, ...]


def gather(
    variables: Sequence[Variable],
    *,
    environ: Mapping[str, str],
    file: Path | None,
    flags: Mapping[str, object],
) -> Given:
    """Read every setting that is given, the strongest source of each, and collect every mistake."""
    mistakes: list[str] = []
    by_name = {variable.name: variable for variable in variables}
    written = {
        **_from_file(by_name, file, mistakes),
        **_from_environment(by_name, environ, mistakes),
        **{
            name: Written(str(value), f"--{name.replace('_', '-')}")
            for name, value in flags.items()
            if name in by_name and value is not None
        },
    }
    read: dict[str, object] = {}
    for name, value in written.items():
        try:
            read[name] = by_name[name].read(value.text)
        except ValueError as error:
            mistakes.append(mistake(value.place, shown(by_name[name], value.text), str(error)))
    return Given(read, {name: value.place for name, value in written.items()}, tuple(mistakes))


def mistake(place: str, value: str, advice: str) -> str:
    """One sentence for the operator: where, what stands there, what to write instead."""
    return f"{place} is {value}: {advice}"


def shown(variable: Variable, text: str) -> str:
    """The value for an error message, without what is nobody else's business."""
    if variable.secret:
        return f"not usable ({len(text)} characters, not shown)"
    if variable.credentials and not text.startswith("sqlite:"):
        scheme, colon, _ = text.partition("://")
        return f"{scheme}://… (not shown)" if colon and scheme in _SCHEMES else "not usable (not shown)"
    return repr(text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "…")


# -- the environment -------------------------------------------------------------------------------


def _from_environment(
    by_name: Mapping[str, Variable], environ: Mapping[str, str], mistakes: list[str]
) -> dict[str, Written]:
    written: dict[str, Written] = {}
    for key in sorted(environ):
        if not key.startswith(PREFIX) or key in CLIENT_VARIABLES or _service_link(key, environ[key]):
            continue
        name = key.removeprefix(PREFIX).lower()
        if name not in by_name or key != by_name[name].variable:
            mistakes.append(f"{key} is no setting{_nearest(name, by_name, prefix=PREFIX)}")
        elif text := environ[key].strip():
            written[name] = Written(text, key)
    return written


def _service_link(key: str, value: str) -> bool:
    if key.endswith("_PORT") and _SERVICE_LINK_VALUE.fullmatch(value):
        return True
    return _SERVICE_LINK.fullmatch(key) is not None


def _nearest(wrong: str, known: Iterable[str], *, prefix: str = "") -> str:
    close = get_close_matches(wrong, list(known), n=1)
    if not close:
        return ""
    return f"; did you mean {prefix}{close[0].upper() if prefix else close[0]}?"


# -- the file --------------------------------------------------------------------------------------


def _from_file(by_name: Mapping[str, Variable], file: Path | None, mistakes: list[str]) -> dict[str, Written]:
    if file is None:
        return {}
    written: dict[str, Written] = {}
    for key, value in _table(file, mistakes).items():
        if key not in by_name:
            bare = key.lower().removeprefix(PREFIX.lower())
            mistakes.append(f"{key!r} in {file} is no setting{_nearest(bare, by_name)}")
            continue
        place = f"{by_name[key].variable} ({key!r} in {file})"
        text = _text(value, many=by_name[key].many)
        if text is None:
            shapes = (
                "text, a number or an array of them" if by_name[key].many else "text, a number or a boolean"
            )
            mistakes.append(f"{place} has the wrong shape: write {shapes}")
        elif text:
            written[key] = Written(text, place)
    return written


def _table(file: Path, mistakes: list[str]) -> dict[str, object]:
    try:
        with file.open("rb") as opened:
            raw = opened.read(FILE_BYTES_MAX + 1)
        if len(raw) > FILE_BYTES_MAX:
            mistakes.append(f"--config {file}: the file is larger than {FILE_BYTES_MAX} bytes")
            return {}
        return tomllib.loads(raw.decode())
    except OSError as error:
        mistakes.append(f"--config {file} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        mistakes.append(f"--config {file} is not TOML: not UTF-8")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        mistakes.append(f"--config {file} is not TOML: {error}")
    return {}


def _text(value: object, *, many: bool) -> str | None:
    """The value of a key as it would be written in a variable; None if it cannot be."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value.strip()
        case int():
            return str(value)
        case list() if many:
            entries = [_text(entry, many=False) for entry in value]
            if None in entries or not all(entries) or any("," in entry for entry in entries if entry):
                return None
            return ",".join(entry for entry in entries if entry) or "none"
        case _:
            return None
