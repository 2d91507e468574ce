"""The indexer: the one process that owns the index, and answers searches from it."""
