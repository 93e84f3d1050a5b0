"""Tests artifacts: reasons for rejection, fused and compiled forms, `seal`, and the shipped
artifacts.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import joblib
import msgspec
import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from modelapi import default_model, rule_models
from modelapi.__main__ import main
from modelapi.artifact import ArtifactError, Manifest, Ref, write_artifact
from modelapi.compiled import Compiled
from modelapi.features import Feature
from modelapi.linear import Linear
from modelapi.repository import Model, Repository
from modelapi.sklearn_model import Estimator, libraries
from tests.support.modelapi_server import MODELS, add_linear, copy_models
from wire.features import read_name

NAMES = ("age", "heart_rate__last", "temperature__mean__6h", "spo2__min")


def load(models: Path, name: str = "formula", version: str = "1") -> Model:
    return Repository(models).load(Ref(name, version))


def refused(models: Path, name: str = "formula", version: str = "1") -> str:
    with pytest.raises(ArtifactError) as caught:
        load(models, name, version)
    message = str(caught.value)
    assert "\n" not in message
    return message


def edit(folder: Path, file: str, change: Any) -> None:
    """Changes a JSON file of an artifact, and its digest in the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    document = manifest if file == "manifest.json" else json.loads((folder / file).read_text())
    change(document)
    if file != "manifest.json":
        (folder / file).write_text(json.dumps(document))
        digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
        manifest["files"][file] = digest
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return copy_models(tmp_path, "formula", "qsofa")


@pytest.mark.parametrize("file", ["model.joblib", "golden.json", "MODEL_CARD.md"])
def test_a_changed_file_is_rejected(models: Path, file: str) -> None:
    path = models / "formula" / "1" / file
    path.write_bytes(path.read_bytes() + b" ")
    assert f"{path}: SHA-256 is" in refused(models)


def test_a_pickle_is_opened_only_after_its_digest_matches(models: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (models / "sprung",))

    joblib.dump(Trap(), models / "formula" / "1" / "model.joblib")
    refused(models)
    assert not (models / "sprung").exists()


def test_another_version_of_scikit_learn_is_rejected(models: Path) -> None:
    folder = models / "formula" / "1"
    edit(folder, "manifest.json", lambda m: m["libraries"].update({"scikit-learn": "1.5.0"}))
    assert "was made with scikit-learn 1.5.0, but" in refused(models)


def test_a_golden_row_that_differs_by_a_millionth_is_rejected(models: Path) -> None:
    def change(rows: Any) -> None:
        rows[2]["outputs"]["probability"] += 1e-6

    edit(models / "formula" / "1", "golden.json", change)
    assert "golden.json: row 3: probability is" in refused(models)


def test_a_missing_file_is_rejected(models: Path) -> None:
    (models / "formula" / "1" / "model.joblib").unlink()
    assert "model.joblib: No such file" in refused(models)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.pop("features"), "missing required field `features`"),
        (lambda m: m.update(surprise=1), "unknown field `surprise`"),
        (lambda m: m.update(version="2"), "names formula/2, but lies in formula/1"),
        (lambda m: m["features"][1].update(aggregation="mean"), "last_blood_pressure"),
        (lambda m: m["features"][1].update(name="blood pressure"), "feature 'blood pressure': "),
        (lambda m: m["features"][0].update(fill=1.0), "feature 'age': "),
        (lambda m: m["features"].append(m["features"][0]), "their names must differ"),
        (lambda m: m["features"].pop(), "takes 4 features, but the manifest declares 3"),
        (lambda m: m["features"][3].update(fill=None), "fails without"),
        (lambda m: m["files"].pop("golden.json"), "golden.json is missing"),
        (lambda m: m["files"].update({"../x": "00"}), "is not a file name"),
        (lambda m: m["outputs"][0].update(name="p"), "'probability'"),
        (lambda m: m["outputs"].append({"name": "q"}), "returns probability, declares"),
    ],
)
def test_an_invalid_manifest_is_rejected(models: Path, change: Any, words: str) -> None:
    edit(models / "formula" / "1", "manifest.json", change)
    assert words in refused(models)


def test_a_manifest_that_is_not_json_is_rejected(models: Path) -> None:
    (models / "formula" / "1" / "manifest.json").write_text("{")
    assert "manifest.json: Input data was truncated" in refused(models)


def test_a_text_that_is_not_utf_8_is_rejected(models: Path) -> None:
    folder = models / "formula" / "1"
    edit(folder, "manifest.json", lambda m: m.update(limits=["~ is the degree"]))
    manifest = folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"~", "°C".encode("cp1252")))
    assert "manifest.json: 'utf-8' codec can't decode byte 0xb0" in refused(models)


def test_a_scorecard_with_other_features_is_rejected(models: Path) -> None:
    edit(models / "qsofa" / "2016", "scorecard.json", lambda card: card["parts"].reverse())
    assert "parts: these must be the manifest's features" in refused(models, "qsofa", "2016")


def test_a_linear_model_needs_neither_pickle_nor_library_versions(models: Path) -> None:
    add_linear(models, "plain", "1", -2.0)
    row = np.array([[80.0]])
    expected = 1 / (1 + np.exp(2.0 - 0.8))
    assert load(models, "plain").predict(row)["probability"] == pytest.approx([expected])


def test_versions_are_in_natural_order(models: Path) -> None:
    for version in ("1.10", "1.9", "1.2-beta"):
        add_linear(models, "plain", version, 0.0)
    versions = [ref.version for ref in Repository(models).refs() if ref.model == "plain"]
    assert versions == ["1.2-beta", "1.9", "1.10"]


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    draw = np.random.default_rng(1)
    x = draw.normal([60, 85, 37, 96], [15, 15, 0.5, 2], (400, 4))
    y = (x[:, 0] + 10 * draw.normal(size=400) > 65).astype(int)
    x[draw.random(x.shape) < 0.2] = np.nan
    return x, y


def write(models: Path, estimator: Any, x: Any, **changes: Any) -> Path:
    """Writes an estimator as `trained/1`; its golden rows come from predict_proba."""
    content = io.BytesIO()
    joblib.dump(estimator, content)
    golden = [
        {
            "features": {
                name: None if np.isnan(value) else value
                for name, value in zip(NAMES, row.tolist(), strict=True)
            },
            "outputs": {"probability": p},
        }
        for row, p in zip(x[:5], estimator.predict_proba(x[:5])[:, 1].tolist(), strict=True)
    ]
    features = [
        Feature.from_declaration({"name": name, "reference": median})
        for name, median in zip(NAMES, np.nanmedian(x, axis=0).tolist(), strict=True)
    ]
    manifest = {
        "model": "trained",
        "version": "1",
        "title": "A test",
        "kind": "sklearn",
        "created": "2026-01-01T00:00:00Z",
        "features": features,
        "outputs": [{"name": "probability"}],
        "libraries": libraries(),
        **changes,
    }
    files = {"model.joblib": content.getvalue(), "golden.json": json.dumps(golden).encode()}
    return write_artifact(models, manifest, files)


@pytest.mark.parametrize(
    "steps",
    [
        [SimpleImputer(strategy="median", add_indicator=True), StandardScaler()],
        [SimpleImputer(strategy="mean"), StandardScaler(with_mean=False)],
        [SimpleImputer(strategy="constant", fill_value=-1.0)],
        [SimpleImputer(strategy="most_frequent"), StandardScaler(with_std=False)],
    ],
)
def test_a_linear_pipeline_is_served_fused_and_agrees(
    tmp_path: Path, data: Any, steps: list[Any]
) -> None:
    x, y = data
    pipeline = make_pipeline(*steps, LogisticRegression(max_iter=2000)).fit(x, y)
    write(tmp_path, pipeline, x)
    model = load(tmp_path, "trained")
    assert isinstance(model.predictor, Linear)
    expected = pipeline.predict_proba(x)[:, 1]
    assert np.abs(model.predict(x)["probability"] - expected).max() < 1e-12


def test_an_imputer_that_drops_a_column_is_fused_too(tmp_path: Path, data: Any) -> None:
    x, y = data[0].copy(), data[1]
    x[:, 2] = np.nan
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=2000))
    with pytest.warns(UserWarning, match="Skipping features"):
        pipeline.fit(x, y)
    with pytest.warns(UserWarning, match="Skipping features"):
        write(tmp_path, pipeline, np.where(np.isnan(x), 1.0, x))
    with pytest.warns(UserWarning, match="Skipping features"):
        fused = load(tmp_path, "trained").predictor
    assert isinstance(fused, Linear)
    assert fused.coefficients[2] == fused.missing[2] == 0


def test_a_nonlinear_pipeline_is_served_unchanged(tmp_path: Path, data: Any) -> None:
    x, y = data
    pipeline = make_pipeline(
        SimpleImputer(), PolynomialFeatures(2), StandardScaler(), LogisticRegression(max_iter=2000)
    ).fit(x, y)
    write(tmp_path, pipeline, x)
    assert isinstance(load(tmp_path, "trained").predictor, Estimator)


def test_forests_are_served_by_predict_proba(tmp_path: Path, data: Any) -> None:
    x, y = data
    forest = RandomForestClassifier(5, random_state=0).fit(x, y)
    write(tmp_path, forest, x)
    model = load(tmp_path, "trained")
    assert isinstance(model.predictor, Estimator)
    assert model.predict(x)["probability"].tolist() == forest.predict_proba(x)[:, 1].tolist()
    assert model.predict(x[:0])["probability"].shape == (0,)


def test_boosted_trees_are_served_compiled(tmp_path: Path, data: Any) -> None:
    x, y = data
    trees = HistGradientBoostingClassifier(max_iter=20).fit(x, y)
    write(tmp_path, trees, x)
    model = load(tmp_path, "trained")
    assert isinstance(model.predictor, Compiled)
    expected = trees.predict_proba(x)[:, 1]
    assert np.abs(model.predict(x)["probability"] - expected).max() < 1e-12


def test_a_fused_form_that_differs_is_not_served(
    tmp_path: Path, data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = data
    pipeline = make_pipeline(SimpleImputer(), LogisticRegression(max_iter=2000)).fit(x, y)
    write(tmp_path, pipeline, x)
    whole = Linear.probability
    monkeypatch.setattr(Linear, "probability", lambda *a: whole(*a) + 2e-9)
    assert isinstance(load(tmp_path, "trained").predictor, Estimator)


def test_a_joblib_file_without_an_estimator_is_rejected(tmp_path: Path, data: Any) -> None:
    x, y = data
    folder = write(tmp_path, make_pipeline(SimpleImputer(), LogisticRegression()).fit(x, y), x)
    joblib.dump({"not": "a model"}, folder / "model.joblib")
    digest = hashlib.sha256((folder / "model.joblib").read_bytes()).hexdigest()
    edit(folder, "manifest.json", lambda m: m["files"].update({"model.joblib": digest}))
    assert "takes no features" in refused(tmp_path, "trained")


def test_an_artifact_is_never_overwritten_with_other_content(tmp_path: Path) -> None:
    folder = default_model.build(tmp_path)
    assert default_model.build(tmp_path) == folder
    (folder / "golden.json").write_text("[]")
    with pytest.raises(FileExistsError, match="use another version"):
        default_model.build(tmp_path)


def test_of_two_programs_that_write_a_version_at_once_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def after_the_other(draft: Path, folder: Path) -> Path:
        folder.mkdir()
        (folder / "manifest.json").write_text("{}")
        return rename(draft, folder)

    monkeypatch.setattr(Path, "rename", after_the_other)
    with pytest.raises(FileExistsError, match="use another version"):
        default_model.build(tmp_path)
    assert [path.name for path in (tmp_path / "formula").iterdir()] == ["1"]


def test_the_scripts_rebuild_the_shipped_models(tmp_path: Path) -> None:
    for folder in (default_model.build(tmp_path), *rule_models.build(tmp_path)):
        shipped = MODELS / folder.relative_to(tmp_path)
        for path in shipped.iterdir():
            # A pickle of the same object may differ in how it shares strings.
            if path.name not in ("model.joblib", "manifest.json"):
                assert (folder / path.name).read_bytes() == path.read_bytes()
        assert described(folder) == described(shipped)


def described(folder: Path) -> Manifest:
    """The manifest without the digest of the pickle, and with defaults for missing members."""
    manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    manifest.files.pop("model.joblib", None)
    return manifest


@pytest.mark.parametrize("ref", Repository(MODELS).refs(), ids=str)
def test_every_shipped_model_is_valid(ref: Ref) -> None:
    Repository(MODELS).load(ref)


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("age", (None, None, None)),
        ("temperature__age", ("temperature", "age", None)),
        ("heart_rate__trend__12h", ("heart_rate", "trend", 12)),
        ("a__b__last", ("a__b", "last", None)),
        ("a__max__last__6h", ("a__max", "last", 6)),
        ("standard_deviation_temperature", ("temperature", "std", None)),
    ],
)
def test_feature_names_are_parsed_from_the_right(name: str, meaning: tuple[Any, ...]) -> None:
    assert read_name(name) == meaning


@pytest.mark.parametrize("name", ["", "heart_rate", "__last", "x__median", "x__last__0h", "x__6h"])
def test_invalid_feature_names_are_rejected(name: str) -> None:
    with pytest.raises(ValueError, match=f"feature '{name}': "):
        Feature(name)


def handwritten(models: Path, features: list[Any], **members: Any) -> Path:
    """Writes a linear model of three features; `seal` must add the rest of the manifest."""
    folder = models / "mine" / "1"
    folder.mkdir(parents=True)
    terms = [
        {"feature": name, "coefficient": weight, "missing": 0.5}
        for name, weight in (("age", 0.02), ("heart_rate__mean__6h", 0.01), ("spo2__trend", -1))
    ]
    (folder / "linear.json").write_text(json.dumps({"intercept": -3, "terms": terms}))
    (folder / "manifest.json").write_text(json.dumps({"features": features, **members}))
    return folder


def test_a_model_that_seal_has_completed_is_served(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = [{"name": "age", "required": True}, "heart_rate__mean__6h", "spo2__trend"]
    folder = handwritten(models, features, title="Mine")
    assert main(["seal", str(folder)]) == 0
    model = load(models, "mine")
    units = [(f.parameter, f.window_hours, f.unit) for f in model.manifest.features]
    assert units == [(None, None, "years"), ("heart_rate", 6, "/min"), ("spo2", None, "% per hour")]
    for name, digest in model.manifest.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    golden = json.loads((folder / "golden.json").read_text())
    for row in golden:
        age, rate, trend = (row["features"][name] for name in model.names)
        x = -3 + 0.02 * age + (0.5 if rate is None else 0.01 * rate)
        x += 0.5 if trend is None else -trend
        assert row["outputs"]["probability"] == pytest.approx(1 / (1 + np.exp(-x)), rel=1e-12)
    assert [name for name, value in golden[-1]["features"].items() if value is None] == [
        "heart_rate__mean__6h",
        "spo2__trend",
    ]
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert main(["seal", str(folder)]) == 1
    assert "is sealed" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_seal_reports_each_invalid_feature_and_changes_nothing(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = ["age", "heart_rate_mean", {"name": "spo2__trend", "window_hours": 6}]
    folder = handwritten(models, features)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert main(["seal", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "'heart_rate_mean'" in said
    assert "'spo2__trend'" in said
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"features": {"pulse": 1}}, "no feature pulse"),
        ({"features": {"age": 50}, "outputs": {"probability": 0.9}}, "row 1: probability is"),
    ],
)
def test_seal_checks_golden_rows_that_have_outputs(
    models: Path, row: Any, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = handwritten(models, ["age", "heart_rate__mean__6h", "spo2__trend"])
    (folder / "golden.json").write_text(json.dumps([row]))
    assert main(["seal", str(folder)]) == 1
    said = capsys.readouterr().err
    assert reason in said
    assert ".seal-" not in said
    assert "files" not in json.loads((folder / "manifest.json").read_text())
