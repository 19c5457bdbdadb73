-- By stretch of the log first, so that appends go to few pages however many scopes they are visible from
-- (store/sqlite/stretches.py).
CREATE TABLE event_scopes_by_stretch (
    stretch  INTEGER NOT NULL,  -- position >> 14
    scope    INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (stretch, scope, position)
) STRICT, WITHOUT ROWID;
INSERT INTO event_scopes_by_stretch (stretch, scope, position)
    SELECT position >> 14, scope, position FROM event_scopes ORDER BY 1, 2, 3;
DROP TABLE event_scopes;
ALTER TABLE event_scopes_by_stretch RENAME TO event_scopes;
