-- Whether a webhook, when it was last served, had taken a delivery within five minutes. That moment alone, `turn`, does
-- not say so: it is one as well when the filters refuse everything. First in the index of the ready, so that neither
-- those who are proven nor those who are not have to be looked for among the others.
ALTER TABLE cursors ADD COLUMN delivered_lately INTEGER NOT NULL DEFAULT 0;
DROP INDEX cursors_ready;
CREATE INDEX cursors_ready ON cursors (delivered_lately, turn, origin)
    WHERE head > cursor AND failures = 0 AND lease_until IS NULL AND stopped IS NULL AND ended_at IS NULL;
