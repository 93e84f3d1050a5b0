"""How the table `predictions` stores the features of a prediction.

`features` is a JSON array in the order of the version's features in `models`. Models often share
most features. Then only one version's prediction for a reading has the array. In the predictions of
the others, features_model and features_version name that version, and `features` is a JSON object
with the features that it does not have, by their place: `{"4": 15.0, "5": null}`; null if there are
none.
"""

from collections.abc import Sequence

import msgspec

Values = list[float | None]

_array = msgspec.json.Decoder(Values)
_object = msgspec.json.Decoder(dict[str, float | None])


def own_places(names: Sequence[str], others: Sequence[str]) -> list[int]:
    """The places in `names` of the features that are not in `others`.

    >>> own_places(["age", "hour", "gcs__last"], ["hour", "age"])
    [2]
    """
    known = set(others)
    return [place for place, name in enumerate(names) if name not in known]


def read(features: str | None, names: Sequence[str], array: str, others: Sequence[str]) -> Values:
    """The features of a prediction, in the order of `names`. array: that of the other version.
    others: the names of the features in it. Raises ValueError or KeyError if they do not belong
    together.

    >>> read("[63.0,15.0]", ["age", "gcs__last"], "", [])
    [63.0, 15.0]
    >>> read('{"1": 15.0}', ["age", "gcs__last"], "[63.0,null]", ["age", "hour"])
    [63.0, 15.0]
    """
    if features and features[0] == "[":
        return _array.decode(features)
    values = dict(zip(others, _array.decode(array), strict=True))
    own = _object.decode(features) if features else {}
    return [own[str(i)] if str(i) in own else values[name] for i, name in enumerate(names)]
