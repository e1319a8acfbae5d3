-- Requests with an `Idempotency-Key`, for a day: one that is being handled is leased, and has no answer yet; what was
-- answered is sealed. Nothing of a request or answer is here in the clear.
CREATE TABLE idempotency_keys (
    tenant_id text NOT NULL,
    token_id text NOT NULL,
    idempotency_key text NOT NULL,
    claim_id text NOT NULL,
    lease_until timestamptz NOT NULL,
    sealed_id text,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, token_id, idempotency_key)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (expires_at);
