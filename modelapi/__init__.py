"""The model API: predictions over HTTP from the artifacts in `models/`."""
