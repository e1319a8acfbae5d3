-- Sealed material, the one thing that is not in the events. `wrapped_key` is the data key under the master key `key_id`;
-- destroying it destroys the value.
CREATE TABLE sealed (
    sealed_id text PRIMARY KEY,
    kind text NOT NULL,
    tenant_id text NOT NULL,
    owner_id text NOT NULL,
    key_id text,
    wrapped_key bytea,
    ciphertext bytea,
    sealed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sealed_key ON sealed (key_id);
