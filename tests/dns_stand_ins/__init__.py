"""Stand-ins of DNS providers' APIs, one module each: as strict as the real one, with knobs for what goes wrong."""
