"""Tokens: `POST /tokens` and the records of `GET /tokens`. The token itself is told once, when it is made."""

from dataclasses import dataclass

from tidings.errors import BadRequest
from tidings.limits import NAME_CHARS_MAX, TOKEN_WORKSPACES_MAX
from tidings.model import Micros, Owner, Scope, Token
from tidings.wire import times, values
from tidings.wire.bodies import Body, data_record

DEFAULT_APP = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A token to be made. No scopes given means all but `admin`; no workspaces given means all."""

    owner: Owner
    user_name: str | None = None
    scopes: frozenset[Scope]
    workspaces: frozenset[str] | None = None
    expires_at: Micros | None = None


def parse_create(body: Body) -> TokenRequest:
    """Read `POST /tokens`."""
    record = data_record(body)
    user, app, name = record.get("user"), record.get("app"), record.get("user_name")
    expires_at = record.get("expires_at")
    if user is None:
        raise BadRequest.at("user", "Missing input", code="missing_input")
    return TokenRequest(
        owner=Owner(values.gid(user, "user"), DEFAULT_APP if app is None else values.gid(app, "app")),
        user_name=None if name is None else values.text(name, "user_name", chars_max=NAME_CHARS_MAX),
        scopes=parse_scopes(record.get("scopes")),
        workspaces=_parse_workspaces(record.get("workspaces")),
        expires_at=None if expires_at is None else times.parse(expires_at, "expires_at"),
    )


def parse_scopes(value: object) -> frozenset[Scope]:
    if value is None:
        return frozenset(Scope) - {Scope.ADMIN}
    scopes = set()
    for index, name in enumerate(values.array(value, "scopes", length_max=len(Scope))):
        try:
            scopes.add(Scope(str(name)))
        except ValueError as error:
            raise BadRequest.at(
                f"scopes: [{index}]", f"must be one of {', '.join(Scope)}, not {values.shown(name)}"
            ) from error
    if not scopes:
        raise BadRequest.at("scopes", "must not be empty")
    return frozenset(scopes)


def _parse_workspaces(value: object) -> frozenset[str] | None:
    if value is None:
        return None
    entries = values.array(value, "workspaces", length_max=TOKEN_WORKSPACES_MAX)
    if not entries:
        raise BadRequest.at("workspaces", "must not be empty; leave it out for all workspaces")
    return frozenset(values.gid(entry, f"workspaces: [{index}]") for index, entry in enumerate(entries))


def render(token: Token) -> dict[str, object]:
    """The record of a token: everything but the token."""
    return {
        "gid": token.gid,
        "resource_type": "token",
        "prefix": token.prefix,
        "user": {"gid": token.owner.user, "resource_type": "user", "name": token.user_name},
        "app": token.owner.app,
        "scopes": sorted(token.scopes),
        "workspaces": None if token.workspaces is None else sorted(token.workspaces),
        "created_at": times.render(token.created_at),
        "expires_at": times.render_optional(token.expires_at),
        "last_used_at": times.render_optional(token.last_used_at),
        "revoked_at": times.render_optional(token.revoked_at),
    }
