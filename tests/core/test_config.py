"""Settings: what each may hold, where it comes from, what is said when it is wrong, and what is never said."""

from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tidings.config import Postgres, Settings, SqliteFile, describe
from tidings.config.values import span, spelled
from tidings.errors import SettingsError
from tidings.targets import DENIED_PORTS

SECOND = 1_000_000
HOUR = 3_600 * SECOND
DAY = 24 * HOUR
KEY = "0123456789abcdef" * 4


def load(environ: Mapping[str, str] | None = None, file: Path | None = None, /, **flags: object) -> Settings:
    return Settings.load(environ or {}, file, flags)


def mistakes(
    environ: Mapping[str, str] | None = None, file: Path | None = None, /, **flags: object
) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(environ, file, **flags)
    return caught.value.mistakes


def toml(folder: Path, text: str) -> Path:
    file = folder / "tidings.toml"
    file.write_text(text)
    return file


# -- defaults --------------------------------------------------------------------------------------


def test_defaults_are_the_promised_ones() -> None:
    settings = load()
    assert settings == Settings()
    assert settings.database == SqliteFile(Path("tidings.db"))
    assert (settings.host, settings.port) == ("127.0.0.1", 8080)
    assert (settings.retry_first, settings.retry_max) == (10 * SECOND, HOUR)
    assert (settings.give_up_after, settings.restore_within, settings.retention) == (DAY, 7 * DAY, 14 * DAY)
    assert (settings.heartbeat_every, settings.delivery_timeout) == (8 * HOUR, 10 * SECOND)
    assert (settings.batch_max, settings.concurrency, settings.rate_limit) == (100, 512, 1500)
    assert (settings.quota_per_resource, settings.quota_per_owner) == (1_000, 10_000)
    assert (settings.strict_success, settings.require_https) == (False, False)
    assert (settings.allow_targets, settings.cors_origins) == ((), ())
    assert settings.deny_ports == DENIED_PORTS
    for absent in ("public_url", "bootstrap_token", "secret_key", "ca_bundle", "egress_proxy", "log"):
        assert getattr(settings, absent) is None
    assert (settings.migrate, settings.dispatch, settings.sandbox, settings.speed) == (
        False,
        True,
        False,
        1.0,
    )


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]  # the point of the test


def test_every_setting_of_a_variable_is_described() -> None:
    described = {variable.name for variable in describe()}
    flags_only = {"migrate", "dispatch", "sandbox", "sandbox_anywhere", "speed", "workers"}
    assert described | flags_only == {each.name for each in fields(Settings)}
    assert all(variable.meaning and variable.default for variable in describe())
    assert next(iter(describe())).variable == "TIDINGS_DATABASE"


# -- values, good and bad --------------------------------------------------------------------------

GOOD: list[tuple[str, str, Any]] = [
    ("database", "sqlite:///./b.db", SqliteFile(Path("b.db"))),
    ("database", "sqlite:////tmp/b.db", SqliteFile(Path("/tmp/b.db"))),
    ("host", "0.0.0.0", "0.0.0.0"),
    ("host", "::", "::"),
    ("host", "[::1]", "::1"),
    ("host", "fe80::1%eth0", "fe80::1%eth0"),
    ("host", "hooks.internal", "hooks.internal"),
    ("port", "0", 0),
    ("port", "65535", 65_535),
    ("public_url", "https://hooks.example.com/", "https://hooks.example.com"),
    ("public_url", "https://example.com/tidings/api/1.0/", "https://example.com/tidings"),
    ("bootstrap_token", "0/" + "a" * 14, "0/" + "a" * 14),
    ("bootstrap_token", "~" * 256, "~" * 256),
    ("secret_key", KEY.upper(), bytes.fromhex(KEY)),
    ("allow_targets", "127.0.0.0/8, ::1/128", (ip_network("127.0.0.0/8"), ip_network("::1/128"))),
    ("allow_targets", "10.1.2.3", (ip_network("10.1.2.3/32"),)),
    ("allow_targets", "none", ()),
    ("require_https", "TRUE", True),
    ("require_https", "0", False),
    ("retry_first", "10ms", 10_000),
    ("retry_first", "1h", HOUR),
    ("retry_max", "24h", DAY),
    ("give_up_after", "5s", 5 * SECOND),
    ("restore_within", "0s", 0),
    ("heartbeat_every", "5m", 300 * SECOND),
    ("delivery_timeout", "100ms", 100_000),
    ("batch_max", "1", 1),
    ("concurrency", "10000", 10_000),
    ("strict_success", "yes", True),
    ("quota_per_resource", "1", 1),
    ("quota_per_owner", "10000000", 10_000_000),
    ("egress_proxy", "http://me:pw@proxy:3128/", "http://me:pw@proxy:3128"),
    ("deny_ports", "none", frozenset()),
    ("deny_ports", "25,25, 465", frozenset({25, 465})),
    ("cors_origins", "https://App.example.com,http://localhost:3000",
     ("https://app.example.com", "http://localhost:3000")),
    ("cors_origins", "*", ("*",)),
    ("retention", "3650d", 3650 * DAY),
    ("rate_limit", "0", 0),
    ("log", "JSON", "json"),
    ("log", "text", "text"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected"), GOOD)
def test_good_values(name: str, text: str, expected: Any) -> None:
    assert getattr(load({f"TIDINGS_{name.upper()}": text}), name) == expected


BAD = [
    ("database", "tidings.db"),
    ("database", "sqlite://tidings.db"),
    ("database", "sqlite:///"),
    ("database", "sqlite:///:memory:"),
    ("database", "sqlite:///a.db?mode=ro"),
    ("database", "sqlite:////no/such/folder/a.db"),
    ("database", "mysql://u:p@h/n"),
    ("host", "127.0.0.1:8080"),
    ("host", "http://localhost"),
    ("host", "a b"),
    ("host", "[::1"),
    ("port", "-1"),
    ("port", "65536"),
    ("port", "80a"),
    ("port", "８０８０"),
    ("port", "1" * 30),
    ("public_url", "hooks.example.com"),
    ("public_url", "https://u:p@hooks.example.com"),
    ("public_url", "https://hooks.example.com/?a=b"),
    ("public_url", "https://[::1"),
    ("public_url", "ftp://hooks.example.com"),
    ("bootstrap_token", "a" * 15),
    ("bootstrap_token", "a" * 257),
    ("bootstrap_token", "with space in between"),
    ("bootstrap_token", "ümlaut" * 5),
    ("secret_key", KEY[:-1]),
    ("secret_key", KEY[:-1] + "g"),
    ("allow_targets", "10.0.0.1/8"),
    ("allow_targets", "10.0.0.0/33"),
    ("allow_targets", "localhost"),
    ("allow_targets", "127.0.0.0/8,,::1/128"),
    ("allow_targets", ",".join(["10.0.0.0/8"] * 1_001)),
    ("require_https", "maybe"),
    ("retry_first", "10"),
    ("retry_first", "1.5s"),
    ("retry_first", "9ms"),
    ("retry_first", "2h"),
    ("retry_first", "-1s"),
    ("retry_first", "10 s"),
    ("retry_first", "10S"),
    ("retry_max", "25h"),
    ("retry_max", "5s"),
    ("give_up_after", "0s"),
    ("give_up_after", "91d"),
    ("restore_within", "91d"),
    ("heartbeat_every", "99ms"),
    ("delivery_timeout", "6m"),
    ("batch_max", "0"),
    ("batch_max", "1001"),
    ("concurrency", "0"),
    ("strict_success", "200"),
    ("quota_per_resource", "0"),
    ("quota_per_owner", "0"),
    ("ca_bundle", "/no/such/file.pem"),
    ("ca_bundle", "/dev/null"),
    ("ca_bundle", "/tmp"),
    ("egress_proxy", "proxy:3128"),
    ("egress_proxy", "socks5://proxy:1080"),
    ("egress_proxy", "http://proxy:3128/path"),
    ("deny_ports", "0"),
    ("deny_ports", "25;465"),
    ("cors_origins", "app.example.com"),
    ("cors_origins", "https://app.example.com/path"),
    ("cors_origins", "*,https://app.example.com"),
    ("retention", "1d"),
    ("retention", "forever"),
    ("rate_limit", "-1"),
    ("rate_limit", "1000001"),
    ("log", "xml"),
]


@pytest.mark.parametrize(("name", "text"), BAD)
def test_bad_values_name_the_variable_and_are_one_mistake(name: str, text: str) -> None:
    said = mistakes({f"TIDINGS_{name.upper()}": text})
    assert len(said) == 1
    assert f"TIDINGS_{name.upper()}" in said[0]
    assert "\n" not in said[0]


def test_every_setting_has_a_good_and_a_bad_row() -> None:
    described = {variable.name for variable in describe()}
    assert {name for name, *_ in BAD} == described
    assert {name for name, *_ in GOOD} | {"ca_bundle"} == described


def test_the_wrong_value_and_the_reason_are_named() -> None:
    [said] = mistakes({"TIDINGS_BATCH_MAX": "5000"})
    assert (
        said
        == "TIDINGS_BATCH_MAX is '5000': write a number from 1 to 1000: one turn reads no more behind a cursor"
    )


def test_a_range_with_host_bits_is_corrected() -> None:
    assert "write 10.0.0.0/8" in mistakes({"TIDINGS_ALLOW_TARGETS": "10.0.0.1/8"})[0]


def test_a_bundle_of_certificates_is_accepted(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(bundle)
    assert load({"TIDINGS_CA_BUNDLE": str(bundle)}).ca_bundle == bundle


@given(st.integers(0, 10**9), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_durations_are_spelled_as_they_are_read(number: int, unit: str) -> None:
    micros = span(f"{number}{unit}")
    assert span(spelled(micros)) == micros


# -- databases -------------------------------------------------------------------------------------


def test_postgres_is_taken_apart() -> None:
    settings = load(
        {"TIDINGS_DATABASE": "postgresql://us%40er:p%2Fw@db.internal/hooks?ssl=on", "TIDINGS_SECRET_KEY": KEY}
    )
    assert isinstance(settings.database, Postgres)
    assert (settings.database.host, settings.database.port) == ("db.internal", 5432)
    assert (settings.database.user, settings.database.password) == ("us@er", "p/w")
    assert settings.database.name == "hooks"
    assert str(settings.database) == "postgresql://db.internal:5432/hooks"
    assert not settings.embedded


def test_postgres_needs_a_key() -> None:
    [said] = mistakes({"TIDINGS_DATABASE": "postgres://h/n"})
    assert said.startswith("TIDINGS_SECRET_KEY is not set")


# -- sources ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "variable", "key", "expected"),
    [
        (None, None, None, 8080),
        (None, None, 1, 1),
        (None, "2", 1, 2),
        ("3", "2", 1, 3),
        (3, "2", None, 3),
        (None, "", 1, 1),
    ],
)
def test_flags_beat_variables_beat_the_file(
    flag: object, variable: str | None, key: int | None, expected: int, tmp_path: Path
) -> None:
    environ = {} if variable is None else {"TIDINGS_PORT": variable}
    file = toml(tmp_path, "" if key is None else f"port = {key}")
    assert load(environ, file, port=flag).port == expected


def test_a_good_flag_does_not_hide_a_wrong_variable_of_another_name() -> None:
    assert len(mistakes({"TIDINGS_HOST": "a b"}, port="1")) == 1


def test_the_file_speaks_toml(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        'database = "sqlite:///x.db"\nrequire_https = true\nbatch_max = 7\nretry_first = "2s"\n'
        'allow_targets = ["127.0.0.0/8", "::1/128"]\ndeny_ports = [25, 465]\ncors_origins = []\n'
        'rate_limit = 0\nlog = "json"\n',
    )
    settings = load({}, file)
    assert settings.database == SqliteFile(Path("x.db"))
    assert (settings.require_https, settings.batch_max, settings.retry_first) == (True, 7, 2 * SECOND)
    assert settings.allow_targets == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert settings.deny_ports == {25, 465}
    assert (settings.cors_origins, settings.rate_limit, settings.log) == ((), 0, "json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 99999", "TIDINGS_PORT ('port' in "),
        ("port = [1]", "has the wrong shape"),
        ("port = 1.5", "has the wrong shape"),
        ("allow_targets = [[1]]", "has the wrong shape"),
        ('allow_targets = ["10.0.0.0/8,::1"]', "has the wrong shape"),
        ("[database]\nurl = 1", "has the wrong shape"),
        ("retry_first = 10", "write a whole number and its unit"),
        ("retry_frist = '10s'", "did you mean retry_first?"),
        ("TIDINGS_PORT = 1", "did you mean port?"),
        ("sandbox = true", "'sandbox' in "),
        ("port = ", "is not TOML"),
        ("a = " + "[" * 5_000, "is not TOML"),
    ],
)
def test_mistakes_in_the_file_name_the_key_and_the_file(text: str, said: str, tmp_path: Path) -> None:
    file = toml(tmp_path, text)
    [only] = mistakes({}, file)
    assert said in only
    assert str(file) in only


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), (b"\xff", "not UTF-8"), (b"#" * (1 << 20) + b"#", "larger than")],
)
def test_files_that_cannot_be_read(content: bytes | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    if content is not None:
        file.write_bytes(content)
    assert said in mistakes({}, file)[0]


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("TIDINGS_RETRY_FRIST", "; did you mean TIDINGS_RETRY_FIRST?"),
        ("TIDINGS_DATABASE_URL", "; did you mean TIDINGS_DATABASE?"),
        ("TIDINGS_port", "; did you mean TIDINGS_PORT?"),
        ("TIDINGS_QQQQ", ""),
    ],
)
def test_unknown_variables_are_mistakes(variable: str, advice: str) -> None:
    assert mistakes({variable: "x"}) == (f"{variable} is no setting{advice}",)


def test_variables_of_others_are_left_alone() -> None:
    settings = load(
        {
            "PATH": "/bin",
            "TIDINGS_URL": "not read here",
            "TIDINGS_TOKEN": "not read here",
            "TIDINGS_SERVICE_HOST": "10.0.0.7",
            "TIDINGS_SERVICE_PORT_HTTP": "80",
            "TIDINGS_PORT": "tcp://10.0.0.7:80",
            "TIDINGS_PORT_80_TCP_ADDR": "10.0.0.7",
            "TIDINGS_API_PORT": "tcp://10.0.0.8:80",
            "TIDINGS_API_SERVICE_HOST": "10.0.0.8",
        }
    )
    assert settings == Settings()


def test_all_mistakes_are_reported_together(tmp_path: Path) -> None:
    file = toml(tmp_path, "batch_max = 0\nnonsense = 1\n")
    said = mistakes(
        {"TIDINGS_PROT": "1", "TIDINGS_RETRY_FIRST": "2h", "TIDINGS_LOG": "xml", "TIDINGS_RETENTION": "1d"},
        file,
        port="x",
        speed="7",
        workers="0",
    )
    assert len(said) == 9
    for part in (
        "'batch_max'",
        "'nonsense'",
        "TIDINGS_PROT ",
        "RETRY_FIRST",
        "LOG",
        "RETENTION",
        "--port",
        "--speed",
        "--workers",
    ):
        assert any(part in each for each in said), part


# -- settings beside each other --------------------------------------------------------------------


def test_retention_covers_giving_up_and_restoring() -> None:
    enough = {"TIDINGS_RETENTION": "8d"}
    assert load(enough).retention == 8 * DAY
    [said] = mistakes({**enough, "TIDINGS_RESTORE_WITHIN": "169h"})
    assert said == (
        "TIDINGS_RETENTION is 8d: events must be kept for at least 193h, the sum of TIDINGS_GIVE_UP_AFTER "
        "(by default) and TIDINGS_RESTORE_WITHIN"
    )


def test_the_first_wait_is_not_the_longest() -> None:
    assert load({"TIDINGS_RETRY_FIRST": "1h"}).retry_first == HOUR
    assert (
        "longer than TIDINGS_RETRY_MAX"
        in mistakes({"TIDINGS_RETRY_FIRST": "6s", "TIDINGS_RETRY_MAX": "5s"})[0]
    )


# -- secrets ---------------------------------------------------------------------------------------

SECRET = "s3cr3t-Value"


@pytest.mark.parametrize(
    "environ",
    [
        {"TIDINGS_SECRET_KEY": SECRET},
        {"TIDINGS_BOOTSTRAP_TOKEN": f"{SECRET} with a space"},
        {"TIDINGS_DATABASE": f"postgres://me:{SECRET}@[db/name"},
        {"TIDINGS_DATABASE": f"postgresql://me:{SECRET}/@db"},
        {"TIDINGS_DATABASE": f"me:{SECRET}@db/name"},
        {"TIDINGS_DATABASE": f"{SECRET}://db/name"},
        {"TIDINGS_DATABASE": f"postgresql://me:{SECRET}@db:port/name"},
        {"TIDINGS_EGRESS_PROXY": f"https://me:{SECRET}@proxy:1"},
        {"TIDINGS_EGRESS_PROXY": f"me:{SECRET}@proxy:1"},
    ],
)
def test_mistakes_never_print_a_secret(environ: dict[str, str], tmp_path: Path) -> None:
    ((variable, value),) = environ.items()
    file = toml(tmp_path, f"{variable.removeprefix('TIDINGS_').lower()} = '{value}'")
    said = "\n".join((*mistakes(environ), *mistakes({}, file)))
    assert SECRET not in said
    assert variable in said


def test_settings_do_not_show_secrets() -> None:
    token = SECRET + "-and-more"
    settings = load(
        {
            "TIDINGS_BOOTSTRAP_TOKEN": token,
            "TIDINGS_SECRET_KEY": KEY,
            "TIDINGS_DATABASE": f"postgresql://me:{SECRET}@db/name",
            "TIDINGS_EGRESS_PROXY": f"http://me:{SECRET}@proxy:1",
        }
    )
    shown = f"{settings!r} {settings.database!r} {settings.database}"
    assert SECRET not in shown
    assert KEY not in shown and repr(settings.secret_key) not in shown


# -- sandbox mode ----------------------------------------------------------------------------------


def test_sandbox_has_its_own_database_and_opens_what_is_near() -> None:
    settings = load({"TIDINGS_ALLOW_TARGETS": "100.64.0.0/10"}, sandbox=True)
    assert settings.database == SqliteFile(Path("sandbox.db"))
    allowed = settings.target_rules.allowed
    for near in ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"):
        assert ip_network(near) in allowed
    metadata = ip_address("169.254.169.254")
    assert not any(metadata in each for each in allowed)


def test_sandbox_takes_another_database_when_told() -> None:
    assert load({"TIDINGS_DATABASE": "sqlite:///x.db"}, sandbox=True).database == SqliteFile(Path("x.db"))


def test_speed_divides_the_policy_only() -> None:
    settings = load(sandbox=True, speed="3600")
    policy = settings.policy
    assert (policy.retry_max, policy.give_up_after, policy.heartbeat_every) == (
        SECOND,
        24 * SECOND,
        8 * SECOND,
    )
    assert policy.retry_first == 10 * SECOND // 3600
    assert policy.delivery_timeout == 10 * SECOND
    assert settings.retention == 14 * DAY


def test_no_speed_makes_a_wait_vanish() -> None:
    policy = load({"TIDINGS_RETRY_FIRST": "10ms"}, sandbox=True, speed="100000").policy
    assert policy.retry_first == 1_000


@pytest.mark.parametrize("speed", ["0", "0.5", "-1", "fast", "nan", "inf", "100001"])
def test_speeds_that_are_none(speed: str) -> None:
    assert mistakes(sandbox=True, speed=speed)[0].startswith("--speed is ")


@pytest.mark.parametrize("workers", ["0", "-1", "x", "1.5", "", "65", "9" * 30])
def test_numbers_of_workers_that_are_none(workers: str) -> None:
    [said] = mistakes(workers=workers)
    assert said.startswith(f"--workers is {workers!r}: write a ") and "from 1 to 64" in said


def test_so_many_workers() -> None:
    assert [load(workers=each).workers for each in (None, "1", "64")] == [1, 1, 64]


@pytest.mark.parametrize("flags", [{"speed": "2"}, {"sandbox_anywhere": True}])
def test_what_goes_with_the_sandbox_only(flags: dict[str, object]) -> None:
    assert "goes with --sandbox only" in mistakes({}, None, **flags)[0]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False),
     ("::", False), ("192.168.1.2", False), ("localhost.example.com", False)],
)  # fmt: skip
def test_sandbox_listens_on_loopback_unless_told_twice(host: str, loopback: bool) -> None:
    assert load(host=host).host == host
    assert load(host=host, sandbox=True, sandbox_anywhere=True).host == host
    if loopback:
        assert load(host=host, sandbox=True).loopback
    else:
        assert "add --sandbox-anywhere" in mistakes(host=host, sandbox=True)[0]


def test_rules_carry_what_was_set() -> None:
    rules = load({"TIDINGS_REQUIRE_HTTPS": "true", "TIDINGS_DENY_PORTS": "25"}).target_rules
    assert (rules.allowed, rules.require_https, rules.deny_ports) == ((), True, frozenset({25}))
