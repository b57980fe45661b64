import numpy as np
import pytest
from numpy.testing import assert_allclose
from scikeras.wrappers import KerasClassifier
from sklearn.base import is_classifier, is_regressor
from sklearn.model_selection import StratifiedKFold, check_cv
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import (
    check_classifiers_classes,
    parametrize_with_checks,
)

from skssl import (
    RotationPretext,
    SelfSupervisedClassifier,
    SelfSupervisedEncoder,
    build_cnn,
)

# The flat rows of the checks have 2, 3, 10, … features: no square image, so fit warns.
pytestmark = [
    pytest.mark.filterwarnings("ignore:X has .* features, which is no square image"),
]


class Short(KerasClassifier):
    """A wrapper whose name, and so that of a test, holds no address in memory."""

    def __repr__(self):
        return "Short()"


# The default network and optimizer, but 20 epochs, which are faster than 1000 steps.
SHORT = Short(build_cnn, optimizer="adam", batch_size=64, epochs=20)


def expected_failures(estimator):
    failures = {}
    if not isinstance(estimator, RotationPretext):
        failures["check_methods_sample_order_invariance"] = (
            "some processors round a float32 row by its place in the batch, and the "
            "check wants seven digits; a test of its own holds them to five"
        )
    if getattr(estimator, "unlabeled_label", None) == -1:
        failures["check_classifiers_classes"] = (
            "-1 marks rows without a label and is no class"
        )
    return failures


@parametrize_with_checks(
    [
        RotationPretext(),
        SelfSupervisedEncoder(epochs=1),
        SelfSupervisedClassifier(SHORT, pretrain_epochs=1),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_the_order_of_rows_changes_outputs_by_rounding_alone(few_labels, fitted):
    X, _ = few_labels
    order = np.random.default_rng(0).permutation(len(X))
    for method in (fitted.predict_proba, fitted.transform, fitted.encoder_.transform):
        assert_allclose(method(X[order]), method(X)[order], rtol=1e-5, atol=1e-5)


def test_minus_one_is_a_class_like_any_other_where_nothing_marks_unlabelled_rows():
    clf = SelfSupervisedClassifier(SHORT, pretrain_epochs=1, unlabeled_label=None)
    check_classifiers_classes("SelfSupervisedClassifier", clf)


@pytest.mark.parametrize(
    "cls", [RotationPretext, SelfSupervisedEncoder, SelfSupervisedClassifier]
)
def test_tags_of_images(cls):
    estimator = cls()
    tags = get_tags(estimator)
    assert tags.input_tags.two_d_array  # else the checks would not run
    assert tags.input_tags.three_d_array
    assert not tags.input_tags.sparse
    assert not tags.non_deterministic
    assert not tags.no_validation
    assert tags.transformer_tags is not None
    classifies = cls is SelfSupervisedClassifier
    assert tags.target_tags.required == classifies
    assert is_classifier(estimator) == classifies
    assert not is_regressor(estimator)


def test_tags_of_a_classifier():
    clf = SelfSupervisedClassifier()
    tags = get_tags(clf)
    assert tags.estimator_type == "classifier"
    assert tags.classifier_tags.multi_class
    assert not tags.classifier_tags.multi_label
    assert not tags.target_tags.multi_output
    splitter = check_cv(3, [0, 1] * 6, classifier=is_classifier(clf))
    assert isinstance(splitter, StratifiedKFold)
