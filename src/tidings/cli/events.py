"""`tidings events`: publish what happened."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

import click

from tidings.cli.options import Failed, as_json, connected, connection_options
from tidings.cli.printing import console, on_terminal, print_json, print_record, say
from tidings.limits import BODY_BYTES_MAX, EVENTS_PER_PUBLISH_MAX, IDEMPOTENCY_KEY_CHARS_MAX

if TYPE_CHECKING:
    from tidings.client import ApiError, Session

# It is read whole, to find every mistake before anything is published.
INPUT_BYTES_MAX: Final = 256 << 20
# Room in a body for `{"data":[]}`.
_ENVELOPE_BYTES: Final = 16
# Room in a key for the number of the call.
_KEY_CHARS_MAX: Final = IDEMPOTENCY_KEY_CHARS_MAX - 12
_RETRIED: Final = frozenset({429, 500, 502, 503, 504})
_TRIES_MAX: Final = 6
_WAIT_FIRST_SECONDS: Final = 0.5


@click.group()
def events() -> None:
    """Publish events.

    \b
    Example:
      tidings events publish events.json
    """


@events.command()
@click.argument("file", type=click.File("rb"), default="-", metavar="[FILE|-]")
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Repeating the same FILE under the same key within 24 h publishes nothing.",
)
@as_json
@connection_options
def publish(file: IO[bytes], idempotency_key: str | None, as_json: bool, url: str, token: str | None) -> None:
    """Publish the events in FILE, or from standard input.

    One event, an array of events, {"data": …}, or one event per line. A thousand events, or a megabyte, go in one
    call, and each call is all or nothing; it is tried again under the same key when the service is overloaded.

    \b
    Examples:
      tidings events publish events.json
      echo '{"resource":"8675309","action":"changed","change":{"field":"name","action":"changed"}}' \\
        | tidings events publish
    """
    if file is sys.stdin.buffer and sys.stdin.isatty():
        raise click.UsageError("name a FILE, or pipe events to standard input")
    if file is sys.stdin.buffer and token == "-":
        raise click.UsageError("standard input cannot hold both the token and the events: name a FILE")
    key = _key(idempotency_key)
    calls = list(_calls(_parse(_read(file))))
    result: dict[str, Any] = {"accepted": 0, "last": ""}
    with connected(url, token) as session, _progress(sum(map(len, calls))) as progress:
        for number, call in enumerate(calls, 1):
            headers = {"Idempotency-Key": key if len(calls) == 1 else f"{key}-{number}"}
            with _accounted(result, key):
                published = _publish(session, call, headers, begun=number > 1)
            result = {"accepted": result["accepted"] + published["accepted"], "last": published["last"]}
            progress(len(call))
    if as_json:
        print_json(result)
    else:
        print_record({name: str(value) for name, value in result.items()})


@contextmanager
def _accounted(result: Mapping[str, Any], key: str) -> Iterator[None]:
    """If this goes wrong half-way, or nobody knows how far, say how to go on without publishing anything twice."""
    from tidings.client import ApiError

    try:
        yield
    except (ApiError, KeyboardInterrupt) as error:
        refused = isinstance(error, ApiError) and (error.status is not None or _unreached(error))
        if result["accepted"] or not refused:
            say(
                f"{result['accepted']} events were accepted for certain. To publish the rest, and nothing twice, "
                f"repeat this with --idempotency-key {key}"
            )
        raise


def _unreached(error: ApiError) -> bool:
    """Whether the call never left."""
    from httpx import ConnectError

    return isinstance(error.__cause__, ConnectError)


def _publish(
    session: Session, call: Sequence[Any], headers: Mapping[str, str], *, begun: bool
) -> dict[str, Any]:
    """One call, tried again while the service cannot take it: the key makes that harmless."""
    from tidings.client import ApiError
    from tidings.client.calls import RETRY_AFTER_MAX, data_of

    tries = 1
    while True:
        try:
            return data_of(session.request("POST", "/events", json={"data": call}, headers=headers), dict)
        except ApiError as error:
            passing = error.status in _RETRIED or (error.status is None and (begun or not _unreached(error)))
            wait = max(_WAIT_FIRST_SECONDS * 2 ** (tries - 1), error.retry_after or 0.0)
            if tries == _TRIES_MAX or not passing or wait > RETRY_AFTER_MAX:
                raise
            time.sleep(wait)
            tries += 1


# -- what is to be published -----------------------------------------------------------------------


def _key(given: str | None) -> str:
    if given is None:
        return uuid.uuid4().hex
    if not (given.isascii() and given.isprintable() and 0 < len(given) <= _KEY_CHARS_MAX):
        raise click.UsageError(f"--idempotency-key: write 1 to {_KEY_CHARS_MAX} printable ASCII characters")
    return given


def _read(file: IO[bytes]) -> str:
    try:
        raw = file.read(INPUT_BYTES_MAX + 1)
        if len(raw) > INPUT_BYTES_MAX:
            raise Failed(f"{file.name}: more than {INPUT_BYTES_MAX} bytes; publish it in parts")
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise Failed(f"{file.name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Failed(f"{file.name} is not UTF-8: byte {error.start}") from None


def _parse(text: str) -> list[Any]:
    """The events of a document, or of one document per line."""
    try:
        document = _decode(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise Failed(f"not JSON: {error}") from None
        return [
            _decode_line(line, number) for number, line in enumerate(text.splitlines(), 1) if line.strip()
        ]
    if isinstance(document, dict) and "data" in document:
        document = document["data"]
    return document if isinstance(document, list) else [document]


def _decode(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise Failed("not JSON that anybody could use: nested too deeply") from None


def _no_number(text: str) -> NoReturn:
    raise Failed(f"not JSON: {text}")


def _decode_line(line: str, number: int) -> Any:
    try:
        return _decode(line)
    except json.JSONDecodeError as error:
        raise Failed(f"line {number} is not JSON: {error.msg} at column {error.colno}") from None


def _calls(published: Sequence[Any]) -> Iterator[list[Any]]:
    """Cut what is to be published into calls that the service takes."""
    if not published:
        raise Failed("there are no events to publish")
    call: list[Any] = []
    size = _ENVELOPE_BYTES
    for number, event in enumerate(published, 1):
        length = _length(event, number) + 1
        if call and (len(call) == EVENTS_PER_PUBLISH_MAX or size + length > BODY_BYTES_MAX):
            yield call
            call, size = [], _ENVELOPE_BYTES
        call.append(event)
        size += length
    yield call


def _length(event: Any, number: int) -> int:
    try:
        return len(json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode())
    except UnicodeEncodeError:
        raise Failed(f"event {number} holds half of a surrogate pair, which is no character") from None


# -- progress --------------------------------------------------------------------------------------


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on terminals, for publications of many calls; what is yielded moves it on."""
    if total <= EVENTS_PER_PUBLISH_MAX or not on_terminal(sys.stderr):
        yield lambda published: None
        return
    from rich.progress import Progress

    with Progress(console=console(err=True), transient=True) as bar:
        task = bar.add_task("Publishing", total=total)
        yield lambda published: bar.advance(task, published)
