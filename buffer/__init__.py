"""Follows the stream and queues its messages for the tool, in batches."""
