"""Takes the stream of readings and queues it for the tool, in batches."""
