-- A row can stand in a lane, of which only so many rows are claimed at a time, and in a queue, of which only the row
-- with the lowest place is.
ALTER TABLE todo ADD COLUMN lane text, ADD COLUMN queue text, ADD COLUMN place bigint NOT NULL DEFAULT 0;
DROP INDEX todo_due;
CREATE INDEX todo_due ON todo (process, due_at);
CREATE INDEX todo_lane ON todo (process, lane, due_at, place) WHERE lane IS NOT NULL;
CREATE INDEX todo_queue ON todo (process, queue, place) WHERE queue IS NOT NULL;
CREATE INDEX todo_leased ON todo (process, lease_until) WHERE lease_until IS NOT NULL;

-- Deliveries that were owed before stand in the lane of their subscription.
UPDATE todo SET lane = e.state->>'subscription_id', place = (e.state->>'position')::bigint FROM events e
WHERE todo.process = 'delivery' AND e.originator_id = todo.subject AND e.originator_version = 1;

-- What receivers said, for a while, for whoever looks for the cause.
CREATE TABLE delivery_responses (
    delivery_id text PRIMARY KEY,
    status integer NOT NULL,
    body text NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX delivery_responses_expiry ON delivery_responses (expires_at);

DROP FUNCTION append_events(
    text[], bigint[], text[], json[], json, text[], text[], bigint[], text[], timestamptz[], text, text, bigint
);

-- One call appends, and says the last position and whether the claim is still held. The lock keeps positions in the
-- order of commits, so that a reader who follows them never passes over an event that commits later. SV001: the claim is
-- not held any longer.
CREATE FUNCTION append_events(
    originators text[], versions bigint[], topics text[], states json[], by_whom json[],
    todo_processes text[], todo_subjects text[], todo_versions bigint[], todo_steps text[], todo_due timestamptz[],
    todo_lanes text[], todo_queues text[], todo_places bigint[],
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
    SELECT last_position + n, originator, version, topic, state, provenance
    FROM unnest(originators, versions, topics, states, by_whom) WITH ORDINALITY
        AS new (originator, version, topic, state, provenance, n);
    last_position := last_position + cardinality(originators);

    DELETE FROM todo t
    USING unnest(todo_processes, todo_subjects, todo_steps) AS d (process, subject, step)
    WHERE d.step IS NULL AND t.process = d.process AND t.subject = d.subject;

    -- A worker that reports keeps its lease when its next step is due already, and gives it back otherwise.
    INSERT INTO todo AS t (process, subject, version, step, due_at, lane, queue, place)
    SELECT d.process, d.subject, d.version, d.step, d.due, d.lane, d.queue, d.place
    FROM unnest(
        todo_processes, todo_subjects, todo_versions, todo_steps, todo_due, todo_lanes, todo_queues, todo_places
    ) AS d (process, subject, version, step, due, lane, queue, place)
    WHERE d.step IS NOT NULL
    ON CONFLICT (process, subject) DO UPDATE SET
        version = excluded.version,
        step = excluded.step,
        due_at = excluded.due_at,
        lane = excluded.lane,
        queue = excluded.queue,
        place = excluded.place,
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
