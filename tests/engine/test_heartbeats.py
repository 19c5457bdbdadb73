"""Heartbeats: after so much quiet, spread, and only then (contract §6, §12.2)."""

from __future__ import annotations

from tests.engine.rig import HOUR, Rig


async def test_an_event_beside_an_overdue_heartbeat_is_one_delivery(rig: Rig) -> None:
    """Both reasons to claim a webhook hold at once; it is claimed once, and the event is what is sent."""
    await rig.establish()
    await rig.run_once()
    rig.clock.turn(9 * HOUR)
    await rig.publish("a")
    assert await rig.run_once() == 1
    assert [post.names for post in rig.target.posts] == [["a"]]
