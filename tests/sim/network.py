"""The simulated network: receivers with moods, and the way there and back."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Final

from tests.sim.universe import SECOND, Universe
from tidings.model import Answer, Delivery, Micros, NoAnswer, Reply, Trouble

# What a receiver is like for a while. Those that take a delivery without our hearing of it are the treacherous ones.
MOODS: Final = (
    *("ok", "ok_204", "chatty", "slow", "refuse", "unreachable", "silent", "late", "closes", "gone"),
    *("retry_soon", "retry_long", "retry_date", "flap", "redirect", "garbage", "accepted", "hindered"),
)
OK: Final = Answer(200, "OK", (), b"")
_ANSWERS: Final[dict[str, Reply]] = {
    "ok": OK,
    "ok_204": Answer(204, "No Content", (), b""),
    "chatty": Answer(200, "OK", (("x-hook-secret", "f" * 64),), b"thanks" * 99),
    "closes": NoAnswer(Trouble.CLOSED, "the connection ended"),
    "unreachable": NoAnswer(Trouble.CONNECT, "connection refused"),
    "garbage": NoAnswer(Trouble.PROTOCOL, "not HTTP/1.1"),
    # Whoever sends to it has no descriptor left.
    "hindered": NoAnswer(Trouble.CONNECT, "too many open files", ours=True),
    "refuse": Answer(500, "Server Error", (), b"no"),
    "redirect": Answer(307, "Temporary Redirect", (("location", "/"),), b""),
    "accepted": Answer(202, "Accepted", (), b""),
    "gone": Answer(410, "Gone", (), b""),
}
_TAKEN: Final = ("ok", "ok_204", "chatty", "closes", "accepted")


@dataclass(frozen=True, slots=True)
class Heard:
    """What a receiver does with a delivery: whether it took it, and its answer after a while; None is silence."""

    took: bool
    answer: Reply | None
    after: Micros
    # The wait it asked for, as a number of microseconds or as an instant of the true time of day.
    asked: Micros = 0
    asked_at: Micros | None = None


@dataclass(slots=True)
class Receiver:
    """One host. `moods` are (since when, which), in order; after `healed` it is well."""

    name: str
    moods: Sequence[tuple[Micros, str]]
    healed: bool = False
    # Ids of what it took: a repeat is recognised and answered as the first was.
    taken: set[str] = field(default_factory=set)
    repeats: int = 0

    def mood(self, at: Micros) -> str:
        if self.healed:
            return "ok"
        return self.moods[bisect_right(self.moods, at, key=lambda mood: mood[0]) - 1][1]

    def hear(self, delivery: Delivery, at: Micros, *, day: Micros, dice: random.Random) -> Heard:
        """`day` is the true time of day."""
        mood = self.mood(at)
        if mood == "flap":
            mood = dice.choice(("ok", "refuse"))
        soon = dice.randrange(100, 200_000)
        if mood in _ANSWERS:
            return Heard(mood in _TAKEN, _ANSWERS[mood], soon)
        if mood.startswith("retry"):
            return _ask(mood, soon, day=day, dice=dice)
        timeout = delivery.timeout
        if mood == "slow":
            return Heard(True, OK, timeout * dice.randrange(10, 95) // 100)
        if mood == "late":
            return Heard(True, OK, timeout + dice.randrange(SECOND, 20 * SECOND))
        assert mood == "silent", mood
        return Heard(False, None, 0)


def _ask(mood: str, soon: Micros, *, day: Micros, dice: random.Random) -> Heard:
    """Refuse, and ask for a wait: a few minutes, longer than anyone waits, or until an hour of the day."""
    if mood == "retry_date":
        when = day // SECOND + dice.randrange(-60, 7_000)
        return Heard(False, _later(503, formatdate(when, usegmt=True)), soon, asked_at=when * SECOND)
    seconds = dice.randrange(1, 300) if mood == "retry_soon" else dice.randrange(3_000, 500_000)
    return Heard(False, _later(429 if mood == "retry_soon" else 503, str(seconds)), soon, seconds * SECOND)


def _later(status: int, value: str) -> Answer:
    return Answer(status, "Later", (("retry-after", value),), b"")


def echo(delivery: Delivery, heard: Heard, dice: random.Random) -> Heard:
    """A handshake: who takes it echoes the secret, nearly always."""
    answer = heard.answer
    if not heard.took or not isinstance(answer, Answer) or dice.random() < 0.02:
        return heard
    secret = dict(delivery.headers)["X-Hook-Secret"]
    headers = (
        *(header for header in answer.headers if header[0] != "x-hook-secret"),
        ("x-hook-secret", secret),
    )
    return Heard(True, Answer(answer.status, answer.reason, headers, b""), heard.after)


class Network:
    """Carries deliveries to receivers and answers back, each way taking a while."""

    def __init__(
        self, universe: Universe, receivers: Sequence[Receiver], *, day: Callable[[], Micros]
    ) -> None:
        self._universe = universe
        self._day = day
        self.receivers = {receiver.name: receiver for receiver in receivers}
        self.took: Callable[[Delivery, Micros], None] = lambda delivery, at: None

    def send(self, delivery: Delivery, answered: Callable[[Heard], None]) -> None:
        """`answered` is called when the answer is back at the sender, if there is one."""
        self._universe.after(self._way(), self._arrive, delivery, answered)

    def _way(self) -> Micros:
        dice = self._universe.dice
        return dice.randrange(100, 40_000) if dice.random() < 0.9 else dice.randrange(40_000, 800_000)

    def _arrive(self, delivery: Delivery, answered: Callable[[Heard], None]) -> None:
        universe = self._universe
        receiver = self.receivers[delivery.url.split("/")[2]]
        heard = receiver.hear(delivery, universe.now, day=self._day(), dice=universe.dice)
        if delivery.body == b"{}":
            heard = echo(delivery, heard, universe.dice)
        elif heard.took:
            name = dict(delivery.headers)["X-Tidings-Delivery"]
            receiver.repeats += name in receiver.taken
            receiver.taken.add(name)
            self.took(delivery, universe.now)
        if heard.answer is not None:
            universe.after(heard.after + self._way(), answered, heard)
