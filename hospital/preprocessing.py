"""Merges age.csv, admission.csv and signal.csv into all_data.csv, the messages in order of time.

Writes these files to PATIENT_DATA or, if that folder is not writable, to DERIVED_DATA:

    all_data.csv     one line per message
    all_data.json    the sources of all_data.csv, and an index
    rejected.csv     rejected rows, with reasons
    patients.csv     the number of each patient, if the identifiers are not plain numbers

Files that are up to date are not written again. Prints the folder on stdout; logs go to stderr.
"""

import sys

from hospital.contents import InputError
from hospital.files import writable_folder
from hospital.merge import prepare
from hospital.settings import Settings
from wire import command_line, logs
from wire.settings import SettingError


def main() -> int:
    settings = command_line.settings("hospital.preprocessing", __doc__, Settings)
    try:
        logs.set_up("hospital", settings.log_level, settings.log_format)
        folder = writable_folder(settings.patient_data, settings.derived_data)
        prepare(settings.patient_data, folder, settings.date_format or None)
    except (InputError, SettingError) as error:
        print(f"hospital: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"hospital: cannot write the merged data: {error}", file=sys.stderr)
        return 1
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
