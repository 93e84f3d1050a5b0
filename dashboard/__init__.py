"""The ward page: what the pipeline knows, live, to be read and never written."""
