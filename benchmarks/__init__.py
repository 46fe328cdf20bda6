"""Benchmarks: the use of the quota, and the cost of the engine, beside others."""
