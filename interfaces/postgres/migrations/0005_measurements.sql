-- What all processes have measured of the outside, added up: counters that outlive each of them. A bucket of a histogram
-- is a row with the label `le`.
CREATE TABLE measurements (
    name text NOT NULL,
    labels jsonb NOT NULL,
    value double precision NOT NULL,
    PRIMARY KEY (name, labels)
);
