-- Every change of a state, as it was committed: what docs/states.md is held against. Of the test's database alone.
CREATE TABLE chaos_moves (
    seq       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant_id integer NOT NULL,
    what      text NOT NULL,                     -- job, delivery, item, letter or saga
    subject   text NOT NULL,
    before    text NOT NULL,
    after     text NOT NULL
);
CREATE INDEX ON chaos_moves (tenant_id);

CREATE FUNCTION chaos_note_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_moves (tenant_id, what, subject, before, after)
    VALUES (NEW.tenant_id, 'job', NEW.job_id::text, CASE WHEN TG_OP = 'INSERT' THEN '[*]' ELSE OLD.state END, NEW.state);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_jobs_new AFTER INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION chaos_note_job();
CREATE TRIGGER chaos_jobs_moved AFTER UPDATE OF state ON jobs FOR EACH ROW
    WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION chaos_note_job();

CREATE FUNCTION chaos_note_delivery() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state <> NEW.state THEN
        INSERT INTO chaos_moves (tenant_id, what, subject, before, after)
        VALUES (NEW.tenant_id, 'delivery', NEW.delivery_id::text, OLD.state, NEW.state);
    END IF;
    INSERT INTO chaos_moves (tenant_id, what, subject, before, after)
    SELECT NEW.tenant_id, 'item', NEW.delivery_id || '.' || NEW.indexes[p], substr(OLD.states, p, 1), substr(NEW.states, p, 1)
    FROM generate_series(1, length(NEW.states)) p
    WHERE substr(OLD.states, p, 1) <> substr(NEW.states, p, 1);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_deliveries_moved AFTER UPDATE ON deliveries FOR EACH ROW EXECUTE FUNCTION chaos_note_delivery();

CREATE FUNCTION chaos_note_letter() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_moves (tenant_id, what, subject, before, after)
    VALUES (
        NEW.tenant_id, 'letter', NEW.dead_letter_id::text, coalesce(OLD.resolution, 'open'), coalesce(NEW.resolution, 'open')
    );
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_letters_moved AFTER UPDATE OF resolution ON dead_letters FOR EACH ROW
    WHEN (OLD.resolution IS DISTINCT FROM NEW.resolution) EXECUTE FUNCTION chaos_note_letter();

CREATE FUNCTION chaos_note_saga() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_moves (tenant_id, what, subject, before, after)
    VALUES (NEW.tenant_id, 'saga', NEW.saga_id::text, OLD.state, NEW.state);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_sagas_moved AFTER UPDATE OF state ON sagas FOR EACH ROW
    WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION chaos_note_saga();
