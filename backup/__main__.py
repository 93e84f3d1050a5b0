"""Backs up the running pipeline to a folder, and restores it.

A backup holds the tables, the registry of models (the champion and the history of its changes), the
gateway's log, and login's users and audit log. It can be made while the pipeline runs. Restoring
also empties the queue, so that the pipeline reads the stream again after the last restored
message. `save` takes the stack of compose if its database is running, otherwise that of `make run`.
`restore` takes the stack that the backup was made of, and starts compose's database if necessary.
"""

import argparse
import os
import sys
from pathlib import Path

from backup import archive, compose
from backup.archive import BackupError, Stack


def stack_of(name: str | None, backup: Path | None) -> Stack:
    """The stack with this name; None: the one that the backup was made of or, without a backup,
    compose if its database is running, or else local. Raises BackupError.
    """
    if name is None:
        of_compose = archive.kind(backup) == "mysql" if backup else compose.runs()
        name = "compose" if of_compose else "local"
    if name == "compose":
        return compose.ComposeStack()
    try:
        # Imported here, because the module needs the packages of `make run`.
        from backup.local import LocalStack
    except ModuleNotFoundError:
        raise BackupError(
            "no pipeline was found: compose's database is not running (`docker compose up"
            " --detach`), and the packages of `make run` are not installed"
        ) from None

    return LocalStack()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m backup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=["save", "restore"])
    parser.add_argument("folder", type=Path, help="folder for the backup, or backup to restore")
    parser.add_argument(
        "--stack",
        choices=["compose", "local"],
        help="default: for restore the stack of the backup, for save compose if it is running",
    )
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    os.chdir(Path(__file__).parent.parent)
    # Only the owner may read the restored files and their new folders.
    os.umask(0o077)
    try:
        stack = stack_of(arguments.stack, folder if arguments.action == "restore" else None)
        if arguments.action == "save":
            print(f"saved {archive.save(stack, folder)}")
        else:
            for line in archive.restore(stack, folder):
                print(line)
    except BackupError as error:
        print(f"backup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
