"""Which webhooks an event concerns, and which filters are allowed where (contract §5, interface of the hierarchy).

Two questions are answered here: does a filter accept an event, and may this filter stand on that resource. Which
resources an event is visible from is `hierarchy.py`'s affair.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from tidings.errors import BadRequest
from tidings.model import Action, Event, Filter, Traits

# Resources so large that a webhook there must say what it wants (contract §5).
LARGER_SCOPED: Final = frozenset({"workspace", "team", "portfolio"})

# What happens within a project stays below it: these never reach a larger-scoped resource.
NEVER_RISE: Final = frozenset({"task", "story", "attachment", "section"})

ACTIONS: Final = tuple(action.value for action in Action)


def accepted(filters: Sequence[Filter], page: Sequence[Event]) -> list[bool]:
    """Say of each event, read with its traits, whether any filter accepts it; no filters at all accept everything."""
    if not filters:
        return [True] * len(page)
    rules = [
        _Rule(
            entry.resource_type,
            entry.resource_subtype,
            entry.action,
            None if entry.fields is None else frozenset(entry.fields),
        )
        for entry in filters
    ]
    return [_any_matches(rules, event.traits) for event in page]


class _Rule(NamedTuple):
    """A filter, as a page is held against it: names of fields are looked up, however many there are."""

    resource_type: str | None
    resource_subtype: str | None
    action: str | None
    fields: frozenset[str] | None


def _any_matches(rules: Sequence[_Rule], traits: Traits | None) -> bool:
    assert traits is not None, "what filters are to judge is read with its traits"
    for resource_type, resource_subtype, action, fields in rules:
        if (
            (resource_type is None or resource_type == traits.resource_type)
            and (resource_subtype is None or resource_subtype == traits.resource_subtype)
            and (action is None or action == traits.action)
            and (fields is None or traits.field in fields)
        ):
            return True
    return False


def check_filters(filters: Sequence[Filter], *, resource_type: str) -> None:
    """Refuse filters that cannot stand on a resource of this type (contract §5, §12.9).

    Raises:
        BadRequest: naming the filter and the rule.
    """
    for index, entry in enumerate(filters):
        if entry.fields is not None and entry.action != Action.CHANGED:
            raise BadRequest.at(
                f"filters: [{index}]: fields",
                'only a filter with the action "changed" may name fields',
                code="invalid_filter",
            )
    if resource_type in LARGER_SCOPED:
        _check_larger_scoped(filters, resource_type)


def _check_larger_scoped(filters: Sequence[Filter], resource_type: str) -> None:
    if not filters:
        raise BadRequest.at(
            "filters",
            f"Webhooks on larger-scoped resources (here a {resource_type}) must specify filters",
            code="filters_required",
        )
    for index, entry in enumerate(filters):
        if entry.resource_type is None:
            raise BadRequest.at(
                f"filters: [{index}]: resource_type",
                f"a filter on a larger-scoped resource (here a {resource_type}) must name a resource_type",
                code="invalid_filter",
            )
        if entry.resource_type in NEVER_RISE:
            raise BadRequest.at(
                f"filters: [{index}]: resource_type",
                f"events of type {entry.resource_type} do not reach larger-scoped resources "
                f"(here a {resource_type})",
                code="invalid_filter",
            )
        if entry.fields is not None:
            raise BadRequest.at(
                f"filters: [{index}]: fields",
                f"filters on larger-scoped resources (here a {resource_type}) may not name fields",
                code="invalid_filter",
            )
