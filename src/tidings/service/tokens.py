"""Who is calling, and the life of tokens."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tidings.errors import Forbidden, NotAuthorized, NotFound
from tidings.limits import MICROSECONDS_PER_SECOND, TOKEN_CHARS_MAX
from tidings.model import Micros, Owner, Scope, Token
from tidings.store import Tokens
from tidings.wire import values
from tidings.wire.tokens import TokenRequest

# How much of a token its record shows, so that people can tell theirs apart.
PREFIX_CHARS: Final = 8
# The last use is noted this often: a write per request would cost more than the request.
_TOUCH_EVERY: Final[Micros] = 60 * MICROSECONDS_PER_SECOND
BOOTSTRAP_OWNER: Final = Owner("1", "default")


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A new token, and the only time its text is seen."""

    token: Token
    text: str


def digest(text: str) -> bytes:
    """What is kept of a token. It has 256 random bits, so one round of SHA-256 cannot be searched."""
    return hashlib.sha256(text.encode()).digest()


def require(caller: Token, scope: Scope) -> None:
    """Raise `Forbidden`, naming the scope, unless the token has it (contract §12.25)."""
    if scope not in caller.scopes:
        raise Forbidden(f"This token lacks the scope {scope}.", code="missing_scope")


def _within(workspaces: frozenset[str] | None, caller: Token) -> bool:
    """Whether access to these workspaces (None: all) is no more than the caller has."""
    return caller.workspaces is None or (workspaces is not None and workspaces <= caller.workspaces)


class TokenDesk:
    """Authenticates callers; makes, lists and revokes tokens."""

    def __init__(
        self,
        store: Tokens,
        *,
        now: Callable[[], Micros],
        new_gid: Callable[[], str],
        new_text: Callable[[], str],
    ) -> None:
        self._store = store
        self._now = now
        self._new_gid = new_gid
        self._new_text = new_text

    async def authenticate(self, authorization: str | None) -> Token:
        """The token of an `Authorization: Bearer …` header.

        Raises:
            NotAuthorized: none, malformed, unknown, revoked or expired; all alike.
        """
        scheme, _, text = (authorization or "").partition(" ")
        text = text.strip()
        if scheme.lower() != "bearer" or not 0 < len(text) <= TOKEN_CHARS_MAX:
            raise NotAuthorized
        token = await self._store.find_token(digest(text))
        now = self._now()
        if token is None or not token.live(now):
            raise NotAuthorized
        if token.last_used_at is None or now - token.last_used_at > _TOUCH_EVERY:
            await self._store.touch_token(token.gid, now=now)
        return token

    async def create(self, request: TokenRequest, *, caller: Token | None = None) -> CreatedToken:
        """Make a token. `caller` is None for the operator at the machine itself.

        Raises:
            Forbidden: the caller lacks `admin`, or a workspace it would give access to.
        """
        if caller is not None:
            require(caller, Scope.ADMIN)
            if not _within(request.workspaces, caller):
                raise Forbidden(
                    "This token can only make tokens for its own workspaces. Name them.", code="no_access"
                )
        text = self._new_text()
        token = self._token(request, text)
        await self._store.add_token(token, digest=digest(text))
        return CreatedToken(token, text)

    async def bootstrap(self, text: str) -> bool:
        """Keep this text as the owner's token, all scopes and workspaces, if there is no token yet."""
        request = TokenRequest(owner=BOOTSTRAP_OWNER, user_name="Owner", scopes=frozenset(Scope))
        return await self._store.add_token(self._token(request, text), digest=digest(text), only_first=True)

    async def keep(self, request: TokenRequest, text: str) -> None:
        """Keep a token whose text is given, unless it is kept already."""
        if await self._store.find_token(digest(text)) is None:
            await self._store.add_token(self._token(request, text), digest=digest(text))

    def _token(self, request: TokenRequest, text: str) -> Token:
        return Token(
            gid=self._new_gid(),
            owner=request.owner,
            user_name=request.user_name,
            prefix=text[:PREFIX_CHARS] if len(text) >= 4 * PREFIX_CHARS else text[:2],
            scopes=request.scopes,
            workspaces=request.workspaces,
            created_at=self._now(),
            expires_at=request.expires_at,
        )

    async def list_all(self, *, caller: Token | None = None) -> tuple[Token, ...]:
        """Every token; for a caller of some workspaces, those that see no other."""
        if caller is not None:
            require(caller, Scope.ADMIN)
        tokens = await self._store.list_tokens()
        if caller is None or caller.workspaces is None:
            return tokens
        return tuple(token for token in tokens if _within(token.workspaces, caller))

    async def revoke(self, gid: str, *, caller: Token | None = None) -> None:
        """Revoke a token; its owner's webhooks stop where no other token of theirs covers the workspace."""
        unknown = NotFound(f"token: Unknown object: {values.shown(gid)}", code="unknown_object")
        if caller is not None:
            require(caller, Scope.ADMIN)
            if caller.workspaces is not None and all(
                token.gid != gid for token in await self.list_all(caller=caller)
            ):
                raise unknown
        if not await self._store.revoke_token(gid, now=self._now()):
            raise unknown
