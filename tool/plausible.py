"""Which values a parameter can have in a living patient.

The upper limits, and those of temperature, are the valid ranges of MIMIC-Extract (Wang et
al. 2020, variable_ranges.csv; temperature 26-45 is what it calls valid). Its lower limits of
0 are open here: 0 is what monitors and charts write for "no value". Wide on purpose: a rare
value must pass, a sentinel (0, -1, 999) or another unit (98.6 as °C, 378 for 37.8) must not.
Parameters that are not listed are taken as they come.
"""

# parameter: (above, up to, unit)
RANGES: dict[str, tuple[float, float, str]] = {
    "blood_pressure": (0, 375, "mmHg"),
    "blood_pressure_diastolic": (0, 375, "mmHg"),
    "blood_pressure_mean": (0, 375, "mmHg"),
    "heart_rate": (0, 350, "/min"),
    "respiration_rate": (0, 300, "/min"),
    "temperature": (26, 45, "°C"),
    "spo2": (0, 100, "%"),
}


def implausible(parameter: str, value: float) -> str | None:
    """Why `value` cannot be one of `parameter`; None when it can.

    >>> implausible("temperature", 378.0)
    'temperature 378.0 is not above 26 and up to 45 °C'
    >>> implausible("heart_rate", 80.0)
    """
    limits = RANGES.get(parameter)
    if limits is None or limits[0] < value <= limits[1]:
        return None
    low, high, unit = limits
    return f"{parameter} {value!r} is not above {low:g} and up to {high:g} {unit}"
