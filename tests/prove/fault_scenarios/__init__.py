"""The rows of the fault table, one file per subject: each sets up what it needs and says what it saw (`findings.Findings`)."""
