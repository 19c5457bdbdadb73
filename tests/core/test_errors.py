"""The tree of errors: who must act, and what each is answered with."""

from collections.abc import Iterator

import pytest

from tidings import errors
from tidings.errors import RequestError, TidingsError

STATUSES = {
    "BadRequest": 400,
    "Incomplete": 400,
    "NotAuthorized": 401,
    "Forbidden": 403,
    "DuplicateWebhook": 403,
    "NotFound": 404,
    "Conflict": 409,
    "TooLarge": 413,
    "TooManyRequests": 429,
    "EqualCreate": 429,
}


def below(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


def test_every_request_error_has_its_status() -> None:
    """A leaf that is added here needs an answer, in the contract and in the documentation."""
    ours = {kind.__name__: kind.status for kind in below(RequestError) if kind.__module__ == errors.__name__}
    assert ours == STATUSES


def test_every_error_has_one_root_and_stands_in_the_tree() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, TidingsError) for kind in kinds)
    drawn = errors.__doc__ or ""
    assert [kind.__name__ for kind in kinds if kind.__name__ not in drawn] == []


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (errors.BadRequest.at("limit", "too much"), "invalid_value", "limit: too much"),
        (errors.BadRequest.at("limit", "too much", code="x"), "x", "limit: too much"),
        (errors.NotAuthorized(), "not_authorized", "Not Authorized"),
        (
            errors.DuplicateWebhook("7"),
            "duplicate_webhook",
            "Duplicated webhook. You already have an existing webhook for the given resource and target. "
            "Delete the old one before creating another.",
        ),
        (errors.NotFound("nothing there", code="y"), "y", "nothing there"),
    ],
)
def test_messages_and_codes(error: RequestError, code: str, message: str) -> None:
    """In the recorded words where there are any (contract §2.2)."""
    assert (error.code, error.message, str(error)) == (code, message, message)


def test_what_some_errors_carry() -> None:
    assert errors.DuplicateWebhook("7").gid == "7"
    assert errors.TooManyRequests("slower", code="rate", retry_after=3).retry_after == 3
    settings = errors.SettingsError(["one", "two"])
    assert (settings.mistakes, str(settings)) == (("one", "two"), "one\ntwo")
