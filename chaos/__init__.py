"""Injects a seeded schedule of faults into a running pipeline, and measures the recovery."""
