"""Faults on purpose: a seeded schedule of them on a running pipeline, and what came of it."""
