"""Attacks: what a hostile server, input or environment may try."""
