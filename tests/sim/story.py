"""A failing world in words: what happened to the webhook concerned, and to the machine, before it went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tests.sim.universe import SECOND
from tests.sim.world import Result
from tidings.model import Micros

# Steps that are told, at most.
STEPS_MAX: Final = 40


def clock(at: Micros) -> str:
    """A true time as days, hours, minutes and seconds since the world began."""
    seconds, micros = divmod(at, SECOND)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}d {hour:02}:{minute:02}:{second:02}.{micros:06}"


def tell(result: Result) -> str:
    """The story of a result that has a violation."""
    violation = result.violation
    assert violation is not None, "nothing went wrong"
    plan = result.plan
    lines = [
        f"Seed {plan.seed}: {violation.invariant}: {violation.text}"
        + (f" (webhook {violation.webhook})" if violation.webhook else ""),
        f"  {plan.processes} processes, batches of {plan.policy.batch_max}, {plan.concurrency} slots; "
        f"{len(plan.deeds)} deeds in {clock(plan.span)}",
    ]
    steps = [step for step in result.trace if _concerns(step, violation.webhook)]
    if len(steps) > STEPS_MAX:
        lines.append(f"  … {len(steps) - STEPS_MAX} steps before")
    lines += [f"  {line}" for line in map(_words, steps[-STEPS_MAX:])]
    lines.append(f"  {clock(violation.at)}  HERE: {violation.text}")
    return "\n".join(lines)


def _concerns(step: tuple[Any, ...], webhook: str | None) -> bool:
    what, about = step[1], step[3]
    return webhook is None or about == webhook or (about is None and what not in ("handshake", "refused"))


def _words(step: tuple[Any, ...]) -> str:
    at, what, process, webhook, *details = step
    return (
        f"{clock(at)}  {'process ' + str(process) if process is not None else 'the world':10} {what}"
        + "".join(_details(webhook, details))
    )


def _details(webhook: str | None, details: list[Any]) -> Iterator[str]:
    if webhook is not None:
        yield f" {webhook}"
    for each in details:
        yield f" {each}"
