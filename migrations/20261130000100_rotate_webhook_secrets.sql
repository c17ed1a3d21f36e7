-- Why: a receiver cannot learn of another secret in the very moment in which it is written. For a day messages are
-- signed with both.
ALTER TABLE webhooks ADD COLUMN previous_secret VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NULL;

-- Up to then the previous secret signs too.
ALTER TABLE webhooks ADD COLUMN previous_until DATETIME(3) NULL;
