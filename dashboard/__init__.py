"""The web pages: live views of the ward, patients, pipeline and models."""
