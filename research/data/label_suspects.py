"""Label suspects: training examples whose label a simple classifier confidently contradicts.

Idea: a classifier that has not seen an example says how likely its label is; an example that looks like another class, by the
standard of that class, is probably mislabelled.

Source: Northcutt et al. 2021 (Confident learning: estimating uncertainty in dataset labels, section 3), by cleanlab.

Config: {'data.filters': ('label_suspects',)}

Each example is judged by a logistic regression that was fitted to the other four fifths of the data: of pixels, standardized
and reduced to at most 64 principal components, or of words, as TF-IDF. Errors that a linear classifier cannot see stay in.

Cost: five fits, once, kept on disk. Claim: people confirmed 51 % of the suspects in ten well-known test sets (Northcutt,
Athalye and Mueller 2021, Pervasive label errors in test sets). Clashes: rare classes, whose hard examples look like errors.
Right labels go too, the more the weaker the classifier.

Effect: -1.04 points (-1.21 to -0.87) beside the same data with 10 % wrong labels left in (5 % of Fashion-MNIST and 6,000
external images, ten seeds, configs/external.py): one right label in nine goes, and these are of the hard images.
"""

import warnings

import numpy as np

from research.catalogue import ConfigError

_FOLDS, _COMPONENTS, _ITERATIONS = 5, 64, 200


def suspects(examples: np.ndarray, labels: np.ndarray | None, main: np.ndarray) -> np.ndarray:
    """bool [N], True of suspects; a filter of research/data/curation.py.

    Raises:
      ConfigError: data without classes, a class with too few examples, or no cleanlab.
    """
    del main
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise ConfigError(
            "The filter 'label_suspects' needs cleanlab, which is not installed: pip install 'frugal-jax[filters]'."
        ) from error
    if labels is None:
        raise ConfigError(
            "The filter 'label_suspects' doubts classes, and the data have none. Take it out of data.filters, or choose other "
            'data.'
        )
    classes, numbers, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(classes) < 2 or counts.min() < _FOLDS:
        raise ConfigError(
            f"The filter 'label_suspects' needs two classes and {_FOLDS} training examples of each, and class "
            f'{classes[counts.argmin()]} has {counts.min()}. Take it out of data.filters, or use more examples.'
        )
    found = find_label_issues(numbers, probabilities(examples, numbers), n_jobs=1)
    return np.asarray(found, bool)


def probabilities(examples: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 [N, K] of each class, by a classifier that has not seen the example.

    Args:
      examples: images [N, H, W, C], or texts [N].
      labels: int [N] in [0, K), at least `_FOLDS` of each class.
    """
    # A second to import.
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if examples.dtype == object:
        inputs, steps = examples, [TfidfVectorizer(sublinear_tf=True, token_pattern=r'(?u)\b\w+\b')]
    else:
        inputs = examples.reshape(len(examples), -1).astype(np.float32)
        components = min(_COMPONENTS, inputs.shape[1], len(inputs) * (_FOLDS - 1) // _FOLDS - 1)
        steps = [StandardScaler(), PCA(components, svd_solver='covariance_eigh'), StandardScaler()]
    classifier = make_pipeline(*steps, LogisticRegression(max_iter=_ITERATIONS))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():  # a fit that stops early is still a judge
        warnings.simplefilter('ignore', ConvergenceWarning)
        return cross_val_predict(classifier, inputs, labels, cv=folds, method='predict_proba')
