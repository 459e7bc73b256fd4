"""Tables of predictions as people have them; each says the same of the same 60 images."""

import numpy as np
import pandas as pd
import pytest

from glomerulab.errors import PredictionsError
from glomerulab.evaluation.prediction_files import read_prediction_file
from glomerulab.evaluation.result import evaluate_run
from tests.support.eval_sets import PAPER

NAMES = ["Normal", "Crescent", "Sclerosis"]
N = 60


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=N)
    logits = 1.4 * np.eye(3)[truth] + rng.normal(size=(N, 3))
    return truth, logits


def _softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def _images():
    return pd.DataFrame({"file": [f"im{i}.png" for i in range(N)]})


def _with(values, prefix="prob_", suffix=""):
    columns = {f"{prefix}{name}{suffix}": values[:, k] for k, name in enumerate(NAMES)}
    return _images().assign(**columns)


def _names(truth):
    return [NAMES[k] for k in truth]


def _read(tmp_path, table, **options):
    path = tmp_path / "theirs.csv"
    table.to_csv(path, index=False)
    return read_prediction_file(path, out=tmp_path / "out", **options)


def _accuracy(found):
    result = evaluate_run(found.tables)
    return result.scores["value"].iloc[0]


def _tables(truth, logits):
    probabilities = _softmax(logits)
    one_hot = {f"true_{name}": (truth == k) * 1 for k, name in enumerate(NAMES)}
    numbered = _images().assign(prob_0=probabilities[:, 0], prob_1=probabilities[:, 1])
    return {
        "prefix": _with(probabilities).assign(true=_names(truth)),
        "short prefix": _with(probabilities, "p_").assign(label=_names(truth)),
        "suffix": _with(probabilities, "", "_prob").assign(gt=_names(truth)),
        "bare": _with(probabilities, "").assign(label=_names(truth)),
        "upper case": _with(probabilities, "PROB ").assign(**{"Ground Truth": _names(truth)}),
        "from 0": _with(probabilities).assign(y_true=truth),
        "from 1": _with(probabilities).assign(y_true=truth + 1),
        "as floats": _with(probabilities).assign(y_true=truth.astype(float)),
        "one-hot truth": _with(probabilities).assign(**one_hot),
        "per cent": _with(100 * probabilities).assign(true=_names(truth)),
        "rounded": _with(probabilities.round(4)).assign(true=_names(truth)),
        "logits": _with(logits, "logit_").assign(true=_names(truth)),
        "called": _images().assign(label=_names(truth), pred=_names(logits.argmax(axis=1))),
        "called numbers": _images().assign(y_true=truth, y_pred=logits.argmax(axis=1)),
        "numbered columns": numbered.assign(prob_2=probabilities[:, 2], label=truth),
    }


def test_every_spelling_gives_the_same_accuracy(tmp_path, model):
    truth, logits = model
    expected = (logits.argmax(axis=1) == truth).mean()
    found = {name: _read(tmp_path, t) for name, t in _tables(truth, logits).items()}
    assert {name: _accuracy(one) for name, one in found.items()} == pytest.approx(
        dict.fromkeys(found, expected)
    )
    assert {one.tables.head for one in found.values()} == {"softmax"}


def test_a_german_table_in_per_cent_is_read(tmp_path, model):
    truth, logits = model
    table = _with(100 * _softmax(logits)).assign(true=_names(truth))
    path = tmp_path / "theirs.csv"
    table.to_csv(path, sep=";", decimal=",", index=False, encoding="utf-8-sig")
    found = read_prediction_file(path, out=tmp_path)
    assert _accuracy(found) == pytest.approx((logits.argmax(axis=1) == truth).mean())
    assert any("per cent" in notice for notice in found.notices)


def test_predicted_labels_alone_have_no_areas(tmp_path, model):
    truth, logits = model
    result = evaluate_run(_read(tmp_path, _tables(truth, logits)["called"]).tables)
    scores = result.scores.set_index(["label", "score"])["value"]
    assert scores[scores.index.get_level_values("score") == "roc_auc"].isna().all()
    assert "No probabilities" in {warning.title for warning in result.warnings}


def test_several_labels_of_an_image_are_evaluated_each_by_itself(tmp_path, model):
    _, logits = model
    flags = (logits > 0.5).astype(int)
    probabilities = 1 / (1 + np.exp(-logits))
    texts = ["+".join(NAMES[k] for k in range(3) if row[k]) or "none" for row in flags]
    one_hot = {f"label_{name}": flags[:, k] for k, name in enumerate(NAMES)}
    joined = _read(tmp_path, _with(probabilities).assign(labels=texts)).tables
    columns = _read(tmp_path, _with(probabilities).assign(**one_hot)).tables
    assert joined.head == columns.head == "sigmoid"
    for tables in (joined, columns):
        assert (tables.manifest.labels() == flags).all()


def test_a_binary_score_is_of_the_label_1(tmp_path, model):
    truth, logits = model
    score = _softmax(logits)[:, 1]
    table = _images().assign(y_true=(truth == 1) * 1, y_score=score)
    tables = _read(tmp_path, table).tables
    assert tables.predictions["probability_label_1"].to_numpy() == pytest.approx(score)


@pytest.mark.parametrize(
    "ids", [lambda i: f"im{i}.png", lambda i: f"im{i}", lambda i: f"d\\im{i}.tif"]
)
def test_true_labels_of_another_table_are_joined_by_image(tmp_path, model, ids):
    truth, logits = model
    other = pd.DataFrame(
        {
            "image": [ids(i) for i in range(N)],
            "diagnosis": _names(truth),
            "patient": [f"P{i // 4}" for i in range(N)],
        }
    )
    other.sample(frac=1, random_state=1).iloc[:-2].to_csv(tmp_path / "truth.csv", index=False)
    found = _read(tmp_path, _with(_softmax(logits)), truth=tmp_path / "truth.csv")
    labels = found.tables.manifest.labels()
    known = ~np.isnan(labels).any(axis=1)
    assert known.sum() == N - 2
    assert (labels[known].argmax(axis=1) == truth[known]).all()
    assert found.tables.predictions["patient_id"].nunique() == 15
    assert any("2 images without a true label" in notice for notice in found.notices)


def test_names_that_are_not_recognised_are_mapped(tmp_path, model):
    truth, logits = model
    table = _with(_softmax(logits), "net/").rename(columns={"file": "scan"})
    table = table.assign(befund=_names(truth), wer=[f"P{i // 6}" for i in range(N)])
    columns = {"image_id": "scan", "label": "befund", "patient_id": "wer"}
    columns |= {f"probability_{name.lower()}": f"net/{name}" for name in NAMES}
    tables = _read(tmp_path, table, columns=columns).tables
    assert tables.predictions["patient_id"].nunique() == 10
    assert tables.predictions["image_id"].iloc[0] == "im0.png"


def test_chinese_names_are_found_in_the_taxonomy(tmp_path):
    labels = PAPER.labels
    table = pd.DataFrame({"image": [f"i{k}" for k in range(4)]})
    table["label"] = [label.name_zh for label in labels]
    table["pred"] = [label.name for label in labels]
    tables = _read(tmp_path, table, taxonomy=PAPER).tables
    assert tables.taxonomy == PAPER
    assert (tables.manifest.labels() == np.eye(4)).all()


def test_nothing_is_known_of_the_training(tmp_path, model):
    result = evaluate_run(_read(tmp_path, _tables(*model)["prefix"]).tables)
    titles = {warning.title for warning in result.warnings}
    assert {"Training unknown", "Patients unknown"} <= titles
    assert not {"Not sealed", "No external set"} & titles


def _refusals(truth, logits):
    good = _with(_softmax(logits)).assign(true=_names(truth))
    foreign = good.assign(true=good["true"].where(good.index != 5, "Amyloid"))
    return {
        "foreign label": (foreign, "line 7.*Amyloid"),
        "foreign column": (good.assign(prob_Amyloid=0.0), "Amyloid"),
        "no truth": (good.drop(columns="true"), "--truth"),
        "unnamed logits": (_with(logits).assign(true=_names(truth)), "--values logits"),
        "empty cell": (
            good.assign(prob_Crescent=good["prob_Crescent"].where(good.index != 3)),
            "line 5",
        ),
        "a word": (
            good.astype({"prob_Crescent": str}).replace(
                {"prob_Crescent": {str(good["prob_Crescent"][3]): "high"}}
            ),
            "line 5",
        ),
        "an image twice": (pd.concat([good, good.iloc[[4]]]), "line 62.*im4"),
        "no prediction": (good[["file", "true"]], "--column predicted"),
        "number too large": (good.assign(true=[9, *truth[1:]]), "number 9"),
    }


@pytest.mark.parametrize("kind", list(_refusals(np.zeros(N, dtype=int), np.zeros((N, 3)))))
def test_what_cannot_be_read_is_named(tmp_path, model, kind):
    table, named = _refusals(*model)[kind]
    taxonomy = _read(tmp_path, _tables(*model)["prefix"]).tables.taxonomy
    with pytest.raises(PredictionsError, match=named):
        _read(tmp_path, table, taxonomy=taxonomy)


@pytest.mark.parametrize("columns", [{"label": "nothing"}, {"labell": "true"}])
def test_a_mapping_to_nothing_is_refused(tmp_path, model, columns):
    with pytest.raises(PredictionsError, match=next(iter(columns))):
        _read(tmp_path, _tables(*model)["prefix"], columns=columns)


def test_a_name_with_a_slash_is_one_label_and_the_spelling_is_that_of_the_truth(tmp_path):
    table = pd.DataFrame({"image": list("abcd")})
    table["label"] = ["Class III/IV", "Crescent", "Class III/IV + Crescent", "Normal, Crescent"]
    table["pred"] = ["CLASS III/IV", "crescent", "Class III/IV", "Normal"]
    tables = _read(tmp_path, table).tables
    assert [one.name for one in tables.taxonomy.labels] == ["Class III/IV", "Crescent", "Normal"]
    assert tables.manifest.labels().tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 1, 1]]


def test_no_label_is_written_none_where_images_have_several(tmp_path, model):
    truth, logits = model
    flags, calls = np.eye(3)[truth] + np.eye(3)[(truth + 1) % 3], logits > 0.5
    texts = [["+".join(NAMES[k] for k in range(3) if row[k]) or "none" for row in rows]
             for rows in (flags, calls)]  # fmt: skip
    tables = _read(tmp_path, _images().assign(labels=texts[0], predicted=texts[1])).tables
    names = [f"probability_{name}" for name in tables.manifest.taxonomy.label_ids]
    order = [NAMES.index(label.name) for label in tables.manifest.taxonomy.labels]
    assert (tables.predictions[names].to_numpy() == calls[:, order]).all()


@pytest.mark.parametrize("word", ["none", "unknown", "NA"])
def test_a_label_may_be_called_as_an_unknown_one(tmp_path, model, word):
    truth, logits = model
    names = ["mild", "severe", word]
    shares = {f"prob_{name}": _softmax(logits)[:, k] for k, name in enumerate(names)}
    found = _read(tmp_path, _images().assign(label=[names[k] for k in truth], **shares))
    assert (found.tables.manifest.labels().argmax(axis=1) == truth).all()


def test_a_grade_none_is_a_label_of_a_table_without_probabilities(tmp_path, model):
    truth, logits = model
    names = np.array(["none", "mild", "severe"])
    found = _read(
        tmp_path, _images().assign(label=names[truth], predicted=names[logits.argmax(axis=1)])
    )
    assert _accuracy(found) == pytest.approx((logits.argmax(axis=1) == truth).mean())


def test_images_without_a_true_label_are_counted(tmp_path, model):
    truth, logits = model
    labels = [None if i % 7 == 0 else name for i, name in enumerate(_names(truth))]
    found = _read(tmp_path, _with(_softmax(logits)).assign(label=labels))
    assert any("9 images without a true label" in notice for notice in found.notices)


@pytest.mark.parametrize("names", [(0, 1), ("no", "yes"), ("Negative", "Positive")])
@pytest.mark.parametrize("kind", ["score", "threshold", "confidence"])
def test_one_number_per_image_is_the_probability_of_one_of_two_labels(tmp_path, model, names, kind):
    truth, logits = model
    score = _softmax(logits)[:, 1]
    is_called = score >= (0.3 if kind == "threshold" else 0.5)
    table = _images().assign(y_true=np.array(names)[(truth == 1) * 1], y_prob=score)
    if kind != "score":
        table["y_pred"] = np.array(names)[is_called * 1]
    if kind == "confidence":
        table["y_prob"] = np.where(is_called, score, 1 - score)
    tables = _read(tmp_path, table).tables
    positive = tables.manifest.taxonomy.label_ids[1]
    assert tables.predictions[f"probability_{positive}"].to_numpy() == pytest.approx(score)
    assert tables.has_probabilities


def test_a_score_of_two_labels_of_which_none_is_positive_by_name_is_refused(tmp_path, model):
    truth, logits = model
    label = np.where(truth == 1, "abnormal", "normal")
    table = _images().assign(label=label, score=_softmax(logits)[:, 1])
    with pytest.raises(PredictionsError, match="probability_abnormal=score or"):
        _read(tmp_path, table)
    found = _read(tmp_path, table, columns={"probability_abnormal": "score"}).tables
    assert found.predictions["probability_abnormal"].to_numpy() == pytest.approx(table["score"])


def test_a_column_called_logit_holds_logits(tmp_path, model):
    truth, logits = model
    table = _images().assign(y_true=(truth == 1) * 1, logit=logits[:, 1])
    found = _read(tmp_path, table).tables.predictions["probability_label_1"]
    assert found.to_numpy() == pytest.approx(1 / (1 + np.exp(-logits[:, 1])))


def test_columns_of_a_manifest_mean_something_else_in_the_table_of_another(tmp_path, model):
    truth, logits = model
    table = _with(_softmax(logits)).assign(label=truth, fold="fold A", mpp="n/a", x=0.5)
    assert _accuracy(_read(tmp_path, table)) > 0.4


def test_parts_are_recognised_or_named(tmp_path, model):
    truth, logits = model
    table = _with(_softmax(logits)).assign(label=truth, split="Test set")
    assert set(_read(tmp_path, table).tables.predictions["split"]) == {"test"}
    with pytest.raises(PredictionsError, match="'site B'"):
        _read(tmp_path, table.assign(split="site B"))


def test_patients_that_look_alike_are_told(tmp_path, model):
    truth, logits = model
    patients = ["12" if i % 2 else "12.0" for i in range(N)]
    found = _read(tmp_path, _with(_softmax(logits)).assign(label=truth, patient=patients))
    assert any("'12' and '12.0'" in notice for notice in found.notices)
