"""Makes the text of MODEL_CARD.md, in the sections of the CHAI Applied Model Card (schema v0.1)."""

from datetime import date

from training.database import KEY
from training.removal import channels
from training.report import TEMPLATES, metrics
from training.train import Result

KINDS = {
    "logistic": "logistic regression",
    "boosting": "gradient boosted trees, calibrated by a line on cross-fitted log odds",
    "blend": "logistic regression on splines and gradient boosted trees, blended and calibrated by "
    "logistic regression on cross-fitted log odds",
}


def model_card(result: Result, version: str, created: date) -> str:
    """The card as Markdown, with the texts of the config and the figures of the run."""
    config = result.config
    left_out = [f"{count:,} × {reason}" for reason, count in result.left_out.items()]
    left_out += config.card.left_out
    left_out += [
        f"feature {f.name}: too few stays have it, or it has only one value" for f in result.dropped
    ]
    text = TEMPLATES.get_template("card.md").render(
        config=config,
        metrics=metrics,
        card=config.card,
        result=result,
        judgement=result.judgement,
        version=version,
        created=created,
        kind=KINDS[config.model.kind],
        parameters=channels(result.features),
        stays=len(result.final.about.groupby(KEY)),
        hours=sorted({*config.data.hours, *config.data.more_hours}),
        left_out=left_out,
    )
    return text.rstrip() + "\n"
