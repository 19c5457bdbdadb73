"""Ordinary exchanges: what is sent, what comes back, and how connections are kept, shared and given up."""

import asyncio
import gzip
from dataclasses import replace

import pytest

from tests.descriptors import none_left
from tests.transport.conftest import (
    LONG,
    RULES,
    SHORT,
    MakeSender,
    answer,
    close_and_check,
    delivery,
    post,
    trouble,
    until,
)
from tests.transport.peers import OK, Behaviour, Wire, answering, listening
from tidings.model import Answer, Delivery, NoAnswer, Reply, Trouble
from tidings.transport import CachingResolver, Sender, SenderSettings, pool
from tidings.transport.sender import _Coming


async def test_a_delivery_arrives_as_it_was_given(sender: Sender) -> None:
    async with answering() as target:
        reply = answer(await post(sender, target.url("/hook?a=%20b"), body=b'{"events":[]}'))
        assert (reply.status, reply.reason, reply.body) == (200, "OK", b"ok")
        assert reply.headers == (("content-length", "2"),)
        assert target.requests == [
            b"POST /hook?a=%%20b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
            b'X-Hook-Secret: s3cret\r\nContent-Length: 13\r\n\r\n{"events":[]}' % target.port
        ]


@pytest.mark.parametrize("status", [200, 201, 204, 301, 302, 307, 308, 400, 401, 410, 429, 500, 503])
async def test_any_status_is_an_answer_and_no_redirect_is_followed(sender: Sender, status: int) -> None:
    async with answering() as elsewhere:
        response = b"HTTP/1.1 %d X\r\nLocation: %s\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\n\r\n"
        async with answering(response % (status, elsewhere.url().encode())) as target:
            for _ in range(2):
                assert answer(await post(sender, target.url())).status == status
            assert b"ookie" not in b"".join(target.requests)
        assert elsewhere.connections == 0


@pytest.mark.parametrize("size", [0, 1, 65_536, 1 << 20])
async def test_a_body_of_any_size_arrives(sender: Sender, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with answering() as target:
        assert answer(await post(sender, target.url(), body=body)).status == 200
        assert target.requests[0].partition(b"\r\n\r\n")[2] == body


async def test_no_proxy_is_read_from_the_environment(
    make_sender: MakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with answering() as target:
        assert answer(await post(make_sender(), target.url())).status == 200


async def test_a_header_that_would_split_the_request_is_our_own_fault(sender: Sender) -> None:
    async with answering() as target:
        with pytest.raises(ValueError, match="X-A"):
            await sender.post(Delivery(target.url(), (("X-A", "b\r\nX-C: d"),), b"", LONG))
        assert target.connections == 0


@pytest.mark.parametrize(
    "url", ["http://127.0.0.2:8080/", "http://user@127.0.0.1/", "nonsense", "http://a b/"]
)
async def test_a_url_that_is_no_target_is_refused_and_not_raised(sender: Sender, url: str) -> None:
    trouble(await post(sender, url), Trouble.REFUSED_ADDRESS, "target: ")


async def test_what_the_settings_close_is_refused_at_each_delivery(make_sender: MakeSender) -> None:
    """A webhook may be older than the setting."""
    async with answering() as target:
        https_only = make_sender(rules=replace(RULES, require_https=True))
        trouble(await post(https_only, target.url()), Trouble.REFUSED_ADDRESS, "Must begin with https://")
        port_denied = make_sender(rules=replace(RULES, deny_ports=frozenset((target.port,))))
        trouble(await post(port_denied, target.url()), Trouble.REFUSED_ADDRESS, f"Port {target.port} is not")
        assert target.connections == 0


async def test_nobody_listens(sender: Sender) -> None:
    async with answering() as target:
        url = target.url()
    trouble(await post(sender, url), Trouble.CONNECT, "refused the connection")


async def test_no_encoding_is_asked_for_and_none_is_undone(sender: Sender) -> None:
    packed = gzip.compress(b"\0" * 10_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with answering(head + packed) as target:
        assert answer(await post(sender, target.url())).body == packed
        assert b"accept" not in target.requests[0].lower()


async def test_an_answer_before_the_request_was_read_counts_and_ends_the_connection(sender: Sender) -> None:
    async def behave(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined] # a socket's transport is a ReadTransport
        await wire.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!")
        await asyncio.sleep(60)

    async with listening(behave) as target:
        reply = answer(await post(sender, target.url(), body=b"x" * (8 << 20)))
        assert (reply.status, reply.body) == (413, b"no!")
        assert sender.open_connections == 0


async def test_a_target_that_speaks_first_is_heard_once_at_most(sender: Sender) -> None:
    async def behave(wire: Wire) -> None:
        await wire.send(OK)
        await wire.until_gone()

    async with listening(behave) as target:
        reply = await post(sender, target.url())
        # Which of the two depends on whether its bytes or ours were first.
        if isinstance(reply, NoAnswer):
            trouble(reply, Trouble.PROTOCOL, "spoke before it was asked")
        else:
            assert answer(reply).status == 200
        assert target.connections == 1


# -- keeping connections ---------------------------------------------------------------------------


async def test_a_connection_is_used_again(sender: Sender) -> None:
    async with answering() as target:
        for _ in range(20):
            answer(await post(sender, target.url()))
        assert target.connections == 1
        assert (sender.open_connections, sender.idle_connections) == (1, 1)


async def test_the_connection_used_last_is_used_first(sender: Sender) -> None:
    served: list[int] = []

    async def behave(wire: Wire) -> None:
        while True:
            await wire.request()
            served.append(wire.number)
            await wire.send(OK)

    async with listening(behave) as target:
        await asyncio.gather(*(post(sender, target.url()) for _ in range(3)))
        assert sender.idle_connections == 3
        for _ in range(6):
            await post(sender, target.url())
        assert len(set(served[3:])) == 1


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nevil!",
        OK + b"garbage",
    ],
    ids=["close", "1.0", "a second response", "garbage"],
)
async def test_a_connection_that_must_not_be_used_again_is_not(sender: Sender, response: bytes) -> None:
    async with answering(response) as target:
        for number in (1, 2, 3):
            assert answer(await post(sender, target.url())).body == b"ok"
            assert (target.connections, sender.open_connections) == (number, 0)


async def test_bytes_that_nobody_asked_for_never_answer_the_next_request(sender: Sender) -> None:
    async def behave(wire: Wire) -> None:
        await wire.request()
        await wire.send(OK)
        await asyncio.sleep(0.01)
        await wire.send(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
        await wire.until_gone()

    async with listening(behave) as target:
        answer(await post(sender, target.url()))
        await until(lambda: sender.open_connections == 0)
        assert answer(await post(sender, target.url())).status == 200
        assert target.connections == 2


async def test_an_unused_connection_is_closed_in_time(make_sender: MakeSender) -> None:
    sender = make_sender(idle_seconds=0.5)
    async with answering() as target:
        await asyncio.gather(*(post(sender, target.url()) for _ in range(4)))
        assert sender.idle_connections == 4
        await until(lambda: sender.open_connections == 0 and target.open_now == 0)
        answer(await post(sender, target.url()))


async def test_an_old_connection_is_not_used_again(sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CONNECTION_AGE_MAX_SECONDS", -1.0)
    async with answering() as target:
        for number in (1, 2):
            answer(await post(sender, target.url()))
            assert (target.connections, sender.open_connections) == (number, 0)


# -- stale connections -----------------------------------------------------------------------------


def giving_up(after: int, *, how: str = "close", last_words: bytes = b"") -> tuple[list[bytes], Behaviour]:
    """A target whose first connection answers `after` requests, takes one more, and gives up on it."""
    taken: list[bytes] = []

    async def behave(wire: Wire) -> None:
        while True:
            taken.append(await wire.request())
            if wire.number == 1 and len(taken) > after:
                if last_words:
                    await wire.send(last_words)
                if how == "reset":
                    wire.reset()
                return
            await wire.send(OK)

    return taken, behave


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_stale_connection_is_replaced_once(sender: Sender, how: str) -> None:
    taken, behave = giving_up(1, how=how)
    async with listening(behave) as target:
        answer(await post(sender, target.url(), body=b"1"))
        assert answer(await post(sender, target.url(), body=b"2")).status == 200
        assert [request[-1:] for request in taken] == [b"1", b"2", b"2"]
        assert target.connections == 2


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
async def test_a_kept_connection_that_ends_before_the_request_is_written_is_replaced(
    sender: Sender, words: bytes
) -> None:
    """Requests are written together in the next turn of the loop; whatever the target did before was no answer."""
    async with answering() as target:
        answer(await post(sender, target.url()))
        (connection,) = sender._pool._idle
        coming = sender.post(delivery(target.url(), body=b"2"))
        if words:
            connection.data_received(words)
        else:
            connection.connection_lost(None)
        assert answer(await coming).status == 200
        assert target.connections == 2
        assert [request[-1:] for request in target.requests[1:]] == [b"2"]


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_fresh_connection_that_dies_is_not_tried_again(sender: Sender, how: str) -> None:
    taken, behave = giving_up(0, how=how)
    async with listening(behave) as target:
        trouble(await post(sender, target.url()), Trouble.CLOSED)
        assert len(taken) == target.connections == 1


async def test_a_kept_connection_that_dies_after_a_byte_is_not_tried_again(sender: Sender) -> None:
    taken, behave = giving_up(1, last_words=b"H")
    async with listening(behave) as target:
        answer(await post(sender, target.url()))
        trouble(await post(sender, target.url()), Trouble.CLOSED, "before its answer was complete")
        assert (len(taken), target.connections) == (2, 1)


async def test_a_kept_connection_that_falls_silent_is_not_tried_again(sender: Sender) -> None:
    async def behave(wire: Wire) -> None:
        await wire.request()
        await wire.send(OK)
        await wire.until_gone()

    async with listening(behave) as target:
        answer(await post(sender, target.url()))
        trouble(
            await post(sender, target.url(), timeout=SHORT), Trouble.TIMEOUT, "did not answer within 400 ms"
        )
        assert target.connections == 1


async def test_a_target_that_always_gives_up_on_kept_connections_is_asked_twice_at_most(
    sender: Sender,
) -> None:
    taken: list[int] = []

    async def behave(wire: Wire) -> None:
        await wire.request()
        taken.append(wire.number)
        if wire.number == 1:
            await wire.send(OK)
            await wire.request()
            taken.append(wire.number)

    async with listening(behave) as target:
        answer(await post(sender, target.url()))
        trouble(await post(sender, target.url()), Trouble.CLOSED, "without an answer")
        assert taken == [1, 1, 2]


# -- bounds ----------------------------------------------------------------------------------------


async def slowly(wire: Wire) -> None:
    while True:
        await wire.request()
        await asyncio.sleep(0.01)
        await wire.send(OK)


async def test_one_origin_gets_no_more_than_its_share(make_sender: MakeSender) -> None:
    sender = make_sender(concurrency=8)
    async with listening(slowly) as target:
        replies = await asyncio.gather(*(post(sender, target.url()) for _ in range(12)))
        assert all(isinstance(reply, Answer) for reply in replies)
        assert target.open_most == target.connections == 2


async def test_a_lane_is_kept_for_a_delivery_that_has_not_begun(make_sender: MakeSender) -> None:
    """The last exchange of an origin ends between a delivery's post and its first step: both still share one lane."""
    sender = make_sender(concurrency=8, per_origin=1, idle_seconds=0.05)
    async with listening(slowly) as target:
        answer(await post(sender, target.url()))
        first = sender.post(delivery(target.url()))
        second = asyncio.ensure_future(sender.post(delivery(target.url())))
        first.cancel()
        third = asyncio.ensure_future(sender.post(delivery(target.url())))
        for reply in await asyncio.gather(second, third):
            answer(reply)
        # The cancelled one's connection may still look open to the target when the next is.
        assert target.open_most <= 2
        await until(lambda: sender.open_connections == 0)
        assert sender._pool.lane_count == 0


async def test_a_delivery_cancelled_before_it_begins_leaves_no_lane(sender: Sender) -> None:
    async with answering() as target:
        task = asyncio.ensure_future(sender.post(delivery(target.url())))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: sender._pool.lane_count == 0)
        assert target.connections == 0


async def test_a_delivery_cancelled_just_before_its_reply_is_told_stays_cancelled(sender: Sender) -> None:
    """What is told then is told to nobody, and is no mistake."""
    async with answering() as target:
        coming = sender.post(delivery(target.url()))
        assert isinstance(coming, _Coming)
        coming.cancel()
        coming.told(NoAnswer(Trouble.CLOSED, "The target closed the connection"))
        coming.told(RuntimeError("a mistake of ours"))
        with pytest.raises(asyncio.CancelledError):
            await coming


async def test_all_origins_together_get_no_more_than_the_concurrency(make_sender: MakeSender) -> None:
    sender = make_sender(concurrency=3, per_origin=2, connections=3)
    running = most = 0

    async def counted(wire: Wire) -> None:
        nonlocal running, most
        while True:
            await wire.request()
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1
            await wire.send(OK)

    async with listening(counted) as one, listening(counted) as two, listening(counted) as three:
        targets = [target.url() for _ in range(4) for target in (one, two, three)]
        replies = await asyncio.gather(*(post(sender, url) for url in targets))
        assert all(isinstance(reply, Answer) for reply in replies)
        assert most == 3
        assert sender.open_connections <= 3


async def test_the_connection_unused_for_longest_makes_room(make_sender: MakeSender) -> None:
    sender = make_sender(concurrency=2, connections=2)
    async with answering() as one, answering() as two, answering() as three:
        for target in (one, two, one, three):
            answer(await post(sender, target.url()))
        await until(lambda: two.open_now == 0)
        assert (one.open_now, three.open_now, sender.open_connections) == (1, 1, 2)
        answer(await post(sender, one.url()))
        assert one.connections == 1


async def test_without_a_descriptor_no_target_is_to_blame(sender: Sender) -> None:
    async with answering() as target:
        with none_left():
            reply = await post(sender, target.url())
        trouble(reply, Trouble.CONNECT, "this service has too many open files", ours=True)
        assert answer(await post(sender, target.url())).status == 200


async def test_who_waits_for_a_place_waits_no_longer_than_its_deadline(make_sender: MakeSender) -> None:
    sender = make_sender(concurrency=1)

    async def silent(wire: Wire) -> None:
        await wire.until_gone()

    async with listening(silent) as target, answering() as other:
        first = asyncio.ensure_future(sender.post(delivery(target.url(), timeout=LONG)))
        await until(lambda: target.connections == 1)
        # The other target has no part in it.
        for url, ours in ((target.url(), False), (other.url(), True)):
            reply = await post(sender, url, timeout=SHORT // 2)
            trouble(reply, Trouble.TIMEOUT, "This service was busy", ours=ours)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert answer(await post(sender, other.url())).status == 200


async def test_a_hundred_dead_targets_do_not_hold_up_a_healthy_one(make_sender: MakeSender) -> None:
    sender = make_sender(concurrency=128, per_origin=100)

    async def silent(wire: Wire) -> None:
        await wire.until_gone()

    async with listening(silent) as dead, answering() as healthy:
        waiting = [asyncio.create_task(post(sender, dead.url(), timeout=LONG)) for _ in range(100)]
        await until(lambda: dead.connections == 100)
        for _ in range(50):
            answer(await post(sender, healthy.url(), timeout=LONG // 2))
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await until(lambda: dead.open_now == 0)
        assert sender.open_connections == 1


# -- cancelling and closing ------------------------------------------------------------------------


async def test_a_cancelled_delivery_closes_its_connection_and_gives_back_its_place(
    make_sender: MakeSender,
) -> None:
    sender = make_sender(concurrency=1)
    stuck = asyncio.Event()

    async def behave(wire: Wire) -> None:
        await wire.request()
        if wire.number == 1:
            stuck.set()
            await wire.until_gone()
        await wire.send(OK)

    async with listening(behave) as target:
        task = asyncio.ensure_future(sender.post(delivery(target.url())))
        await stuck.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: sender.open_connections == 0)
        answer(await post(sender, target.url()))


@pytest.mark.parametrize("stale", [False, True])
async def test_a_cancelled_delivery_on_a_kept_connection_gives_back_its_place(
    make_sender: MakeSender, stale: bool
) -> None:
    """Also while it is posted once more, on a fresh connection."""
    sender = make_sender(concurrency=1)
    stuck = asyncio.Event()
    taken: list[bytes] = []

    async def behave(wire: Wire) -> None:
        while True:
            taken.append((await wire.request())[-1:])
            if taken == [b"1", b"2"] and stale:
                return
            if taken[-1] == b"2":
                stuck.set()
                await wire.until_gone()
            await wire.send(OK)

    async with listening(behave) as target:
        answer(await post(sender, target.url(), body=b"1"))
        cancelled = asyncio.ensure_future(sender.post(delivery(target.url(), body=b"2")))
        await stuck.wait()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await until(lambda: sender.open_connections == 0)
        answer(await post(sender, target.url(), body=b"3"))
        assert taken == [b"1", *[b"2"] * (1 + stale), b"3"]


async def test_closing_ends_what_is_in_flight(resolver: CachingResolver) -> None:
    sender = Sender(SenderSettings(rules=RULES), resolver)

    async def silent(wire: Wire) -> None:
        await wire.until_gone()

    async with listening(silent) as target:
        tasks = [asyncio.ensure_future(sender.post(delivery(target.url()))) for _ in range(3)]
        await until(lambda: target.connections == 3)
        await close_and_check(sender)
        for reply in await asyncio.gather(*tasks):
            trouble(reply, Trouble.CLOSED, "This service is stopping", ours=True)
        with pytest.raises(RuntimeError, match="closed"):
            await sender.post(delivery(target.url()))


async def test_what_waits_when_the_sender_closes_is_not_sent(resolver: CachingResolver) -> None:
    sender = Sender(SenderSettings(rules=RULES, concurrency=1), resolver)

    async def silent(wire: Wire) -> None:
        await wire.until_gone()

    async with listening(silent) as target, answering() as other:
        first = asyncio.ensure_future(sender.post(delivery(target.url())))
        await until(lambda: target.connections == 1)
        waiting = asyncio.ensure_future(sender.post(delivery(other.url())))
        await sender.close()
        for reply in await asyncio.gather(first, waiting):
            trouble(reply, Trouble.CLOSED, "This service is stopping", ours=True)
        assert other.connections == 0
        assert sender.open_connections == 0


async def test_an_idle_sender_keeps_nothing_of_targets_it_no_longer_posts_to(make_sender: MakeSender) -> None:
    sender = make_sender(concurrency=2, per_origin=1)
    for _ in range(5):
        async with answering() as target:
            await asyncio.gather(*(post(sender, target.url()) for _ in range(3)))
    await until(lambda: sender.open_connections == 0)
    assert sender._pool.lane_count == 0


async def test_answers_and_troubles_in_any_order_leave_nothing_behind(make_sender: MakeSender) -> None:
    sender = make_sender(concurrency=16, per_origin=4, connections=16)

    async def moody(wire: Wire) -> None:
        while True:
            request = await wire.request()
            mood = request[-1] % 5
            if mood == 0:
                wire.reset()
                return
            if mood == 1:
                await wire.send(b"nonsense\r\n")
            elif mood == 2:
                await wire.until_gone()
                return
            else:
                await wire.send(OK)

    async with listening(moody) as one, listening(moody) as two:
        posts = [post(sender, (one, two)[n % 2].url(), body=bytes((n,)), timeout=SHORT) for n in range(120)]
        replies: list[Reply] = await asyncio.gather(*posts)
        assert {type(reply) for reply in replies} == {Answer, NoAnswer}
        assert sender.open_connections == sender.idle_connections <= 8
        await until(lambda: one.open_now + two.open_now == sender.open_connections)
