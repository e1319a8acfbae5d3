"""Years of renewals on a fake clock: the service's own decisions and ledger, and a CA of a few pages before them."""
