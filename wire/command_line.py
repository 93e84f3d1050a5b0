"""The command lines of the programs. `--help` lists the settings."""

import argparse
import sys

import msgspec

from wire.settings import SettingError, Struct, describe, read


def parser(name: str, description: str, kind: type[msgspec.Struct]) -> argparse.ArgumentParser:
    """The parser of `python -m NAME`, whose settings are the fields of `kind`."""
    return argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=description,
        epilog=describe(kind),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def settings(name: str, description: str, kind: type[Struct]) -> Struct:
    """Returns the settings of a program whose command line has only `--help`. If a setting is
    invalid, exits with one line.
    """
    parser(name, description, kind).parse_args()
    try:
        return read(kind)
    except SettingError as error:
        print(f"{name.partition('.')[0]}: {error}", file=sys.stderr)
        sys.exit(1)
