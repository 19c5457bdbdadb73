"""Every bound of the service that is not a setting: a name, a unit, a reason.

A limit a user may want to move is a setting (`config.py`). The ones here hold the design together.
"""

from typing import Final

MICROSECONDS_PER_SECOND: Final = 1_000_000

# -- requests to the API ---------------------------------------------------------------------------

# One MiB holds 1 000 events of a kilobyte, the largest publish we mean to take in one transaction.
BODY_BYTES_MAX: Final = 1 << 20
# What nginx and Node take before a request's first header ends.
REQUEST_HEAD_BYTES_MAX: Final = 16 << 10
# A publish is one transaction; past a thousand rows it would hold up every other writer.
EVENTS_PER_PUBLISH_MAX: Final = 1_000
RESOURCES_PER_PUT_MAX: Final = 1_000
# Sixteen of the largest events still fit the largest batch.
EVENT_BYTES_MAX: Final = 64 << 10
# Asana's page bounds (contract §0a).
PAGE_SIZE_MAX: Final = 100
# "whole list, no pages; ceiling about 1 000 objects" (contract §3).
UNPAGED_LIST_MAX: Final = 1_000
# How long an offset may be used (contract §12.13).
OFFSET_LIFETIME: Final = 30 * 60 * MICROSECONDS_PER_SECOND
IDEMPOTENCY_LIFETIME: Final = 24 * 3600 * MICROSECONDS_PER_SECOND
IDEMPOTENCY_KEY_CHARS_MAX: Final = 255
# opt_fields and query strings travel in the request line, which proxies cut at 8 KiB.
OPT_FIELDS_MAX: Final = 200
OPT_FIELD_DEPTH_MAX: Final = 8

# -- names and values ------------------------------------------------------------------------------

GID_CHARS_MAX: Final = 64
TYPE_CHARS_MAX: Final = 64
NAME_CHARS_MAX: Final = 1_024
FIELD_CHARS_MAX: Final = 255
# What browsers and proxies take as a URL.
TARGET_CHARS_MAX: Final = 2_048
FILTERS_MAX: Final = 100
FILTER_FIELDS_MAX: Final = 100
# Value objects of a change are compact records; deeper nesting is a mistake or an attack.
VALUE_DEPTH_MAX: Final = 8
EXTERNAL_ID_CHARS_MAX: Final = 255

# -- the hierarchy ---------------------------------------------------------------------------------

PARENTS_MAX: Final = 100
# A publish writes a row per scope: this bounds what one event can cost.
ANCESTORS_MAX: Final = 1_000

# -- tokens ----------------------------------------------------------------------------------------

TOKEN_CHARS_MIN: Final = 16
TOKEN_CHARS_MAX: Final = 256
TOKEN_WORKSPACES_MAX: Final = 1_000
TOKENS_MAX: Final = 100_000

# -- reading and delivering ------------------------------------------------------------------------

# A receiver's frameworks refuse bodies over a megabyte or so by default.
BATCH_BYTES_MAX: Final = 1 << 20
# Events one turn may read behind a cursor, so that a picky webhook on a busy resource shares the store.
SCAN_MAX: Final = 1_000
# Events the marker raises heads for in one transaction.
MARK_MAX: Final = 1_000
# Attempts settled, webhooks claimed in one transaction: each stays under some ten milliseconds.
RECORD_MAX: Final = 512
CLAIM_MAX: Final = 128
# A lease outlives the delivery it covers by this much, for settling.
LEASE_SLACK: Final = 5 * MICROSECONDS_PER_SECOND
# `last_failure_content` (contract §12.18).
FAILURE_CONTENT_BYTES_MAX: Final = 4 << 10
# What an attempt keeps of the answer; there is a row for each.
ATTEMPT_EXCERPT_BYTES_MAX: Final = 1 << 10
RESPONSE_BODY_BYTES_MAX: Final = 16 << 10
RESPONSE_HEAD_BYTES_MAX: Final = 16 << 10
RESPONSE_HEADERS_MAX: Final = 100
