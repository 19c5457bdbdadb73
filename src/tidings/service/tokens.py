"""Who is calling, and the life of tokens."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tidings.errors import Forbidden, NotAuthorized, NotFound, StoreUnavailable
from tidings.limits import MICROSECONDS_PER_SECOND, TOKEN_CHARS_MAX
from tidings.model import Micros, Owner, Scope, Token
from tidings.store import Tokens
from tidings.wire import values
from tidings.wire.tokens import TokenRequest

# How much of a token its record shows, so that people can tell theirs apart.
PREFIX_CHARS: Final = 8
# The last use is noted this often: a write per request would cost more than the request.
_TOUCH_EVERY: Final[Micros] = 60 * MICROSECONDS_PER_SECOND
# Uses that wait to be noted, in one write. Past that many they are forgotten: a later use of those tokens is noted.
_UNNOTED_MAX: Final = 1_000
# How long a store that did not take them is left alone, seconds: a use may well be noted late.
_PAUSE_SECONDS: Final = 10.0
BOOTSTRAP_OWNER: Final = Owner("1", "default")

logger = logging.getLogger(__name__)


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


class _LastUses:
    """Notes when tokens were last used, while nobody waits: reads must not depend on writes."""

    def __init__(self, store: Tokens) -> None:
        self._store = store
        # By gid; those that are being written stay until they are.
        self._unnoted: dict[str, Micros] = {}
        self._noting: asyncio.Task[None] | None = None

    def add(self, token: Token, now: Micros) -> None:
        if token.gid not in self._unnoted and len(self._unnoted) < _UNNOTED_MAX:
            self._unnoted[token.gid] = now
            if self._noting is None or self._noting.done():
                self._noting = asyncio.create_task(self._note_all())

    async def finish(self) -> None:
        """Write what is left, if the store takes it; what is just being written may be written again."""
        if self._noting is not None:
            self._noting.cancel()
            await asyncio.wait({self._noting})
        if self._unnoted:
            await self._note()

    async def _note_all(self) -> None:
        while self._unnoted:
            if not await self._note():
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _note(self) -> bool:
        """Write what there is now; False if the store did not take it."""
        used = dict(self._unnoted)
        try:
            await self._store.touch_tokens(used)
        except StoreUnavailable as error:
            logger.warning("the last use of tokens cannot be noted yet: %s", error)
            return False
        for gid in used:
            del self._unnoted[gid]
        return True


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
        self._last_uses = _LastUses(store)

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
            self._last_uses.add(token, now)
        return token

    async def finish(self) -> None:
        """Write down which tokens were used, as far as that is not done."""
        await self._last_uses.finish()

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
