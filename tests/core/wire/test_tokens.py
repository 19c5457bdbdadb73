"""Tokens as they are asked for, and as they are told."""

import pytest

from tidings.errors import BadRequest
from tidings.model import Owner, Scope, Token
from tidings.wire import tokens
from tidings.wire.bodies import Body
from tidings.wire.tokens import TokenRequest

ALL_BUT_ADMIN = frozenset(Scope) - {Scope.ADMIN}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"user": "7"}, TokenRequest(owner=Owner("7", "default"), scopes=ALL_BUT_ADMIN)),
        (
            {
                "user": "7",
                "app": "desk",
                "user_name": "Ada",
                "scopes": ["admin", "webhooks:read", "admin"],
                "workspaces": ["1", "2"],
                "expires_at": "2021-08-31T14:03:07.687Z",
            },
            TokenRequest(
                owner=Owner("7", "desk"),
                user_name="Ada",
                scopes=frozenset({Scope.ADMIN, Scope.WEBHOOKS_READ}),
                workspaces=frozenset({"1", "2"}),
                expires_at=1_630_418_587_687_000,
            ),
        ),
        (
            {"user": "7", "app": None, "scopes": None, "workspaces": None, "expires_at": None, "x": 1},
            TokenRequest(owner=Owner("7", "default"), scopes=ALL_BUT_ADMIN),
        ),
    ],
)
def test_a_request_for_a_token(data: dict[str, object], expected: TokenRequest) -> None:
    assert tokens.parse_create(Body(data)) == expected


@pytest.mark.parametrize(
    ("data", "starts"),
    [
        (None, "user: Missing input"),
        ({"app": "x"}, "user: Missing input"),
        ({"user": 7}, "user: Not a valid GID type: number"),
        ({"user": "7", "app": "a b"}, "app: Not a recognized ID: a b"),
        ({"user": "7", "user_name": ""}, "user_name: must not be empty"),
        ({"user": "7", "scopes": "admin"}, "scopes: expected an array"),
        ({"user": "7", "scopes": []}, "scopes: must not be empty"),
        ({"user": "7", "scopes": ["webhooks:read", "root"]}, "scopes: [1]: must be one of "),
        ({"user": "7", "scopes": [{}]}, "scopes: [0]: must be one of "),
        ({"user": "7", "scopes": ["admin"] * 9}, "scopes: at most 8 entries"),
        ({"user": "7", "workspaces": []}, "workspaces: must not be empty"),
        ({"user": "7", "workspaces": ["1", 2]}, "workspaces: [1]: Not a valid GID type"),
        ({"user": "7", "workspaces": ["1"] * 1_001}, "workspaces: at most 1000 entries"),
        ({"user": "7", "expires_at": "tomorrow"}, "expires_at: expected a time"),
    ],
)
def test_what_is_wrong_with_a_request_is_named(data: object, starts: str) -> None:
    with pytest.raises(BadRequest) as refused:
        tokens.parse_create(Body(data))
    assert refused.value.message.startswith(starts)


def test_the_record_of_a_token_does_not_tell_it() -> None:
    token = Token(
        gid="5",
        owner=Owner("7", "desk"),
        user_name="Ada",
        prefix="tdg_abcd",
        scopes=frozenset({Scope.WEBHOOKS_READ, Scope.ADMIN}),
        workspaces=frozenset({"2", "1"}),
        created_at=0,
        expires_at=1_000_000,
        revoked_at=2_000_000,
    )
    assert tokens.render(token) == {
        "gid": "5",
        "resource_type": "token",
        "prefix": "tdg_abcd",
        "user": {"gid": "7", "resource_type": "user", "name": "Ada"},
        "app": "desk",
        "scopes": ["admin", "webhooks:read"],
        "workspaces": ["1", "2"],
        "created_at": "1970-01-01T00:00:00.000Z",
        "expires_at": "1970-01-01T00:00:01.000Z",
        "last_used_at": None,
        "revoked_at": "1970-01-01T00:00:02.000Z",
    }


def test_a_token_for_every_workspace_says_null() -> None:
    token = Token(
        gid="5",
        owner=Owner("7", "x"),
        user_name=None,
        prefix="p",
        scopes=frozenset(),
        workspaces=None,
        created_at=0,
    )
    assert tokens.render(token)["workspaces"] is None
