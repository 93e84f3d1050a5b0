"""Receives HL7v2, FHIR and JSON from a live ward, and serves them as the stream."""
