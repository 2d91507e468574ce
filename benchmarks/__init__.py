"""Benchmarks: each a command of its own, none a test."""
