"""Every bound of the service that is not a setting: a name, a unit, a reason.

A limit a user may want to move is a setting (`config/`). The ones here hold the design together.
"""

from typing import Final

# Times are microseconds; this is how the ones below are written.
MICROSECONDS_PER_SECOND: Final = 1_000_000

# -- requests to the API ---------------------------------------------------------------------------

# One MiB holds 1 000 events of a kilobyte, the largest publish we mean to take in one transaction.
BODY_BYTES_MAX: Final = 1 << 20
# What nginx and Node take before a request's first header ends.
REQUEST_HEAD_BYTES_MAX: Final = 16 << 10
# A publish is one transaction, and each event a row for each of its scopes: more would hold up every other writer.
EVENTS_PER_PUBLISH_MAX: Final = 1_000
# The same, for the same reason.
RESOURCES_PER_PUT_MAX: Final = 1_000
# Sixteen of the largest events still fit the largest batch.
EVENT_BYTES_MAX: Final = 64 << 10
# Asana's page bounds (contract §0a).
PAGE_SIZE_MAX: Final = 100
# "whole list, no pages; ceiling about 1 000 objects" (contract §3).
UNPAGED_LIST_MAX: Final = 1_000
# How long an offset may be used (contract §12.13).
OFFSET_LIFETIME: Final = 30 * 60 * MICROSECONDS_PER_SECOND
# How long a publisher may take to try again: a day covers an outage and a night.
IDEMPOTENCY_LIFETIME: Final = 24 * 3600 * MICROSECONDS_PER_SECOND
# Keys are UUIDs or hashes; each is kept for a day.
IDEMPOTENCY_KEY_CHARS_MAX: Final = 255
# opt_fields and query strings travel in the request line, which proxies cut at 8 KiB.
OPT_FIELDS_MAX: Final = 200
# No record of ours is nested half as deep.
OPT_FIELD_DEPTH_MAX: Final = 8

# -- names and values ------------------------------------------------------------------------------

# Room for a UUID and a prefix (interface of the publisher).
GID_CHARS_MAX: Final = 64
# Types and subtypes stand in every event: they are words, not sentences.
TYPE_CHARS_MAX: Final = 64
# What products allow as a title.
NAME_CHARS_MAX: Final = 1_024
# `change.field` is a name.
FIELD_CHARS_MAX: Final = 255
# What browsers and proxies take as a URL.
TARGET_CHARS_MAX: Final = 2_048
# Every filter is held against every event that is read.
FILTERS_MAX: Final = 100
# As many again within one filter.
FILTER_FIELDS_MAX: Final = 100
# All filters of a webhook, as the JSON of its record. They are read at every claim; a hundred that name everything but
# fields are two thirds of it.
FILTERS_BYTES_MAX: Final = 16 << 10
# Value objects of a change are compact records; deeper nesting is a mistake or an attack.
VALUE_DEPTH_MAX: Final = 8
# A publisher's own ids are indexed for as long as the event is kept.
EXTERNAL_ID_CHARS_MAX: Final = 255

# -- the hierarchy ---------------------------------------------------------------------------------

# A thing stands in some projects, not in hundreds.
PARENTS_MAX: Final = 100
# A publish writes a row per scope: this bounds what one event can cost.
ANCESTORS_MAX: Final = 1_000

# -- tokens ----------------------------------------------------------------------------------------

# Shorter ones can be guessed; longer ones are not tokens.
TOKEN_CHARS_MIN: Final = 16
TOKEN_CHARS_MAX: Final = 256
# A token that needs more of them is one for all.
TOKEN_WORKSPACES_MAX: Final = 1_000
# They are listed in one answer, those that were revoked or have expired too.
TOKENS_MAX: Final = 100_000
# How long those are listed: a week, so that people who look into what happened find them; and no longer, as platforms
# that make a token an hour make more than there may be.
DEAD_TOKEN_KEPT: Final = 7 * 24 * 3600 * MICROSECONDS_PER_SECOND

# -- reading and delivering ------------------------------------------------------------------------

# A receiver's frameworks refuse bodies over a megabyte or so by default.
BATCH_BYTES_MAX: Final = 1 << 20
# Bytes of the log that deliveries in flight may hold, beyond one event of the largest size for each: larger batches,
# and what was read ahead for the next. Enough for dozens of webhooks that catch up at once, and little enough for
# small machines.
HELD_BYTES_MAX: Final = 64 << 20
# Events one turn may read behind a cursor, so that a picky webhook on a busy resource shares the store.
SCAN_MAX: Final = 1_000
# Events the marker raises heads for in one transaction.
MARK_MAX: Final = 1_000
# Attempts settled, webhooks claimed in one transaction: each stays under some ten milliseconds.
RECORD_MAX: Final = 512
CLAIM_MAX: Final = 128
# A webhook that was served within this time, and by then had taken a delivery within it, is proven: a share of the
# slots is kept for such as it. Longer ago, its target may since have died, and thousands that died together would each
# hold a slot for a whole timeout.
PROVEN_WITHIN: Final = 5 * 60 * MICROSECONDS_PER_SECOND
# Deliveries made under one lease, of the page that was read when it was claimed: what it costs to claim is shared by
# them.
BATCHES_PER_LEASE_MAX: Final = 16
# And none of them begins later than this after the claim: whoever waits for the slot, or the origin, waits no longer
# than for a slow delivery.
GOING_ON_MAX: Final = MICROSECONDS_PER_SECOND
# Deliveries begun, or heard to be recorded, before the event loop does anything else: a millisecond or so, so that
# answers are read, calls served and records written while the rest is sent.
BURST_MAX: Final = 32
# A lease outlives the delivery it covers by this much, for settling.
LEASE_SLACK: Final = 5 * MICROSECONDS_PER_SECOND
# `last_failure_content` (contract §12.18).
FAILURE_CONTENT_BYTES_MAX: Final = 4 << 10
# What an attempt keeps of the answer; there is a row for each.
ATTEMPT_EXCERPT_BYTES_MAX: Final = 1 << 10
# What is read of a receiver's answer: four times what is kept, so that a keep-alive connection survives a chatty one.
RESPONSE_BODY_BYTES_MAX: Final = 16 << 10
# What browsers and proxies allow in headers, in bytes and in number.
RESPONSE_HEAD_BYTES_MAX: Final = 16 << 10
RESPONSE_HEADERS_MAX: Final = 100
