"""The web pages: live, read-only views of ward, patients, pipeline and models."""
