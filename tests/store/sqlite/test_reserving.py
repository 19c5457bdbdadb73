"""What it costs to queue behind an equal create: whoever does asks again and again."""

from functools import partial

from tests.store.building import AMPLE, MINUTE, NOON, OTHER_PROJECT, OWNER, PROJECT, Case
from tests.store.sqlite.test_scale import ALLOWANCE, Steps
from tidings.store.sqlite import MEMORY, open_store


async def test_to_queue_costs_no_more_however_many_webhooks_the_owner_has() -> None:
    counted = []
    for count in (10, 500):
        store = open_store(MEMORY, migrate=True, generation="g", key_id="k")
        case = await Case.on(store)
        for number in range(count):
            await case.establish(f"http://receiver.example/{number}", resource=OTHER_PROJECT)
        reserve = partial(
            store.reserve,
            owner=OWNER,
            resource=PROJECT,
            target="http://receiver.example/",
            quotas=AMPLE,
            now=NOON,
            until=NOON + MINUTE,
        )
        assert await reserve(key="first") is not None
        counted.append(await Steps().of(store, partial(reserve, key="second")))
        await store.close()
    few, many = counted
    assert 0 < many <= few * ALLOWANCE
