"""Benchmarks: what is measured, each runnable by one command."""
