"""The names of the thresholds in a config, and alarm rules that use them."""

import msgspec

from wire.alarms import Policy, Probability


def flags(share: float) -> str:
    """The name of the threshold that flags this share of the rows."""
    return f"flags {share:.0%}"


def finds(share: float) -> str:
    """The name of the threshold that finds this share of the events."""
    return f"finds {share:.0%}"


def alarms(number: float) -> str:
    """The name of the threshold that raises this number of alarms per patient and day."""
    return f"alarms {number:g}/day"


class Alarm(Policy, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The alarm rule of the artifact. threshold: instead of a number for `at`, the name of a
    threshold of `[report]`, such as "alarms 1/day" or "finds 80%"."""

    at: Probability = 1.0
    threshold: str | None = None

    def policy(self, thresholds: dict[str, float]) -> Policy:
        """The rule with the chosen threshold."""
        fields = msgspec.structs.asdict(self)
        name = fields.pop("threshold")
        return Policy(**fields | ({"at": thresholds[name]} if name else {}))
