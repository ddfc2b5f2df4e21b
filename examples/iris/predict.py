"""Tells the species of an iris from four measurements. Trained when it is loaded, in well under a second."""

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

_flowers = load_iris()
_names = [str(name) for name in _flowers.target_names]
_model = LogisticRegression(max_iter=1000).fit(_flowers.data, _flowers.target)


def predict(features):
    """The most likely species and how likely each one is.

    `features` are the lengths and widths of sepal and petal in cm, in the order of the data set.
    """
    probabilities = _model.predict_proba([features])[0]
    return {
        "label": _names[probabilities.argmax()],
        "probabilities": dict(zip(_names, probabilities.round(4), strict=True)),
    }
