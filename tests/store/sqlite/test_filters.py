"""Filters as they are kept: the same when they are read again, and not all remembered."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from tidings.limits import FILTERS_BYTES_MAX
from tidings.model import Filter
from tidings.store.sqlite.rows import dump_filters, load_filters

texts = st.text(st.characters(codec="utf-8"), min_size=1)
filters = st.builds(
    Filter,
    resource_type=st.none() | texts,
    resource_subtype=st.none() | texts,
    action=st.none() | texts,
    fields=st.none() | st.lists(texts, min_size=1).map(tuple),
)


@given(st.lists(filters, max_size=5).map(tuple))
def test_filters_are_kept_as_they_are(entries: tuple[Filter, ...]) -> None:
    assert load_filters(dump_filters(entries)) == entries


def test_as_an_earlier_version_kept_them() -> None:
    kept = (
        '[{"resource_type":"task","resource_subtype":null,"action":"changed","fields":["n\\u00e9","due on"]}]'
    )
    assert load_filters(kept) == (Filter(resource_type="task", action="changed", fields=("né", "due on")),)


def test_what_large_filters_were_read_to_is_not_remembered() -> None:
    """Of one webhook they may take hundreds of kilobytes; there may be thousands of webhooks."""
    texts = [
        dump_filters(
            [
                Filter(action="changed", fields=tuple(f"{webhook}-{entry}-{name}" for name in range(100)))
                for entry in range(10)
            ]
        )
        for webhook in range(50)
    ]
    tracemalloc.start()
    try:
        for text in texts:
            assert len(load_filters(text)) == 10
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10 * FILTERS_BYTES_MAX
