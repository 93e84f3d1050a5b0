"""Measures the speed of the pipeline, and the limits of the machine."""
