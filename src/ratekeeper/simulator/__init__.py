"""A provider that really enforces: the other side of every limit, for rehearsal."""
