"""Fills the tables with readings of an earlier stream."""

from typing import Any

from benchmarks.databases import mark, open_database


def fill_history(url: str, rows: int, patients: int, first_patient: int) -> None:
    """Stores `rows` readings of an earlier stream, with stays and vitals: the same patients, two
    years before. The server itself generates the rows in the order of the patients, which is fast
    because both indexes have this order.
    """
    sqlite = url.startswith("sqlite")
    divide = "/" if sqlite else "DIV"
    chunk = 100_000
    each = max(1, rows // patients)
    moment = (
        "datetime('2148-01-01', '+' || (n % {each} / 4) || ' hours')"
        if sqlite
        else "'2148-01-01' + INTERVAL (n % {each} DIV 4) HOUR"
    ).format(each=each)
    parameter = (
        "CASE n % 4 WHEN 0 THEN 'blood_pressure' WHEN 1 THEN 'respiration_rate'"
        " WHEN 2 THEN 'temperature' ELSE 'heart_rate' END"
    )
    connection = open_database(url)
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
    cursor.executemany(f"INSERT INTO numbers VALUES ({mark(url)})", [(n,) for n in range(chunk)])
    connection.commit()
    for start in range(0, rows, chunk):
        cursor.execute(
            "INSERT INTO readings"
            f" SELECT '0history', n + 1, {first_patient} + n {divide} {each}, '2148-01-01',"
            f" {moment}, {parameter}, 36 + n % 50 FROM (SELECT n + {start} AS n FROM numbers) AS m"
            f" WHERE n < {rows} ORDER BY n"
        )
        connection.commit()
    _fill_stays(
        cursor,
        f"FROM (SELECT n + {first_patient} AS p FROM numbers WHERE n < {patients}) AS m",
        each,
        rows,
    )
    cursor.execute("DROP TABLE numbers")
    connection.commit()
    connection.close()


def _fill_stays(cursor: Any, each_patient: str, each: int, last: int) -> None:
    """Stores a stay and its vitals for each patient, as if from `each` readings up to message
    `last`."""
    cursor.execute(
        "INSERT INTO stays (stream, pat_id, date_admission, age)"
        f" SELECT '0history', p, '2148-01-01', 60 {each_patient}"
    )
    vitals = {
        "n": each // 4 + 1,
        **dict.fromkeys(("minimum", "`first_value`"), 36),
        **dict.fromkeys(("maximum", "`last_value`"), 85),
        "mean": 60,
        **dict.fromkeys(("m2", "hours_mean", "hours_m2", "covariance", "mean_low"), 0.1),
        "first_at": "'2148-01-01 00:00:00'",
        "last_at": "'2148-01-09 00:00:00'",
        "seq": last,
    }
    for name in ("blood_pressure", "respiration_rate", "temperature", "heart_rate"):
        cursor.execute(
            f"INSERT INTO vitals (stream, pat_id, date_admission, parameter, {', '.join(vitals)})"
            f" SELECT '0history', p, '2148-01-01', '{name}', {', '.join(map(str, vitals.values()))}"
            f" {each_patient}"
        )
