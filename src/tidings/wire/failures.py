"""Error bodies: `{"errors":[{"message", "help"}]}`, with a stable `code` beside (contract §2.1)."""

from typing import Final

HELP: Final = (
    "For more information on API status codes and how to handle them, read the docs on errors: "
    "https://developers.asana.com/docs/errors"
)


def render(
    message: str, code: str, *, phrase: str | None = None, gid: str | None = None
) -> dict[str, object]:
    """One error. A 500 carries the `phrase` its log line carries; a duplicate the webhook that stands."""
    error: dict[str, object] = {"message": message, "help": HELP, "code": code}
    if phrase is not None:
        error["phrase"] = phrase
    if gid is not None:
        error["gid"] = gid
    return {"errors": [error]}
