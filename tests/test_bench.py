"""The benchmark runs; what it measures is nobody's business here."""

from pathlib import Path

from bench import machine, scenarios


def test_the_service_starts_and_answers() -> None:
    assert scenarios.cold_start() > 0


def test_the_way_from_publish_to_receipt_is_measured(tmp_path: Path) -> None:
    median, p99 = scenarios.latency(tmp_path, seconds=0.2)
    assert 0 < median <= p99


def test_there_is_a_yardstick_on_every_machine(tmp_path: Path) -> None:
    with machine.own_receiver() as port:
        _, posts = machine.posts_per_second(tmp_path, port, seconds=1)
    assert posts > 0
    assert machine.fsyncs_per_second(tmp_path, seconds=0.1) > 0
