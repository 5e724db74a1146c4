"""How well a class can be predicted from one field of metadata, such as the file name or the width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import recall_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import ComplementNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier

NUMERIC = ("bytes", "width", "height", "bytes_per_pixel")


def balanced_accuracy(
    name: str, values: Sequence[str] | Sequence[float], labels: Sequence[str], num_folds: int
) -> tuple[float, float]:
    """The mean recall over the classes, by cross-validation, and its standard error.

    Args:
        name: the field, on which the kind of model depends.
        values: of each sample, N.
        labels: the class of each sample, N; every class has at least as many samples as there are folds.
        num_folds: the number of folds.
    """
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=0)
    column: object
    if name == "file name":
        # Short runs of letters and digits, which find "cat_001" as well as "cam2-17".
        model = make_pipeline(CountVectorizer(analyzer="char", ngram_range=(2, 4), max_features=20_000), ComplementNB())
        column = [f" {value} " for value in values]
    elif name in NUMERIC:
        model = DecisionTreeClassifier(max_depth=5, class_weight="balanced", min_samples_leaf=5, random_state=0)
        column = np.array(values)[:, None]
    else:
        encoder = OneHotEncoder(handle_unknown="ignore")
        model = make_pipeline(encoder, DecisionTreeClassifier(max_depth=10, class_weight="balanced", random_state=0))
        column = np.array(values)[:, None]
    truth = np.array(labels)
    predicted = cross_val_predict(model, column, truth, cv=folds)
    recalls = recall_score(truth, predicted, average=None)
    _, sizes = np.unique(truth, return_counts=True)
    # The variance of a recall has a lower limit, because a perfect recall of few samples is not certain.
    variance = np.maximum(recalls * (1 - recalls), 0.25 / sizes) / sizes
    return float(recalls.mean()), float(np.sqrt(variance.sum()) / len(sizes))
