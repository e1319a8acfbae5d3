-- What the embedded DNS responder serves: the zone data of a name server, written by the embedded provider.
CREATE TABLE embedded_values (
    record_name text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (record_name, value)
);
