"""Performing effects: the clock, and one driver each for threads and asyncio."""
