"""Measures the speed of the pipeline, and the limits of the machine."""

# Before pandas, scikit-learn and pyarrow, because the libraries that they load make the import of
# mysql-connector's C extension fail. Without it, `executemany` takes three times as long.
import mysql.connector  # noqa: F401
