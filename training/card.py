"""MODEL_CARD.md, in the sections of the CHAI Applied Model Card (schema v0.1)."""

from datetime import date

from training.evaluation import Line
from training.train import Result


def model_card(result: Result, version: str, created: date) -> str:
    """The card as Markdown: a person's words from the config, the figures from the run."""
    config, card = result.config, result.config.card
    rows, stays = len(result.final.y), len(result.final.about.groupby(["pat_id", "date_admission"]))
    parameters = ", ".join(dict.fromkeys(f.parameter for f in result.features if f.parameter))
    hours = sorted({*config.data.sample_hours, *config.data.more_hours})
    sections = [
        (f"# {config.model.title}", "In the sections of the CHAI Applied Model Card."),
        (
            "## Basic information",
            _points(
                f"Model: `{config.model.name}`, version `{version}`, of {created.isoformat()}",
                f"Developer: {card.developer}",
                "Release stage: research; regulatory approval: none",
            ),
        ),
        ("## Summary", card.summary),
        ("## Uses and directions", ""),
        ("### Intended use and workflow, users, how to use it", card.intended_use),
        ("### Targeted patient population", card.population),
        ("### Cautioned out-of-scope settings and use cases", card.out_of_scope),
        ("## Warnings", ""),
        ("### Known risks and limitations", "\n\n".join([card.risks, _points(*card.limits)])),
        ("### Known biases or ethical considerations", card.bias),
        ("### Clinical risk level", "High if acted upon. It has not been studied in care."),
        ("## Trust ingredients", ""),
        (
            "### AI system facts",
            _points(
                f"Outcome and output: the probability of {config.label.event}, at each reading",
                f"Model type: {_kind(config.model.kind)}",
                f"Inputs: {len(result.features)} features of {parameters} and the patient's age; "
                "no value is required but " + ", ".join(config.features.required),
                f"Foundation models: none. Seed {config.model.seed}, reproducible.",
            ),
        ),
        (
            "### Development data",
            f"{card.data}\n\nThe shipped model was fitted to {rows:,} rows of {stays:,} stays, "
            f"sampled at hours {', '.join(map(str, hours))}. Left out:\n\n"
            + _points(
                *(f"{n:,} × {why}" for why, n in result.left_out.items()),
                *card.left_out,
                *(f"feature {f.name}: too few stays have it" for f in result.dropped),
            ),
        ),
        (
            "### Bias mitigation approaches",
            "None beyond judging subgroups apart (below). Sex and ethnicity are not inputs.",
        ),
        (
            "### Ongoing maintenance",
            "None promised. Judge it on your own patients before use, and again regularly: "
            "`make train` with your data gives the same report.",
        ),
        (
            "### Security and compliance environment, transparency, funding",
            "Runs inside the user's own installation; sends nothing elsewhere. Training code and "
            "settings are in this repository. No funding; no clinicians or patients were "
            "consulted.",
        ),
        ("## Key metrics", ""),
        ("### Usefulness, usability and efficacy", _table(result.headline)),
        ("By hour of the stay, same training and test rows:", _table(result.hours, "hour")),
        ("Against baselines on the same rows:", _table(result.baselines)),
        (
            "### Fairness and equity",
            "Subgroups of the test rows at the report's hour:\n\n" + _table(result.subgroups),
        ),
        (
            "### Safety and reliability",
            "What acting at or above a threshold would have meant, on the same rows (the balanced "
            "one was chosen on them):\n\n" + _thresholds(result),
        ),
        (
            "*Intervals are 95 %, bootstrapped by patient.*",
            "",
        ),
        ("## Resources", _points(*card.references)),
    ]
    return "\n\n".join(part for section in sections for part in section if part) + "\n"


def _kind(kind: str) -> str:
    return {
        "logistic": "logistic regression",
        "boosting": "gradient boosted trees, Platt-calibrated",
        "blend": "logistic regression on splines and gradient boosted trees, blended and "
        "calibrated by logistic regression on cross-fitted log odds",
    }[kind]


def _points(*lines: str) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(lines: list[Line], first: str = "") -> str:
    names = [n for n in lines[0].figures if n != "prevalence"] if lines else []
    head = [first, "rows", "events", *(name.replace("_", " ") for name in names)]
    body = [
        [line.name, f"{line.rows:,}", f"{line.events:,}", *(str(line.figures[n]) for n in names)]
        for line in lines
    ]
    rule = ["---"] + ["--:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def _thresholds(result: Result) -> str:
    rows = ["| threshold | sensitivity | specificity | PPV | flagged |", "|---|--:|--:|--:|--:|"]
    for name, point in result.points.items():
        figures = (point.sensitivity, point.specificity, point.ppv, point.flagged)
        cells = ["{} ({})".format(*f.percent).removesuffix(" ()") for f in figures]
        rows.append(f"| {name} ({point.threshold:.3f}) | {' | '.join(cells)} |")
    return "\n".join(rows)
