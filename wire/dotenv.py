"""Reads `.env` for commands that a person runs. Services get their settings from compose or from
`make run`, which read the same file.
"""

from dotenv import load_dotenv


def read_dotenv() -> None:
    """Sets the variables of the file .env in the current folder that the environment lacks."""
    load_dotenv(".env")
