"""Bodies: JSON or a form, and whatever hostile clients make of them."""

import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidings.errors import BadRequest
from tidings.limits import BODY_BYTES_MAX, OPT_FIELDS_MAX
from tidings.wire import bodies
from tidings.wire.bodies import Body, Options

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
NOT_JSON = "Could not parse request data, invalid JSON"


def refusal(raw: bytes, content_type: str | None = JSON) -> BadRequest:
    with pytest.raises(BadRequest) as refused:
        bodies.parse(raw, content_type)
    return refused.value


# -- content types ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        JSON,
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        " Application/JSON ",
    ],
)
def test_json_by_any_spelling_and_by_default(content_type: str | None) -> None:
    """Contract §12.28: a missing content type is read as JSON."""
    assert bodies.parse(b'{"data":{"a":1}}', content_type) == Body({"a": 1})


@pytest.mark.parametrize(
    "content_type", ["text/plain", "multipart/form-data; boundary=x", "application/jsonx", "json", "\x00"]
)
def test_any_other_content_type_is_refused(content_type: str) -> None:
    error = refusal(b'{"data":{}}', content_type)
    assert error.code == "unsupported_content_type"
    assert error.message.endswith(f". Send {JSON} or {FORM}.")


def test_the_content_type_refused_is_named_without_its_parameters() -> None:
    assert refusal(b"", "Text/Plain; charset=x").message.startswith("Unsupported Content-Type: text/plain. ")


# -- JSON ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"}",
        b"data=1",
        b"{'data':1}",
        b'{"data":1,}',
        b'{"data":1}x',
        b'{"data":1}{"data":1}',
        b'{"data":NaN}',
        b'{"data":Infinity}',
        b'{"data":-Infinity}',
        b'{"data":1e999}',
        b'{"data":01}',
        b'{"data":"\x01"}',
        b'{"data":"\xff"}',
        b'{"\xff":1}',
        b'{"data":"\xed\xa0\x80"}',
        b'{"data":"\\ud800"}',
        b'{"data":"\\udc00x"}',
        b'{"data":"\\x"}',
        b'\xef\xbb\xbf{"data":1}',
        '{"data":1}'.encode("utf-16"),
        b'{"data":' + b"9" * 5_000 + b"}",
        b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"data":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b"[" * (BODY_BYTES_MAX // 2),
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_what_is_not_json_is_refused_in_the_recorded_words(raw: bytes) -> None:
    """Contract §2.2; bad UTF-8, lone surrogates, NaN and bottomless nesting included."""
    error = refusal(raw)
    assert (error.code, error.message) == ("invalid_json", NOT_JSON)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [(b"[]", "array"), (b"null", "null"), (b'"x"', "string"), (b"17", "number"), (b"true", "boolean")],
)
def test_the_top_level_is_an_object(raw: bytes, kind: str) -> None:
    error = refusal(raw)
    assert error.code == "invalid_body"
    assert error.message == f"Could not parse request data, expected an object, got {kind}"


@pytest.mark.parametrize("raw", [b"", b" ", b"\r\n\t"])
def test_an_empty_body_says_nothing(raw: bytes) -> None:
    assert bodies.parse(raw, None) == Body()


@pytest.mark.parametrize("key", ["resource", "Data", "", "opt_fields", "x" * 1_000])
def test_keys_beside_data_and_options_are_refused(key: str) -> None:
    error = refusal(b'{"data":{},"%b":1}' % key.encode())
    assert error.code == "unrecognized_field"
    assert error.message.startswith(f"Unrecognized request field {key[:80]}")
    assert len(error.message) < 300


def test_keys_beside_data_and_options_are_refused_in_the_recorded_words() -> None:
    """Contract §2.2, the space before the stop included; the first of them is named."""
    assert refusal(b'{"limit":1,"data":{},"offset":2}').message == (
        "Unrecognized request field limit . The only allowed keys at the top level are: data, options."
    )


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (b'{"data":1,"data":2}', Body(2)),
        (b'{"data":{"a":1,"b":2,"a":3}}', Body({"a": 3, "b": 2})),
        (b'{"options":{"pretty":true},"options":{}}', Body()),
    ],
)
def test_of_equal_keys_the_last_counts(raw: bytes, body: Body) -> None:
    assert bodies.parse(raw, JSON) == body


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"{}", None),
        (b'{"data":null}', None),
        (b' {"data" : { } }\r\n', {}),
        (b'{"data":"\\ud83d\\ude00"}', "\U0001f600"),
        (b'{"data":"\\u0000\\/"}', "\x00/"),
        ('{"data":"zażółć"}'.encode(), "zażółć"),
        (b'{"data":[-0,1e2,9007199254740993]}', [0, 100.0, 9007199254740993]),
    ],
)
def test_json_is_read_for_what_it_says(raw: bytes, data: object) -> None:
    assert bodies.parse(raw, JSON) == Body(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=5), below, max_size=4),
    max_leaves=20,
)


@given(json_values, st.booleans())
def test_any_json_is_read_as_the_standard_library_wrote_it(data: object, escaped: bool) -> None:
    raw = json.dumps({"data": data}, ensure_ascii=escaped)
    assert bodies.parse(raw.encode(), JSON).data == data


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_refusal(raw: bytes) -> None:
    for content_type in (JSON, FORM):
        try:
            bodies.parse(raw, content_type)
        except BadRequest as refused:
            assert refused.code in {"invalid_json", "invalid_body", "unrecognized_field", "invalid_form"}


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("null", Options()),
        ("{}", Options()),
        ('{"pretty":true}', Options(pretty=True)),
        ('{"pretty":"yes"}', Options()),
        ('{"fields":["target","resource.name"]}', Options(("target", "resource.name"))),
        ('{"fields":"target,resource.name"}', Options(("target", "resource.name"))),
        ('{"fields":["target",17,null]}', Options(("target",))),
        ('{"fields":[]}', Options(())),
        ('{"fields":null,"expand":[]}', Options()),
    ],
)
def test_options_beside_data(options: str, expected: Options) -> None:
    """Contract §3: `options {pretty, fields}`; the oldest SDK sends it so."""
    assert bodies.parse(b'{"data":{},"options":%b}' % options.encode(), JSON) == Body({}, expected)


@pytest.mark.parametrize("options", ["[]", '"fields"', '{"fields":17}', '{"fields":{}}'])
def test_wrong_options_are_refused(options: str) -> None:
    assert refusal(b'{"data":{},"options":%b}' % options.encode()).code == "invalid_type"


@pytest.mark.parametrize("written", ["list", "text"])
def test_too_many_fields_are_refused(written: str) -> None:
    names = ["a"] * (OPT_FIELDS_MAX + 1)
    fields = (
        "[" + ",".join(f'"{name}"' for name in names) + "]" if written == "list" else f'"{",".join(names)}"'
    )
    assert refusal(b'{"options":{"fields":%b}}' % fields.encode()).code == "too_many"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, Options()),
        ({"opt_fields": "target,resource.name"}, Options(("target", "resource.name"))),
        ({"opt_fields": ""}, Options(("",))),
        ({"opt_pretty": ""}, Options(pretty=True)),
        ({"opt_pretty": "true"}, Options(pretty=True)),
        ({"opt_pretty": "TRUE"}, Options(pretty=True)),
        ({"opt_pretty": "1"}, Options(pretty=True)),
        ({"opt_pretty": "false"}, Options()),
        ({"opt_pretty": "0"}, Options()),
    ],
)
def test_options_of_a_query_string(query: dict[str, str], expected: Options) -> None:
    assert bodies.query_options(query) == expected


def test_too_many_fields_in_a_query_string_are_refused() -> None:
    assert (
        len(bodies.query_options({"opt_fields": ",".join("a" * OPT_FIELDS_MAX)}).fields or ())
        == OPT_FIELDS_MAX
    )
    with pytest.raises(BadRequest, match="opt_fields"):
        bodies.query_options({"opt_fields": "," * BODY_BYTES_MAX})


@pytest.mark.parametrize(
    ("query", "body", "merged"),
    [
        (Options(), Options(), Options()),
        (Options(("a",)), Options(), Options(("a",))),
        (Options(("a",)), Options(("b",)), Options(("b",))),
        (Options(("a",)), Options(()), Options(())),
        (Options(pretty=True), Options(), Options(pretty=True)),
        (Options(), Options(pretty=True), Options(pretty=True)),
    ],
)
def test_the_bodys_options_come_before_the_querys(query: Options, body: Options, merged: Options) -> None:
    assert bodies.merge(query, body) == merged


# -- forms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=utf-8"])
def test_a_form_has_bare_fields(content_type: str) -> None:
    """The reference's own curl (contract §3)."""
    raw = b"resource=1331&target=https%3A%2F%2Freceiver.example%2Fa%3Fb%3D1&opt_pretty=true&opt_fields=target,gid"
    assert bodies.parse(raw, content_type) == Body(
        {"resource": "1331", "target": "https://receiver.example/a?b=1"}, Options(("target", "gid"), True)
    )


def test_an_empty_form_says_nothing() -> None:
    assert bodies.parse(b"", FORM) == Body({})


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"a", {"a": ""}),
        (b"a=", {"a": ""}),
        (b"=x", {"": "x"}),
        (b"&&", {}),
        (b"a=1&b=2", {"a": "1", "b": "2"}),
        (b"a=1&a=2", {"a": "2"}),
        (b"a=1;b=2", {"a": "1;b=2"}),
        (b"a=b=c", {"a": "b=c"}),
        (b"a=+%2B%20", {"a": " + "}),
        (b"a=%C3%A9", {"a": "é"}),
        ("a=é".encode(), {"a": "é"}),
        (b"opt_anything=1", {}),
        # broken escapes stand for themselves, as the URL standard has it
        (b"a=%", {"a": "%"}),
        (b"a=%4", {"a": "%4"}),
        (b"a=%zz&%=1", {"a": "%zz", "%": "1"}),
        (b"&".join(b"f%d=1" % n for n in range(100)), {f"f{n}": "1" for n in range(100)}),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_the_fields_of_a_form(raw: bytes, data: dict[str, str]) -> None:
    assert bodies.parse(raw, FORM) == Body(data)


@pytest.mark.parametrize(
    ("raw", "options"),
    [
        (b"opt_pretty", Options(pretty=True)),
        (b"opt_pretty=1&opt_fields=a%2Cb.c", Options(("a", "b.c"), True)),
        (b"opt_pretty=no&opt_fields=", Options(("",))),
    ],
)
def test_the_options_of_a_form_are_the_querys(raw: bytes, options: Options) -> None:
    assert bodies.parse(raw, FORM) == Body({}, options)


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1).filter(
            lambda key: key != "filters" and not key.startswith("opt_")
        ),
        st.text(st.characters(codec="utf-8")),
        max_size=8,
    )
)
def test_a_form_is_read_as_the_standard_library_wrote_it(data: dict[str, str]) -> None:
    assert bodies.parse(urlencode(data).encode(), FORM) == Body(data)


def test_a_form_holds_filters_as_json() -> None:
    filters = [{"resource_type": "task", "action": "changed"}]
    raw = urlencode({"filters": '[{"resource_type":"task","action":"changed"}]'}).encode()
    assert bodies.parse(raw, FORM) == Body({"filters": filters})


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\xff=1", "invalid_form"),
        (b"a=%FF", "invalid_form"),
        (b"a=%ED%A0%80", "invalid_form"),
        (b"a=1&" * 101, "invalid_form"),
        (b"a=%E9", "invalid_form"),
        (b"%FF=a", "invalid_form"),
        (b"opt_fields=" + b"," * OPT_FIELDS_MAX, "too_many"),
        (b"filters=task", "invalid_json"),
        (b"filters=%5B%7B%5D", "invalid_json"),
        (b"filters=" + b"[" * 100_000, "invalid_json"),
        (b"filters=", "invalid_json"),
    ],
)
def test_wrong_forms_are_refused(raw: bytes, code: str) -> None:
    error = refusal(raw, FORM)
    assert error.code == code
    if code == "invalid_form":
        assert error.message == "Could not parse request data, invalid form"


# -- data ------------------------------------------------------------------------------------------


def test_missing_data_reads_as_an_empty_object() -> None:
    """Contract §12.8: what is named is the first missing field."""
    assert bodies.data_record(Body()) == {}
    assert bodies.data_record(Body({"a": 1})) == {"a": 1}
    with pytest.raises(BadRequest, match="data: expected an object, got array"):
        bodies.data_record(Body([]))


def test_data_of_one_or_several() -> None:
    assert bodies.data_entries(Body({"a": 1}), length_max=2) == [("", {"a": 1})]
    assert bodies.data_entries(Body([1, 2]), length_max=2) == [("[0]", 1), ("[1]", 2)]


@pytest.mark.parametrize(
    ("data", "code"),
    [(None, "missing_input"), ([], "missing_input"), ([1, 2, 3], "too_many"), ("x", "invalid_type")],
)
def test_data_of_none_or_too_many_is_refused(data: object, code: str) -> None:
    with pytest.raises(BadRequest) as refused:
        bodies.data_entries(Body(data), length_max=2)
    assert refused.value.code == code
