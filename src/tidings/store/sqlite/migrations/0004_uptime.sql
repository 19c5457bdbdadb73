-- How far the log had come at some moments of the service's uptime: what tells how old a row is
-- (store/sqlite/trimming.py).
CREATE TABLE milestones (
    uptime   INTEGER PRIMARY KEY,  -- all the time the service ran, whichever process
    now      INTEGER NOT NULL,     -- the time of day
    position INTEGER NOT NULL,     -- the last ever used, by then, in the log
    attempt  INTEGER NOT NULL      -- and in that of attempts
) STRICT;
