-- Whoever had read everything, and for long, would have all that was published meanwhile for others between its cursor
-- and its head. Up to here nothing that is visible to it is unread; the marker says so when it raises such a head.
ALTER TABLE cursors ADD COLUMN unread_after INTEGER NOT NULL DEFAULT 0;
