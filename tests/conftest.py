"""Order: the files that take longest begin first, so that no worker is left alone with one."""

import pytest

LONGEST = ("test_pipeline.py", "test_faults.py", "test_compose.py", "test_modelapi_openapi.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)
