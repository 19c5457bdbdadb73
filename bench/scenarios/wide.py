"""Other ways to deliver: one event to very many webhooks, over TLS, from several processes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.serving import Service, wait_until

from bench import poster
from bench.filling import project
from bench.receivers import Certificates, Receivers, receivers
from bench.results import Row
from bench.running import Running, changed, data, one_each, prepare, running, steady_rate
from bench.scenarios.context import Bench
from bench.scenarios.rates import SINGLE


def fan_out(bench: Bench) -> list[Row]:
    """One event to very many webhooks on one resource, until the last delivery is on disk.

    They are filled in by SQL, past the quota of a resource.
    """
    count = bench.sizes.fan_out
    spans = []
    with bench.folder() as folder, receivers(folder) as taking:
        prepare(folder, webhooks=count, origins=taking.origins, on_one=project(0))
        with running(folder) as made:
            for _ in range(bench.sizes.runs):
                spans.append(_until_all_have_it(made, count))
    what = f"fan-out of one event to {count:,} webhooks on one resource"
    single = bench.row("deliveries")
    return [
        Row(name="fan_out", what=f"{what}: until the last is on disk", unit="s", figures=spans),
        Row(
            name="fan_out_rate",
            what=f"{what}: deliveries",
            unit="/s",
            figures=[count / span for span in spans],
            yardstick="the single-event deliveries above" if single else "",
            against=[single.figure] if single else [],
        ),
    ]


def _until_all_have_it(made: Running, count: int) -> float:
    wanted, began = made.recorded + count, time.perf_counter()
    made.caller.call("POST", "/events", data([changed(project(0))]))
    wait_until(lambda: made.recorded >= wanted, timeout=120)
    return time.perf_counter() - began


# -- TLS -------------------------------------------------------------------------------------------


def tls(bench: Bench) -> list[Row]:
    """To https targets, on kept connections and on a new one for each delivery; and without TLS on new ones."""
    return [
        _over(bench, "tls_kept", "https targets, connections kept", tls=True, closing=False),
        _over(bench, "tls_new", "https targets, a new connection each", tls=True, closing=True),
        _over(bench, "plain_new", "http targets, a new connection each", tls=False, closing=True),
    ]


def _over(bench: Bench, name: str, what: str, *, tls: bool, closing: bool) -> Row:
    sizes = bench.sizes
    rates, posts = [], []
    with bench.folder() as folder:
        certificates = Certificates.make(folder)
        with receivers(folder, tls=certificates if tls else None, closing=closing) as taking:
            prepare(folder, webhooks=sizes.webhooks, origins=taking.origins)
            with running(folder, TIDINGS_CA_BUNDLE=str(certificates.bundle), **SINGLE) as made:
                for _ in range(sizes.runs):
                    posts.append(_yardstick(bench, folder, taking))
                    rates.append(_single(bench, made))
    return Row(
        name=name,
        what=f"deliveries, {what}",
        unit="/s",
        figures=rates,
        yardstick=f"{poster.TOOL} to the same {taking.kind}",
        against=posts,
    )


def _yardstick(bench: Bench, folder: Path, taking: Receivers) -> float:
    request = poster.Request.delivery(taking.origins[0])
    return poster.posts_per_second(folder, request, seconds=bench.sizes.yardstick_seconds)


def _single(bench: Bench, made: Running) -> float:
    sizes = bench.sizes
    rounds = [one_each(range(sizes.webhooks))]
    return steady_rate(made, rounds, each=sizes.webhooks, seconds=sizes.seconds)


# -- several processes -----------------------------------------------------------------------------


def processes(bench: Bench) -> list[Row]:
    """The same deliveries by one process, by two workers, and with the API and the deliveries apart."""
    alone, workers, split = [], [], []
    with bench.folder() as folder, receivers(folder) as taking:
        prepare(folder, webhooks=bench.sizes.webhooks, origins=taking.origins)
        for _ in range(bench.sizes.runs):
            with running(folder, **SINGLE) as made:
                alone.append(_single(bench, made))
            with running(folder, "--workers", "2", **SINGLE) as made:
                workers.append(_single(bench, made))
            with running(folder, "--no-dispatch", **SINGLE) as made, _dispatching(made.service, folder):
                split.append(_single(bench, made))
    return [
        Row(
            name=name,
            what=f"deliveries, {what}",
            unit="/s",
            figures=rates,
            yardstick="one process",
            against=alone,
        )
        for name, what, rates in (
            ("workers", "serve --workers 2", workers),
            ("split", "serve --no-dispatch beside dispatch", split),
        )
    ]


@contextmanager
def _dispatching(service: Service, folder: Path) -> Iterator[None]:
    """A process beside the service that delivers."""
    command = [str(Path(sys.executable).with_name("tidings")), "dispatch", "--database", service.database]
    with (folder / "dispatch.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=service.environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
