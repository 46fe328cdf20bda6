"""Pure arithmetic and pure flows: time is an argument, nothing here does I/O."""
