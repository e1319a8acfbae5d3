-- The truth: every event, in the order in which it was committed. `position` has no gaps.
CREATE TABLE events (
    position bigint PRIMARY KEY,
    originator_id text NOT NULL,
    originator_version bigint NOT NULL,
    topic text NOT NULL,
    state json NOT NULL,
    provenance json NOT NULL,
    CONSTRAINT events_version UNIQUE (originator_id, originator_version)
);

-- Folded from the events: what each process manager has to do next.
CREATE TABLE todo (
    process text NOT NULL,
    subject text NOT NULL,
    version bigint NOT NULL,
    step text NOT NULL,
    due_at timestamptz NOT NULL,
    lease_until timestamptz,
    fence bigint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    PRIMARY KEY (process, subject)
);
CREATE INDEX todo_due ON todo (due_at);
CREATE SEQUENCE todo_fence;

-- How far each catch-up reader has come.
CREATE TABLE positions (
    reader text PRIMARY KEY,
    position bigint NOT NULL
);

-- One call appends, and says the last position and whether the claim is still held. The lock keeps positions in the order of commits, so that a reader who follows them never passes
-- over an event that commits later. SV001: the claim is not held any longer.
CREATE FUNCTION append_events(
    originators text[], versions bigint[], topics text[], states json[], by_whom json,
    todo_processes text[], todo_subjects text[], todo_versions bigint[], todo_steps text[], todo_due timestamptz[],
    claim_process text, claim_subject text, claim_fence bigint
) RETURNS TABLE (last_position bigint, still_held boolean) LANGUAGE plpgsql AS $$
BEGIN
    -- A client that stands still now holds everybody up: it may for a moment only.
    PERFORM set_config('idle_in_transaction_session_timeout', '5s', true);
    PERFORM pg_advisory_xact_lock(1396785494);
    IF claim_process IS NOT NULL THEN
        PERFORM 1 FROM todo t
        WHERE t.process = claim_process AND t.subject = claim_subject
          AND t.fence = claim_fence AND t.lease_until > clock_timestamp()
        FOR UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the lease was lost' USING ERRCODE = 'SV001';
        END IF;
    END IF;

    SELECT coalesce(max(e.position), 0) INTO last_position FROM events e;
    INSERT INTO events (position, originator_id, originator_version, topic, state, provenance)
    SELECT last_position + n, originator, version, topic, state, by_whom
    FROM unnest(originators, versions, topics, states) WITH ORDINALITY AS new (originator, version, topic, state, n);
    last_position := last_position + cardinality(originators);

    DELETE FROM todo t
    USING unnest(todo_processes, todo_subjects, todo_steps) AS d (process, subject, step)
    WHERE d.step IS NULL AND t.process = d.process AND t.subject = d.subject;

    -- A worker that reports keeps its lease when its next step is due already, and gives it back otherwise.
    INSERT INTO todo AS t (process, subject, version, step, due_at)
    SELECT d.process, d.subject, d.version, d.step, d.due
    FROM unnest(todo_processes, todo_subjects, todo_versions, todo_steps, todo_due)
        AS d (process, subject, version, step, due)
    WHERE d.step IS NOT NULL
    ON CONFLICT (process, subject) DO UPDATE SET
        version = excluded.version,
        step = excluded.step,
        due_at = excluded.due_at,
        lease_until = CASE
            WHEN t.process = claim_process AND t.subject = claim_subject AND excluded.due_at > clock_timestamp()
            THEN NULL ELSE t.lease_until END,
        attempts = CASE
            WHEN t.process IS DISTINCT FROM claim_process OR t.subject IS DISTINCT FROM claim_subject THEN t.attempts
            WHEN excluded.due_at > clock_timestamp() THEN 0
            ELSE 1 END;

    -- Whether the worker goes on with the next step is said here: one clock decides, whatever the others show.
    SELECT EXISTS (
        SELECT FROM todo t
        WHERE t.process = claim_process AND t.subject = claim_subject
          AND t.fence = claim_fence AND t.lease_until IS NOT NULL
    ) INTO still_held;

    PERFORM pg_notify('scaivault', last_position::text);
    RETURN NEXT;
END
$$;
