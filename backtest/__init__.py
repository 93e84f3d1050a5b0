"""Scores models on a ward's own history, replayed through the real pipeline."""
