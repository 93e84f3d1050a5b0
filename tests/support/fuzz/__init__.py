"""Sends random inputs, drawn from a seed, to the parsers and servers of the project.

    python -m tests.support.fuzz messages --inputs 1000000

Each function in `targets.TARGETS` takes a random generator and a number of inputs, and returns the
counts of the results. It raises if an error is not documented, or if an input is neither used nor
rejected.
"""
