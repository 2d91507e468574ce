"""Every SQL statement: memories, the log of index events, dead letters, jobs."""
