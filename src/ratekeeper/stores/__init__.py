"""Where the state of limits lives."""
