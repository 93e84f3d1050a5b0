"""Hides OpenTelemetry from the programs that a test starts. Only a package that the tests need
installs it; redis-py and the connector of MySQL would import it at each start of a program, which
takes more than a tenth of a second.
"""

import sys
from importlib.abc import MetaPathFinder


class NoTelemetry(MetaPathFinder):
    def find_spec(self, name: str, *_: object) -> None:
        if name == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, NoTelemetry())
