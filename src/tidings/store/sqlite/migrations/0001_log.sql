-- The log, the hierarchy it is seen through, and the cursors over it. Times are integer microseconds.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- Who may use the API. Of a token only its hash is kept.
CREATE TABLE tokens (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    gid          TEXT NOT NULL UNIQUE,
    hash         BLOB NOT NULL UNIQUE,
    prefix       TEXT NOT NULL,
    user         TEXT NOT NULL,
    app          TEXT NOT NULL,
    user_name    TEXT,
    scopes       TEXT NOT NULL,  -- JSON array
    workspaces   TEXT,           -- JSON array; NULL is every workspace
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,
    revoked_at   INTEGER
) STRICT;
CREATE INDEX tokens_by_owner ON tokens (user, app);
CREATE INDEX tokens_by_expiry ON tokens (expires_at) WHERE expires_at IS NOT NULL AND revoked_at IS NULL;

CREATE TABLE resources (
    id               INTEGER PRIMARY KEY,
    gid              TEXT NOT NULL UNIQUE,
    resource_type    TEXT NOT NULL,
    resource_subtype TEXT,
    name             TEXT,
    workspace        TEXT NOT NULL,
    deleted_at       INTEGER
) STRICT;

-- `place` keeps the order the publisher gave.
CREATE TABLE parents (
    child  INTEGER NOT NULL REFERENCES resources (id),
    place  INTEGER NOT NULL,
    parent INTEGER NOT NULL REFERENCES resources (id),
    PRIMARY KEY (child, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX parents_by_parent ON parents (parent);

-- The log. AUTOINCREMENT: a position is never used twice, not even after the log was trimmed empty.
CREATE TABLE events (
    position         INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace        TEXT NOT NULL,
    resource         TEXT NOT NULL,
    resource_type    TEXT NOT NULL,
    resource_subtype TEXT,
    action           TEXT NOT NULL,
    field            TEXT,
    external_id      TEXT,
    created_at       INTEGER NOT NULL,  -- the publisher's time
    accepted_at      INTEGER NOT NULL,  -- ours: retention and replay go by it
    scopes           TEXT NOT NULL,     -- JSON array of resource ids, for the marker and for trimming
    wire             BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_by_external_id ON events (workspace, external_id) WHERE external_id IS NOT NULL;

-- Where each event is visible from: what lies behind a cursor is a range of this.
CREATE TABLE event_scopes (
    scope    INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (scope, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency (
    token      TEXT NOT NULL,
    key        TEXT NOT NULL,
    digest     BLOB NOT NULL,
    accepted   INTEGER NOT NULL,
    last       INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (token, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- What a webhook is: written when it is established and when its filters are replaced.
CREATE TABLE webhooks (
    id                   INTEGER PRIMARY KEY AUTOINCREMENT,
    gid                  TEXT NOT NULL UNIQUE,
    user                 TEXT NOT NULL,
    app                  TEXT NOT NULL,
    workspace            TEXT NOT NULL,
    scope                INTEGER NOT NULL REFERENCES resources (id),
    target               TEXT NOT NULL,
    filters              TEXT NOT NULL,  -- JSON array
    secrets              TEXT NOT NULL,  -- JSON array of [key id, sealed (base64), valid until]
    created_at           INTEGER NOT NULL,
    last_failure_content TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX webhooks_by_owner ON webhooks (user, app, workspace, id);
CREATE INDEX webhooks_by_scope ON webhooks (scope);

-- How a webhook goes: small rows, written at every delivery. `head` belongs to the marker, `cursor` to the record.
CREATE TABLE cursors (
    webhook         INTEGER PRIMARY KEY REFERENCES webhooks (id),
    scope           INTEGER NOT NULL,
    origin          INTEGER NOT NULL REFERENCES origins (id),
    cursor          INTEGER NOT NULL,
    head            INTEGER NOT NULL,
    epoch           INTEGER NOT NULL DEFAULT 0,  -- moves when what lies behind the cursor is decided anew
    batch_end       INTEGER,                     -- where the batch that failed ended
    failures        INTEGER NOT NULL DEFAULT 0,
    failing_since   INTEGER,
    next_attempt_at INTEGER,
    last_success_at INTEGER,
    last_failure_at INTEGER,
    heartbeat_at    INTEGER NOT NULL,
    turn            INTEGER NOT NULL,            -- when it was last served: who waited longest goes first
    fence           INTEGER NOT NULL DEFAULT 0,
    holder          INTEGER,
    lease_until     INTEGER,
    last_attempt    INTEGER,                     -- the newest of its log of attempts
    stopped         TEXT,
    ended           TEXT,
    ended_at        INTEGER,
    lost_at         INTEGER                      -- when retention's ceiling took events it had not read
) STRICT;
CREATE INDEX cursors_by_scope ON cursors (scope);
CREATE INDEX cursors_ready ON cursors (turn, origin)
    WHERE head > cursor AND failures = 0 AND lease_until IS NULL AND stopped IS NULL AND ended_at IS NULL;
CREATE INDEX cursors_failing ON cursors (next_attempt_at, origin)
    WHERE failures > 0 AND lease_until IS NULL AND stopped IS NULL AND ended_at IS NULL;
-- Not by lease: a heartbeat's time moves rarely, and so this index.
CREATE INDEX cursors_quiet ON cursors (heartbeat_at) WHERE failures = 0 AND stopped IS NULL AND ended_at IS NULL;
CREATE INDEX cursors_leased ON cursors (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX cursors_ended ON cursors (ended_at) WHERE ended_at IS NOT NULL;

-- Scheme, host and port of targets: the key of fairness between hosts.
CREATE TABLE origins (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- Two equal creates queue here, so that a receiver never sees a second secret.
CREATE TABLE reservations (
    user        TEXT NOT NULL,
    app         TEXT NOT NULL,
    scope       INTEGER NOT NULL,
    target      TEXT NOT NULL,
    reserved_by TEXT NOT NULL,
    until       INTEGER NOT NULL,
    PRIMARY KEY (user, app, scope, target)
) STRICT, WITHOUT ROWID;

-- The log of attempts. Each names the one before it of the same webhook: an index would cost every delivery a page.
CREATE TABLE attempts (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook    INTEGER NOT NULL,
    previous   INTEGER,
    workspace  TEXT NOT NULL,
    delivery   TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    duration   INTEGER NOT NULL,
    events     INTEGER NOT NULL,
    heartbeat  INTEGER NOT NULL,
    status     INTEGER,
    result     TEXT NOT NULL,
    excerpt    TEXT NOT NULL
) STRICT;

-- Processes that hold leases. Each keeps a file locked; whose lock is free is gone.
CREATE TABLE holders (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    started_at INTEGER NOT NULL
) STRICT;

INSERT INTO meta (name, value) VALUES ('marked', 0), ('hierarchy', 0), ('reviewed', 0);
