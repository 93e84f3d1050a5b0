"""Sends random inputs, drawn from a seed, to each seam.

    python -m tests.support.fuzz messages --inputs 1000000

A seam is a function of a random generator and a number of inputs. It counts the results. It raises
if an error is not documented, or if an input is neither used nor rejected.
"""
