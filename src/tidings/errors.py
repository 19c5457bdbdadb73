"""What can go wrong, split by who must act.

    TidingsError
    ├── RequestError              the caller must change the request
    │   ├── BadRequest            400
    │   │   └── Incomplete        what was announced did not arrive
    │   ├── NotAuthorized         401
    │   ├── Forbidden             403
    │   │   └── DuplicateWebhook  names the one that stands
    │   ├── NotFound              404
    │   ├── Conflict              409
    │   ├── TooLarge              413
    │   └── TooManyRequests       429, after a while
    │       └── EqualCreate       until the create before it is done
    ├── StoreUnavailable          503, the operator must act; nothing was accepted
    ├── StoreUnfit                the operator must choose another database; nothing was started
    ├── CannotListen              the operator must free the address; nothing was started
    ├── CannotStart               a process of the service did not come up; none is left running
    └── SettingsError             the operator must change the settings; nothing was started

Each leaf carries the status it is answered with. `code` is stable and machine-readable: programs may branch
on it. `message` follows contract §2.2 and may be read to a person.
"""

from collections.abc import Sequence
from typing import ClassVar


class TidingsError(Exception):
    """The root: nothing else of ours is raised across a module's edge."""


class RequestError(TidingsError):
    """The caller must change the request; what was asked for did not happen, not even in part."""

    status: ClassVar[int]

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class BadRequest(RequestError):
    """The request itself is wrong."""

    status = 400

    @classmethod
    def at(cls, path: str, text: str, *, code: str = "invalid_value") -> "BadRequest":
        """Name the field and what is wrong with it: `path: text` (contract §12.10)."""
        return cls(f"{path}: {text}", code=code)


class Incomplete(BadRequest):
    """The request ended early, or did not arrive in time: the connection cannot be used again."""


class NotAuthorized(RequestError):
    """No token, or one that is unknown, revoked or expired: all answer the same (contract §2.1)."""

    status = 401

    def __init__(self) -> None:
        super().__init__("Not Authorized", code="not_authorized")


class Forbidden(RequestError):
    """The caller is known and may not do this."""

    status = 403


class DuplicateWebhook(Forbidden):
    """The same owner has a webhook for the same resource and target; `gid` is that one's (contract §2.2)."""

    def __init__(self, gid: str) -> None:
        super().__init__(
            "Duplicated webhook. You already have an existing webhook for the given resource and target. "
            "Delete the old one before creating another.",
            code="duplicate_webhook",
        )
        self.gid = gid


class NotFound(RequestError):
    """No such route, or no such thing for this caller."""

    status = 404


class Conflict(RequestError):
    """An idempotency key came back with another request."""

    status = 409


class TooLarge(RequestError):
    """The body is over its bound."""

    status = 413


class TooManyRequests(RequestError):
    """Come back after `retry_after` whole seconds."""

    status = 429

    def __init__(self, message: str, *, code: str, retry_after: int) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class EqualCreate(TooManyRequests):
    """An equal webhook is being established, and the receiver must not be told two secrets."""

    def __init__(self) -> None:
        super().__init__(
            "Equal webhooks are being established. Please retry after the given amount of time.",
            code="overloaded",
            retry_after=1,
        )


class StoreUnavailable(TidingsError):
    """The database did not take or give what was asked for: full, locked, gone. Nothing was accepted."""


class StoreUnfit(TidingsError):
    """The database is not one this version can serve: another program's, newer, or sealed with another key."""


class CannotListen(TidingsError):
    """The address is another process's, or not this machine's."""


class CannotStart(TidingsError):
    """A process of the service ended before it answered; none of them is left running."""


class SettingsError(TidingsError):
    """The settings are wrong. `mistakes` holds one sentence each, all of them."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)
