"""Names: a resolver of our own answers as it likes, and what was forbidden was never dialled.

127.0.0.1 is allowed and 127.0.0.2 is not (`RULES`); on both, a socket listens at the same port and counts.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network

import pytest

from tests.transport.conftest import LONG, SHORT, MakeSender, answer, post, trouble, until
from tests.transport.peers import SERVFAIL, Name, NameServer, Peer, Wire, answering, deaf, listening
from tidings.model import Trouble
from tidings.targets import Rules
from tidings.transport import AresLookup, CachingResolver, Resolution, Sender, Unresolved, ares, dial
from tidings.transport import resolver as resolver_module

GOOD = "127.0.0.1"
BAD = "127.0.0.2"
A = 1
AAAA = 28


@dataclass
class Place:
    good: Peer
    bad: Peer

    def url(self, name: str) -> str:
        return self.good.url(host=name)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with answering(host=GOOD) as good, answering(host=BAD, port=good.port) as bad:
        yield Place(good, bad)
        assert bad.connections == 0, "a forbidden address was dialled"


async def test_a_name_is_resolved_and_named_in_the_request(
    sender: Sender, names: NameServer, place: Place
) -> None:
    names.say("hook.test", [GOOD])
    assert answer(await post(sender, place.url("hook.test"))).status == 200
    assert f"Host: hook.test:{place.good.port}\r\n".encode() in place.good.requests[0]


async def test_the_observer_would_see_a_forbidden_connection(
    make_sender: MakeSender, names: NameServer
) -> None:
    """The counterpart: with the address opened, the very same post does arrive there."""
    names.say("hook.test", [BAD])
    sender = make_sender(rules=Rules(allowed=(ip_network("127.0.0.0/8"),)))
    async with answering(host=BAD) as bad:
        answer(await post(sender, bad.url(host="hook.test")))
        assert bad.connections == 1


FORBIDDEN = [
    [BAD],
    [GOOD, BAD],
    [BAD, GOOD],
    [GOOD, "::ffff:127.0.0.2"],
    ["10.0.0.1"],
    ["169.254.169.254"],
    ["0.0.0.0"],
    ["::"],
    ["fe80::1"],
    ["fd00:ec2::254"],
    ["64:ff9b::7f00:2"],
    ["2002:7f00:2::1"],
    ["::127.0.0.2"],
    ["8.8.8.8", "192.168.1.1"],
    ["224.0.0.1"],
]


@pytest.mark.parametrize("addresses", FORBIDDEN, ids="+".join)
async def test_one_forbidden_answer_refuses_the_name(
    sender: Sender, names: NameServer, place: Place, addresses: list[str]
) -> None:
    names.say("hook.test", addresses)
    reply = trouble(await post(sender, place.url("hook.test")), Trouble.REFUSED_ADDRESS, "is not allowed")
    assert not any(address in reply.text for address in addresses)
    assert place.good.connections == 0


async def test_wildcard_dns_that_leads_inward_is_refused(
    sender: Sender, names: NameServer, place: Place
) -> None:
    names.say("127.0.0.2.wild.test", [BAD])
    trouble(await post(sender, place.url("127.0.0.2.wild.test")), Trouble.REFUSED_ADDRESS, "loopback")


async def test_a_name_that_turns_bad_is_refused_from_then_on(
    sender: Sender, names: NameServer, place: Place
) -> None:
    names.say("rebind.test", [GOOD], [BAD])
    answer(await post(sender, place.url("rebind.test")))
    for wire in place.good.wires:
        wire.reset()
    await asyncio.sleep(0.02)
    trouble(await post(sender, place.url("rebind.test")), Trouble.REFUSED_ADDRESS)
    assert names.asked["rebind.test", A] == 2


async def test_rebinding_between_judging_and_dialling_has_no_second_question(
    make_sender: MakeSender, names: NameServer, place: Place
) -> None:
    """Every other answer is bad: whichever is judged is the one that counts, in each of many posts."""
    names.say("flip.test", *([GOOD], [BAD]) * 10)
    sender = make_sender(idle_seconds=0.0)
    for number in range(1, 11):
        reply = await post(sender, place.url("flip.test"))
        while sender.open_connections:
            await asyncio.sleep(0.002)
        assert names.asked["flip.test", A] == number
        if number % 2:
            answer(reply)
        else:
            trouble(reply, Trouble.REFUSED_ADDRESS)
    assert place.good.connections == 5


async def test_literal_addresses_are_judged_when_they_are_dialled(sender: Sender, place: Place) -> None:
    trouble(await post(sender, place.bad.url()), Trouble.REFUSED_ADDRESS)
    answer(await post(sender, place.url("[::ffff:127.0.0.1]")))


async def test_no_such_name(sender: Sender, names: NameServer, place: Place) -> None:
    reply = trouble(await post(sender, place.url("nothing.test")), Trouble.DNS, "there is no such name")
    assert "resolved" in reply.text
    assert names.asked["nothing.test", A] == 1


async def test_a_name_without_addresses(sender: Sender, names: NameServer, place: Place) -> None:
    names.say("empty.test", [])
    trouble(await post(sender, place.url("empty.test")), Trouble.DNS, "has no address")


async def test_a_name_server_that_fails(sender: Sender, names: NameServer, place: Place) -> None:
    names.zone["broken.test"] = Name((), rcode=SERVFAIL)
    trouble(await post(sender, place.url("broken.test")), Trouble.DNS, "resolved")


async def test_a_name_with_too_many_addresses(sender: Sender, names: NameServer, place: Place) -> None:
    names.say("many.test", [f"8.8.{n}.1" for n in range(65)])
    trouble(await post(sender, place.url("many.test")), Trouble.DNS, "more than 64 addresses")


async def test_a_slow_name_delays_only_itself(sender: Sender, names: NameServer, place: Place) -> None:
    never = asyncio.Event()
    names.zone["slow.test"] = Name([[GOOD]], when=never)
    names.say("fast.test", [GOOD])
    slow = [asyncio.create_task(post(sender, place.url("slow.test"))) for _ in range(20)]
    for _ in range(5):
        answer(await post(sender, place.url("fast.test")))
    assert not any(task.done() for task in slow)
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    reply = await post(sender, place.url("slow.test"), timeout=SHORT)
    trouble(reply, Trouble.TIMEOUT, "The name of the target did not resolve within 400 ms")
    never.set()


async def test_slow_names_in_any_number_delay_no_other(names: NameServer) -> None:
    """Wave after wave of names that nobody answers for: most are given up by those who asked, none keeps a place."""
    never = asyncio.Event()
    resolver = CachingResolver(AresLookup([names.address]), lookups_max=200)
    for wave in range(10):
        asking = []
        for number in range(100):
            name = f"slow-{wave}-{number}.test"
            names.zone[name] = Name([[GOOD]], when=never)
            asking.append(asyncio.create_task(resolver.resolve(name)))
        await until(partial(names.was_asked, f"slow-{wave}-99.test"))
        names.say(f"fast-{wave}.test", [GOOD])
        assert (await resolver.resolve(f"fast-{wave}.test")).addresses == (GOOD,)
        assert not any(task.done() for task in asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    await resolver.close()


async def test_a_name_that_takes_seconds_is_waited_for(names: NameServer, place: Place) -> None:
    """A name server that was quick until now is not given up after the fraction of a second that it used to take."""
    names.say("quick.test", [GOOD])
    lookup = AresLookup([names.address])
    for _ in range(5):
        await lookup.resolve("quick.test")
    found = asyncio.Event()
    names.zone["far.test"] = Name([[GOOD]], when=found)
    asking = asyncio.create_task(lookup.resolve("far.test"))
    # By the fourth try more than 1.75 s have gone by: all that three would have waited for.
    await until(lambda: asking.done() or names.asked["far.test", A] == 4)
    found.set()
    assert (await asking).addresses == (GOOD,)
    await lookup.close()


async def test_addresses_come_as_they_were_answered(names: NameServer) -> None:
    """They are not sorted: that would take a socket to each before any was judged."""
    addresses = ("10.1.2.3", BAD, "8.8.8.8", GOOD)
    names.say("many.test", addresses)
    lookup = AresLookup([names.address])
    assert (await lookup.resolve("many.test")).addresses == addresses
    await lookup.close()


async def test_the_library_remembers_nothing_for_long(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ares, "FORGET_SECONDS", 0.01)
    names.say("moved.test", [GOOD], [BAD], ttl=3600)
    lookup = AresLookup([names.address])
    assert (await lookup.resolve("moved.test")).addresses == (GOOD,)
    async with asyncio.timeout(5):
        while (await lookup.resolve("moved.test")).addresses != (BAD,):
            await asyncio.sleep(0.005)
    await lookup.close()


async def test_a_closed_look_up_touches_the_library_no_more(
    names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ares, "FORGET_SECONDS", 0.0)
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: faults.append(context))
    names.zone["slow.test"] = Name([[GOOD]], when=asyncio.Event())
    lookup = AresLookup([names.address])
    asking = asyncio.create_task(lookup.resolve("slow.test"))
    await until(partial(names.was_asked, "slow.test"))
    await lookup.close()
    with pytest.raises((Unresolved, asyncio.CancelledError)):
        await asking
    # A timer that is due at once rings in one of the loop's next turns.
    for _ in range(10):
        await asyncio.sleep(0)
    assert faults == []


async def test_name_servers_that_never_answer(names: NameServer) -> None:
    names.zone["silent.test"] = Name([[GOOD]], when=asyncio.Event())
    lookup = AresLookup([names.address], try_seconds=0.1, tries=1)
    with pytest.raises(Unresolved, match="the name servers did not answer"):
        await lookup.resolve("silent.test")
    await lookup.close()


async def test_name_servers_that_cannot_be_reached_say_nothing_of_a_name() -> None:
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as nobody:
        nobody.bind(("127.0.0.1", 0))
        host, port = nobody.getsockname()
    lookup = AresLookup([f"{host}:{port}"], try_seconds=0.1, tries=1)
    caching = CachingResolver(lookup)
    for _ in range(2):
        with pytest.raises(Unresolved, match="no name server could be reached") as caught:
            await caching.resolve("any.test")
        assert caught.value.ours
    await caching.close()


async def test_localhost_means_loopback_and_is_never_asked_for(
    sender: Sender, names: NameServer, place: Place
) -> None:
    for name in ("localhost", "api.localhost", "LOCALHOST."):
        answer(await post(sender, place.url(name)))
    assert not names.asked


async def test_the_next_address_is_tried_when_one_refuses(
    sender: Sender, names: NameServer, place: Place
) -> None:
    names.say("both.test", ["::1", GOOD])
    answer(await post(sender, place.url("both.test")))
    assert place.good.connections == 1


async def test_when_every_address_refuses_it_says_so(sender: Sender, names: NameServer) -> None:
    names.say("both.test", ["::1", GOOD])
    async with answering() as gone:
        url = gone.url(host="both.test")
    trouble(await post(sender, url), Trouble.CONNECT, "refused the connection")


async def test_the_next_address_is_tried_when_one_is_slow(make_sender: MakeSender, names: NameServer) -> None:
    names.say("slow-first.test", ["127.0.0.3", "127.0.0.4"])
    sender = make_sender(rules=Rules(allowed=(ip_network("127.0.0.0/8"),)))
    async with answering(host="127.0.0.4") as target, deaf("127.0.0.3", target.port):
        # In whichever order they are tried, the one that answers wins, and the other leaves nothing behind.
        answer(await post(sender, target.url(host="slow-first.test"), timeout=LONG))
        assert sender.open_connections == 1


@pytest.mark.parametrize(("most", "reached"), [(0, False), (1, True)])
async def test_addresses_tried_beside_a_slow_one_are_bounded(
    make_sender: MakeSender,
    names: NameServer,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    reached: bool,
) -> None:
    monkeypatch.setattr(dial, "BESIDE_MAX", most)
    monkeypatch.setattr(dial, "DIAL_STAGGER_SECONDS", 0.01)
    names.say("slow-first.test", ["127.0.0.3", "127.0.0.4"])
    sender = make_sender(rules=Rules(allowed=(ip_network("127.0.0.0/8"),)))
    async with answering(host="127.0.0.4") as target, deaf("127.0.0.3", target.port):
        reply = await post(sender, target.url(host="slow-first.test"), timeout=LONG if reached else SHORT)
        if reached:
            answer(reply)
        else:
            trouble(reply, Trouble.TIMEOUT, "did not accept")
        assert target.connections == reached
        await until(lambda: sender._dialer._beside.unused)


# -- what is remembered ----------------------------------------------------------------------------


BORDERLINE = [
    "a" * 63 + ".test",
    ".".join(["a" * 61] * 4) + ".test",
    "_under_.score_.test",
    "xn--bcher-kva.test",
    "bücher.test",
    "a--1.b--c.test",
    "1.2.3.4.test",
    "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s.t.u.v.w.x.y.z.test",
    "single",
]


@pytest.mark.parametrize("name", BORDERLINE)
async def test_no_name_makes_the_sender_raise(
    sender: Sender, names: NameServer, place: Place, name: str
) -> None:
    url = place.url(name)
    trouble(await post(sender, url), Trouble.DNS, "there is no such name")
    names.say(name if name.isascii() else name.encode("idna").decode(), [GOOD])
    assert answer(await post(sender, url)).status == 200

    async def hang_up(wire: Wire) -> None:
        await wire.reader.read(1)

    async with listening(hang_up) as target:
        url = target.url(host=name).replace("http:", "https:")
        trouble(await post(sender, url), Trouble.TLS, "closed the connection")


async def test_one_name_is_asked_once_at_a_time(sender: Sender, names: NameServer, place: Place) -> None:
    names.say("hook.test", [GOOD], ttl=60)
    for reply in await asyncio.gather(*(post(sender, place.url("hook.test")) for _ in range(20))):
        answer(reply)
    assert names.asked == {("hook.test", A): 1, ("hook.test", AAAA): 1}


class Script:
    """A resolver that answers from a list, and counts."""

    def __init__(self, *outcomes: Resolution | Unresolved) -> None:
        self.outcomes = list(outcomes)
        self.asked = 0

    async def resolve(self, host: str) -> Resolution:
        self.asked += 1
        outcome = self.outcomes[min(self.asked, len(self.outcomes)) - 1]
        if isinstance(outcome, Unresolved):
            raise outcome
        return outcome

    async def close(self) -> None:
        return


@pytest.mark.parametrize(("ttl", "asked"), [(0.0, 5), (60.0, 1)])
async def test_an_answer_is_believed_as_long_as_it_says(ttl: float, asked: int) -> None:
    source = Script(Resolution((GOOD,), ttl))
    caching = CachingResolver(source, ttl_min=0)
    for _ in range(5):
        assert (await caching.resolve("a.test")).addresses == (GOOD,)
    assert source.asked == asked
    await caching.close()


async def test_the_shortest_belief_spares_the_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Script(Resolution((GOOD,), 0.0))
    caching = CachingResolver(source)
    for _ in range(5):
        await caching.resolve("a.test")
    assert source.asked == 1
    await caching.close()


async def test_the_longest_belief_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "TTL_MAX_SECONDS", 0.0)
    source = Script(Resolution((GOOD,), 1e9))
    caching = CachingResolver(source, ttl_min=0)
    for _ in range(3):
        await caching.resolve("a.test")
    assert source.asked == 3
    await caching.close()


@pytest.mark.parametrize(("negative_ttl", "asked"), [(0.0, 3), (60.0, 1)])
async def test_a_failure_is_believed_for_a_moment(negative_ttl: float, asked: int) -> None:
    source = Script(Unresolved("there is no such name"))
    caching = CachingResolver(source, negative_ttl=negative_ttl)
    for _ in range(3):
        with pytest.raises(Unresolved, match="no such name"):
            await caching.resolve("a.test")
    assert source.asked == asked
    await caching.close()


@pytest.mark.parametrize(("count", "refused"), [(64, False), (65, True), (4_000, True)])
async def test_the_addresses_of_a_name_are_bounded(count: int, refused: bool) -> None:
    """What is refused is not remembered either: thousands of such names would fill the memory."""
    source = Script(Resolution(tuple(f"8.8.{n >> 8}.{n & 255}" for n in range(count)), 60.0))
    caching = CachingResolver(source, negative_ttl=60)
    for _ in range(2):
        if refused:
            with pytest.raises(Unresolved, match="more than 64 addresses"):
                await caching.resolve("a.test")
        else:
            assert len((await caching.resolve("a.test")).addresses) == count
    assert source.asked == 1
    await caching.close()


async def test_names_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "NAMES_MAX", 3)
    source = Script(Resolution((GOOD,), 60.0))
    caching = CachingResolver(source)
    for name in ("a", "b", "c", "a", "d", "a"):
        await caching.resolve(name)
    assert source.asked == 4
    await caching.resolve("b")
    assert source.asked == 5
    await caching.close()


async def test_names_that_have_expired_are_forgotten() -> None:
    """Whoever has thousands of names, each for a moment, fills no memory with them."""
    caching = CachingResolver(Script(Resolution((GOOD,), 0.0)), ttl_min=0.0)
    for number in range(100):
        await caching.resolve(f"{number}.test")
    assert len(caching._known) <= 2
    await caching.close()


async def test_a_question_outlives_whoever_asked_it(names: NameServer, resolver: CachingResolver) -> None:
    gate = asyncio.Event()
    names.zone["late.test"] = Name([[GOOD]], ttl=60, when=gate)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await resolver.resolve("late.test")
    gate.set()
    assert (await resolver.resolve("late.test")).addresses == (GOOD,)
    assert names.asked["late.test", A] == 1


async def test_the_look_up_that_has_taken_longest_makes_room() -> None:
    class Silent(Script):
        async def resolve(self, host: str) -> Resolution:
            self.asked += 1
            await asyncio.Event().wait()
            raise AssertionError

    source = Silent()
    caching = CachingResolver(source, lookups_max=2, negative_ttl=60)
    first, again, second = (asyncio.create_task(caching.resolve(name)) for name in ("a", "a", "b"))
    await until(lambda: source.asked == 2)
    third = asyncio.create_task(caching.resolve("c"))
    for task in (first, again):
        with pytest.raises(Unresolved, match="too many slow names"):
            await task
    await until(lambda: source.asked == 3)
    assert not second.done() and not third.done()
    # Nothing is remembered of a question that was not heard out.
    asked_anew = asyncio.create_task(caching.resolve("a"))
    await until(lambda: source.asked == 4)
    await caching.close()
    with pytest.raises(Unresolved, match="stopping"):
        await asked_anew
    await asyncio.gather(second, third, return_exceptions=True)


async def test_a_fault_of_the_source_reaches_whoever_asked() -> None:
    class Broken(Script):
        async def resolve(self, host: str) -> Resolution:
            raise ZeroDivisionError

    caching = CachingResolver(Broken())
    with pytest.raises(ZeroDivisionError):
        await caching.resolve("a.test")
    await caching.close()


async def test_closing_ends_questions_in_flight(names: NameServer) -> None:
    names.zone["slow.test"] = Name([[GOOD]], when=asyncio.Event())
    caching = CachingResolver(AresLookup([names.address]))
    asking = asyncio.create_task(caching.resolve("slow.test"))
    while not names.asked:
        await asyncio.sleep(0.002)
    await caching.close()
    with pytest.raises(Unresolved, match="this service is stopping"):
        await asking


async def test_the_hosts_file_is_read(names: NameServer) -> None:
    lookup = AresLookup([names.address])
    found = await lookup.resolve("localhost")
    assert set(found.addresses) <= {GOOD, "::1"}
    await lookup.close()
