"""Sends random inputs to each seam, from a seed.

    python -m tests.support.fuzz messages --inputs 1000000

A seam is a function of a random generator and a number of inputs. It counts the results, and raises
for any error that is not documented, and for any input that is neither used nor rejected.
"""
