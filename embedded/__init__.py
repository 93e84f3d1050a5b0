"""The whole pipeline on one machine, without Docker."""
