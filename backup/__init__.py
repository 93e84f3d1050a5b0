"""Saves everything that the pipeline stores to a folder, and restores it."""
