"""Saves the tables, the models in use and the gateway's log to a folder, and restores them."""
