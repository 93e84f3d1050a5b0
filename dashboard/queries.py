"""The SQL of the dashboard. Every query of a table that grows with the history uses an index.

The cost of a query depends on the size of the ward and the length of a stay, not on the stored
history; tests count the database's steps. Only the search by identifier (NAMED) reads all stays of
the stream. `?` is the placeholder of an argument.
"""

from wire.tables import columns
from wire.vitals import VITALS

# Limits of the queries. If there are more patients, parameters or pending predictions, the pages
# say so.
WARD_LIMIT = 20_000
DISCHARGED_LIMIT = 40
OTHERS_LIMIT = 30
REJECTED_LIMIT = 50
PENDING_LIMIT = 10_000
SEARCH_LIMIT = 50
ALARM_LIMIT = 500

POSITIONS = "SELECT stream, part, seq, vitals_seq, committed_at FROM positions"

NEWEST_DRIFT = "SELECT MAX(day) FROM drift WHERE stream = ?"

DRIFT = f"SELECT {', '.join(columns('drift'))} FROM drift WHERE stream = ? AND day >= ?"

CHAMPION = "SELECT model, version FROM models WHERE role = 'champion' ORDER BY seen_at DESC LIMIT 1"

SEEN = "SELECT seen_at FROM models WHERE model = ? AND version = ?"

# The newest message may be a late reading, so the query looks at the last 100.
NEWEST = """
SELECT MAX(measured_at) FROM (
    SELECT measured_at FROM readings WHERE stream = ? AND seq <= ? ORDER BY seq DESC LIMIT 100
) AS newest"""

STAY = "s.pat_id, s.date_admission, s.age, s.date_discharge, s.identifier, s.place"

WARD = f"""
SELECT {STAY}, COALESCE(SUM(v.n), 0), MIN(v.first_at), MAX(v.last_at), COALESCE(MAX(v.seq), 0)
FROM (
    SELECT * FROM stays WHERE stream = ? AND date_discharge IS NULL
    ORDER BY date_admission DESC, pat_id DESC LIMIT {WARD_LIMIT + 1}
) AS s
LEFT JOIN vitals v
    ON v.pat_id = s.pat_id AND v.date_admission = s.date_admission AND v.stream = s.stream
GROUP BY {STAY}"""

DISCHARGED = f"""
SELECT {STAY} FROM stays s
WHERE stream = ? AND date_discharge IS NOT NULL
ORDER BY date_discharge DESC, date_admission DESC, pat_id DESC LIMIT {DISCHARGED_LIMIT}"""

STAYS_OF = f"""
SELECT {STAY} FROM stays s WHERE pat_id = ? AND stream = ? ORDER BY date_admission DESC"""

NAMED = f"""
SELECT {STAY} FROM stays s WHERE stream = ? AND identifier = ? ORDER BY date_admission DESC
LIMIT {SEARCH_LIMIT}"""

_KNOWN = ", ".join("?" * len(VITALS))

VITALS_OF = f"""
SELECT parameter, n, first_at, `last_value`, last_at, seq FROM vitals
WHERE pat_id = ? AND date_admission = ? AND stream = ? AND parameter IN ({_KNOWN})"""

PARAMETERS_OF = """
SELECT pat_id, date_admission, parameter, first_at FROM vitals WHERE stream = ? AND ({stays})"""
STAY_IS = "pat_id = ? AND date_admission = ?"

OTHERS_OF = f"""
SELECT parameter, n, first_at, `last_value`, last_at, seq FROM vitals
WHERE pat_id = ? AND date_admission = ? AND stream = ? AND parameter NOT IN ({_KNOWN})
ORDER BY parameter LIMIT {OTHERS_LIMIT + 1}"""

ANSWERS = """
SELECT seq, output FROM predictions
WHERE stream = ? AND model = ? AND version = ? AND seq IN ({marks})"""

# The predictions for readings of several stays, each at one time. `vitals.seq` cannot be used to
# find them, because it is the last message of a batch and not the stay's own reading.
# The plus sign and CROSS JOIN make SQLite start from the stays; else it reads the whole stream.
RISKS = """
SELECT r.pat_id, r.date_admission, p.output, r.measured_at, r.seq FROM readings r
CROSS JOIN predictions p
    ON p.stream = r.stream AND p.seq = r.seq AND p.model = ? AND p.version = ?
WHERE +r.stream = ? AND p.output IS NOT NULL AND ({moments})"""
MOMENT = "r.pat_id = ? AND r.date_admission = ? AND r.measured_at = ?"

RISK = """
SELECT p.output, r.measured_at, r.seq FROM readings r
JOIN predictions p
    ON p.stream = r.stream AND p.seq = r.seq AND p.model = ? AND p.version = ?
WHERE r.pat_id = ? AND r.date_admission = ? AND r.stream = ? AND r.measured_at > ?
    AND p.output IS NOT NULL
ORDER BY r.measured_at DESC, r.seq DESC LIMIT 1"""

# Newest first, so that the limit omits the oldest.
READINGS = """
SELECT r.seq, r.measured_at, r.parameter, r.value, p.model, p.output, p.reason
FROM readings r
LEFT JOIN predictions p
    ON p.stream = r.stream AND p.seq = r.seq AND p.model = ? AND p.version = ?
WHERE r.pat_id = ? AND r.date_admission = ? AND r.measured_at > ? AND r.stream = ?
ORDER BY r.measured_at DESC, r.seq DESC LIMIT ?"""

# The plus sign makes SQLite search by stay.
READINGS_SINCE = """
SELECT r.seq, r.measured_at, r.parameter, r.value, p.model, p.output, p.reason
FROM readings r
LEFT JOIN predictions p
    ON p.stream = r.stream AND p.seq = r.seq AND p.model = ? AND p.version = ?
WHERE r.pat_id = ? AND r.date_admission = ? AND +r.stream = ? AND r.seq > ?"""

NUMBER_OF_READINGS = """
SELECT COUNT(*) FROM readings WHERE pat_id = ? AND date_admission = ? AND stream = ?"""

PREDICTION = """
SELECT measured_at, output, reason FROM predictions
WHERE stream = ? AND seq = ? AND model = ? AND version = ?"""

FEATURES = """
SELECT feature, value FROM prediction_features
WHERE stream = ? AND seq = ? AND model = ? AND version = ?"""

REJECTED_OF = f"""
SELECT seq, reason, message FROM rejected
WHERE pat_id = ? AND stream = ? ORDER BY seq DESC LIMIT {REJECTED_LIMIT}"""

REJECTED_AFTER = """
SELECT seq, reason FROM rejected WHERE stream = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"""

REJECTED_UP_TO = """
SELECT COUNT(*) FROM (
    SELECT 1 FROM rejected WHERE stream = ? AND seq <= ? LIMIT ?
) AS counted"""

PENDING = f"""
SELECT COUNT(*) FROM (
    SELECT 1 FROM pending WHERE stream = ? LIMIT {PENDING_LIMIT + 1}
) AS waiting"""

ALARM_RULE = "SELECT alarm FROM models WHERE model = ? AND version = ?"

OUTCOMES = """
SELECT pat_id, date_admission, value FROM outcomes
WHERE stream = ? AND name = ? ORDER BY seq DESC LIMIT ?"""

FIRST_OF = """
SELECT MIN(measured_at) FROM readings WHERE pat_id = ? AND date_admission = ? AND stream = ?"""

RISK_BEFORE = """
SELECT p.output FROM readings r
JOIN predictions p
    ON p.stream = r.stream AND p.seq = r.seq AND p.model = ? AND p.version = ?
WHERE r.pat_id = ? AND r.date_admission = ? AND r.stream = ? AND r.measured_at < ?
    AND p.output IS NOT NULL
ORDER BY r.measured_at DESC, r.seq DESC LIMIT 1"""

# `raised_seq` is null for a stay without an active alarm.
ALARMS_ON = """
SELECT pat_id, date_admission, raised_at, acknowledged_by, quiet_until FROM alarm_state
WHERE stream = ? AND model = ? AND version = ? AND raised_seq > 0"""

ALARM_OF = """
SELECT raised_at, acknowledged_by, quiet_until FROM alarm_state
WHERE pat_id = ? AND date_admission = ? AND model = ? AND version = ? AND stream = ?
    AND raised_seq IS NOT NULL"""

RINGS = """
SELECT COUNT(*) FROM alarms
WHERE stream = ? AND model = ? AND version = ? AND happened_at > ? AND kind IN ('raise', 'again')"""

DISCHARGED_AFTER = """
SELECT d.pat_id, d.date_admission, MIN(v.first_at), MAX(d.happened_at) FROM discharges d
JOIN vitals v
    ON v.pat_id = d.pat_id AND v.date_admission = d.date_admission AND v.stream = d.stream
WHERE d.stream = ? AND d.happened_at > ? GROUP BY d.pat_id, d.date_admission"""

# Newest first, so that the limit omits the oldest.
ALARM_EVENTS = f"""
SELECT seq, kind, happened_at, output, author FROM alarms
WHERE pat_id = ? AND date_admission = ? AND stream = ? AND model = ? AND version = ?
ORDER BY seq DESC LIMIT {ALARM_LIMIT}"""
