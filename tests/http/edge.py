"""The service in-process: everything as it is served, but for the network, the clock and the dice.

The store is a real SQLite file, the application the one `runtime` puts together; requests enter through ASGI. Where
deliveries would go, a function answers; time stands still until it is turned.
"""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import httpx

from tests.http import described
from tests.sending import Posting
from tests.serving import PROJECT, SECTION, TASK, USER, WORKSPACE
from tidings.config import Settings
from tidings.config.values import SqliteFile
from tidings.dispatcher import Clocks
from tidings.model import Answer, Delivery, NoAnswer, Reply, Trouble
from tidings.runtime import Service, assemble
from tidings.sealing import Sealer
from tidings.store.sqlite import SqliteStore, open_store

TOKEN: Final = "0/token-of-the-edge"
TARGET: Final = "https://receiver.example/hook"
HOST: Final = "tidings.test:8080"
API: Final = "/api/1.0"
# Before a path that does not lie below the API's base.
ROOT: Final = "!"
SECOND: Final = 1_000_000
# 2026-02-22T02:06:58.158Z, where the clock stands first.
START: Final = 1_771_726_018_158_000
# A second workspace with a project, which the tokens of tests may be kept out of.
OTHER_WORKSPACE: Final = "1441"
OTHER_PROJECT: Final = "9775309"
TEAM: Final = "1332"

Opener = Callable[..., Awaitable["Edge"]]
Target = Callable[[Delivery], Awaitable[Reply]]


class Clock:
    """Time as the service sees it, in microseconds: it passes only when it is turned."""

    def __init__(self) -> None:
        self.now = START

    def turn(self, *, seconds: float) -> None:
        self.now += round(seconds * SECOND)


async def shake(delivery: Delivery) -> Reply:
    """The right answer to a handshake, and to every delivery."""
    return Answer(200, "OK", tuple((name.lower(), value) for name, value in delivery.headers), b"")


def answering(
    status: int, *, headers: Mapping[str, str] | None = None, body: bytes = b"", echo: bool = False
) -> Target:
    """A target that always answers so."""

    async def answer(delivery: Delivery) -> Reply:
        echoed = dict(delivery.headers).get("X-Hook-Secret", "") if echo else None
        more = (("x-hook-secret", echoed),) if echoed is not None else ()
        return Answer(status, "", (*(headers or {}).items(), *more), body)

    return answer


def silent(trouble: Trouble, text: str) -> Target:
    """A target that cannot be reached, for this reason."""

    async def answer(delivery: Delivery) -> Reply:
        return NoAnswer(trouble, text)

    return answer


class Edge:
    """One service in-process. `target` is how receivers answer from now on; `posted` is what they were sent."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        self.target: Target = shake
        self.clock = Clock()
        self.posted: list[Delivery] = []
        self._settings = Settings(database=SqliteFile(path), bootstrap_token=TOKEN, **settings)
        self._sealer = Sealer(bytes(32))

    async def __aenter__(self) -> Self:
        self.store: SqliteStore = open_store(
            str(self.path), migrate=True, generation="edge", key_id=self._sealer.key_id
        )
        clocks = Clocks(now=lambda: self.clock.now, elapsed=lambda: self.clock.now, jitter=lambda: 0.5)
        self.service: Service = assemble(
            self._settings,
            self.store,
            Posting(self._post),
            self._sealer,
            clocks=clocks,
            dice=random.Random(1),
        )
        await self.service.prepare(("127.0.0.1", 8080))
        transport = httpx.ASGITransport(self.service.application, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}", trust_env=False)
        await self._seed()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.client.aclose()
        await self.store.close()

    async def _post(self, delivery: Delivery) -> Reply:
        self.posted.append(delivery)
        return await self.target(delivery)

    async def _seed(self) -> None:
        await self.ask(
            "POST",
            "/resources",
            data=[
                {"gid": WORKSPACE, "resource_type": "workspace", "name": "Home"},
                {"gid": TEAM, "resource_type": "team", "name": "Engineering", "parents": [WORKSPACE]},
                {"gid": PROJECT, "resource_type": "project", "name": "Bugs", "parents": [TEAM]},
                {"gid": SECTION, "resource_type": "section", "name": "New", "parents": [PROJECT]},
                {
                    "gid": TASK,
                    "resource_type": "task",
                    "resource_subtype": "default_task",
                    "name": "Mend it",
                    "parents": [PROJECT, SECTION],
                },
                {"gid": OTHER_WORKSPACE, "resource_type": "workspace", "name": "Away"},
                {
                    "gid": OTHER_PROJECT,
                    "resource_type": "project",
                    "name": "Secret",
                    "parents": [OTHER_WORKSPACE],
                },
            ],
        )

    # -- calls -------------------------------------------------------------------------------------

    async def api(
        self,
        method: str,
        path: str,
        *,
        data: Any = None,
        token: str | None = TOKEN,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        """One call, whatever it answers, so long as that is described.

        `data` goes out as `{"data": …}`; `more` is httpx's own.
        """
        if data is not None:
            more["json"] = {"data": data}
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token}")
        url = path if path.startswith(("http:", "https:", ROOT)) else API + path
        response = await self.client.request(method, url.removeprefix(ROOT), headers=sent, **more)
        described.check(response)
        return response

    async def ask(self, method: str, path: str, **more: Any) -> Any:
        """One call that must succeed; its `data`."""
        response = await self.api(method, path, **more)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()["data"]

    async def create(self, resource: str = PROJECT, target: str = TARGET, **more: Any) -> Any:
        """Establish a webhook; its record."""
        filters = more.pop("filters", None)
        data = {"resource": resource, "target": target, **({} if filters is None else {"filters": filters})}
        return await self.ask("POST", "/webhooks", data=data, **more)

    async def create_many(self, count: int, *, resource: str = PROJECT) -> list[str]:
        """Establish webhooks to so many targets, one after the other; their gids."""
        return [(await self.create(resource, f"{TARGET}/{number}"))["gid"] for number in range(count)]

    async def new_token(
        self,
        *,
        user: str = USER,
        app: str = "another",
        scopes: Sequence[str] | None = None,
        workspaces: Sequence[str] | None = None,
        **more: Any,
    ) -> str:
        """Make a token with these rights; its text."""
        data = {"user": user, "app": app, "scopes": scopes, "workspaces": workspaces, **more}
        made = await self.ask("POST", "/tokens", data={key: value for key, value in data.items() if value})
        return str(made["token"])

    async def deliver(self) -> None:
        """Deliver everything that is due now."""
        while await self.service.dispatcher.run_once():
            pass

    # -- what is stored ----------------------------------------------------------------------------

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row that a caller could have changed, by table: what a refused request must leave as it is."""
        return dump(self.path)


# What the service notes for itself, whoever calls: when a token was used, how far it has marked, who runs.
_OWN_NOTES: Final = frozenset({"reservations", "holders", "meta", "sqlite_sequence"})


def dump(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row that a caller could have changed, by table."""
    connection = sqlite3.connect(path)
    try:
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if name not in _OWN_NOTES and not name.startswith("sqlite_stat")
        ]
        content = {}
        for table in tables:
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            kept = ", ".join(name for name in columns if name != "last_used_at")
            content[table] = sorted(connection.execute(f"SELECT {kept} FROM {table}"), key=repr)
        return content
    finally:
        connection.close()


async def gather(*calls: Awaitable[httpx.Response]) -> list[httpx.Response]:
    """Make calls at once; their answers in the order given."""
    return list(await asyncio.gather(*calls))
