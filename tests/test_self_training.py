import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import assert_same_weights
from numpy.testing import assert_allclose, assert_array_equal, assert_equal
from scikeras.wrappers import KerasClassifier
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, kneighbors_graph
from sklearn.semi_supervised import LabelPropagation, LabelSpreading

from skssl import (
    SelfSupervisedClassifier,
    SemiSupervisedKFold,
    build_cnn,
    load,
)
from skssl._data.training_set import TrainingSet
from skssl._training.batches import MixedBatches
from skssl._training.consistency import ConsistencyLoss, SureGuesses
from skssl.self_training import (
    FixMatch,
    LabelSpread,
    Learner,
    SelfTraining,
    as_strategies,
)
from skssl.self_training._spreading import certainty, spread


@pytest.fixture(scope="module")
def trained(quick, few_labels):
    """Return a classifier with both strategies, fitted on few labels."""
    strategies = [LabelSpread(min_agreement=0), FixMatch()]
    return make(quick, self_training=strategies).fit(*few_labels)


def make(quick, **params):
    params = {"pretrain_epochs": 0, "random_state": 0, **params}
    return SelfSupervisedClassifier(quick(epochs=10), **params)


# Labels spread over neighbours


@pytest.fixture(scope="module")
def blobs():
    """Two groups of points, one label in each, and more points in the second."""
    rng = np.random.default_rng(0)
    points = np.vstack([rng.normal(0, 1, (30, 2)), rng.normal(9, 1, (60, 2))])
    targets = np.full(90, -1)
    targets[[0, 30]] = 0, 1
    return points, targets


def test_labels_spread_within_their_group(blobs):
    distributions = spread(*blobs, 3)
    assert_array_equal(distributions.argmax(axis=1), [0] * 30 + [1] * 60)
    assert_allclose(distributions.sum(axis=1), 1)
    assert_array_equal(distributions[:, 2], 0)  # a class without a label


def test_class_masses_are_those_of_the_labels(blobs):
    points, targets = blobs
    estimator = LabelPropagation(gamma=0.001)  # each label reaches every point
    own = LabelPropagation(gamma=0.001).fit(points, targets).label_distributions_
    expected = own * np.array([0.5, 0.5]) / own.sum(axis=0)
    expected /= expected.sum(axis=1, keepdims=True)
    assert_allclose(spread(points, targets, 2, estimator), expected)


def test_labels_spread_over_neighbours_that_a_function_finds(blobs):
    def neighbours(X, _):
        return kneighbors_graph(X, 10, include_self=True)

    points, targets = blobs
    points = points @ np.random.default_rng(0).normal(size=(2, 20))
    estimator = LabelSpreading(kernel=neighbours, max_iter=100, tol=0)
    assert_allclose(
        spread(points, targets, 2, estimator), spread(points, targets, 2), atol=1e-12
    )


def test_a_point_that_no_label_reaches_has_every_class_alike():
    points = np.array([[0.0], [0.1], [50.0], [50.1]])
    targets = np.array([0, -1, -1, -1])
    estimator = LabelPropagation(gamma=100, max_iter=5)
    assert_allclose(spread(points, targets, 2, estimator)[2:], 0.5)


def test_labels_spread_on_the_first_principal_components(blobs):
    points, targets = blobs
    noise = np.random.default_rng(1).normal(0, 3, (90, 98))
    wide = np.hstack([points, noise])
    narrow = PCA(32).fit_transform(wide)
    own = LabelSpreading(kernel="knn", n_neighbors=10, max_iter=100, tol=0)
    spread_labels = spread(wide, targets, 2)
    assert_allclose(spread_labels, spread(narrow, targets, 2, own), atol=1e-6)
    assert not np.allclose(spread_labels, spread(wide, targets, 2, own), atol=1e-3)


def test_certainty_is_one_for_one_class_and_zero_for_all_alike():
    distributions = np.array([[1, 0, 0], [1 / 3] * 3, [0.5, 0.5, 0]])
    expected = [1, 0, 1 - np.log(2) / np.log(3)]
    assert_allclose(certainty(distributions), expected, atol=1e-12)


def test_labels_need_the_network_to_agree_and_to_be_among_the_most_certain():
    distributions = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.0, 1.0]])
    probabilities = np.array([[0.2, 0.8], [0.9, 0.1], [0.9, 0.1], [0.0, 1.0]])
    targets = np.array([-1, -1, -1, 1])
    strategy = LabelSpread(share=0.67)
    trusted, agreement = strategy._trusted(distributions, probabilities, targets)
    assert_array_equal(trusted, [1])  # 0 is in dispute, 2 uncertain, 3 labelled
    assert agreement == 0.5


def test_in_dispute_the_network_stays_as_it_is(quick, few_labels):
    strategy = LabelSpread(min_agreement=1)
    disputed = make(quick, self_training=strategy).fit(*few_labels)
    without = make(quick, self_training=None).fit(*few_labels)
    assert_same_weights(disputed.model_, without.model_)
    assert disputed.self_training_history_ is None


@pytest.mark.parametrize("n_unlabelled", [1, 400])
def test_few_images_of_one_kind_are_enough(quick, digits, n_unlabelled):
    X, y = digits
    few = np.where(np.arange(len(y)) < n_unlabelled, -1, y)
    strategy = LabelSpread(min_agreement=0, share=1)
    classifier = make(quick, self_training=strategy)
    classifier.set_params(estimator=quick(epochs=0)).fit(X, few)
    assert classifier.transduction_.shape == y.shape


# FixMatch


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("from_logits", [False, True])
def test_the_loss_is_that_of_the_paper(one_hot, from_logits):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (2 + 4, 3)).astype("float32")
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    classes, weights = np.array([2, 0]), np.array([1.5, 0.5])
    given = keras.losses.CategoricalCrossentropy(from_logits=from_logits)
    if not one_hot:
        given = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    targets = np.vstack(
        [np.column_stack([classes, weights]), np.full((8, 2), -1.0)]
    ).astype("float32")
    guessed, sure = np.array([1, 2, 0, 1]), np.array([1.0, 0, 1, 0])

    labelled, strong = np.split(probabilities, [2])
    supervised = -(weights * np.log(labelled[[0, 1], classes])).mean()
    consistent = -(sure * np.log(strong[range(4), guessed])).mean()
    guesses = sure[:, None] * np.eye(3)[guessed]
    outputs = np.vstack([logits if from_logits else probabilities, guesses])
    loss = ConsistencyLoss(given, one_hot, 2)
    value = loss(targets, outputs.astype("float32"))
    assert_allclose(value, supervised + consistent, rtol=1e-5)


def test_the_loss_of_one_sigmoid_unit_takes_both_classes():
    loss = ConsistencyLoss("binary_crossentropy", False, 1)
    outputs = tf.constant([[0.7], [0.6], [0.6], [0.1], [-1.0], [0.0], [1.0]])
    targets = tf.constant([[1.0, 1]] + 6 * [[-1, 1]])
    # The guesses are the first class, none, and the second class.
    expected = -np.log(0.7) - (np.log(0.4) + np.log(0.1)) / 3
    assert_allclose(loss(targets, outputs), expected, rtol=1e-5)


def test_guesses_are_targets_alone():
    loss = ConsistencyLoss(keras.losses.SparseCategoricalCrossentropy(), False, 1)
    outputs = tf.constant([[0.6, 0.4], [0.7, 0.3], [1.0, 0.0]])
    targets = tf.constant([[0.0, 1], [-1, 1], [-1, 1]])
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        value = loss(targets, outputs)
    gradient = tape.gradient(value, outputs).numpy()
    assert_array_equal(gradient[2], 0)
    assert (gradient[:2] != 0).any(axis=1).all()


@pytest.mark.parametrize("from_logits", [False, True])
def test_how_sure_a_guess_must_be_is_that_of_the_paper(from_logits):
    rng = np.random.default_rng(0)
    layer = SureGuesses(0.9, from_logits)
    certainty, shares = 1 / 3, np.full(3, 1 / 3)
    n_sure = 0
    for _ in range(400):
        logits = rng.normal([2, 0, 1], 1, (20, 3)).astype("float32")
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        guesses = layer(tf.constant(logits if from_logits else probabilities)).numpy()
        certainty = 0.99 * certainty + 0.01 * probabilities.max(1).mean()
        shares = 0.99 * shares + 0.01 * probabilities.mean(0)
        needed = np.minimum(0.9, certainty * shares / shares.max())
        sure = probabilities.max(1) >= needed[probabilities.argmax(1)]
        expected = np.eye(3)[probabilities.argmax(1)] * sure[:, None]
        assert_array_equal(guesses, expected)
        n_sure += sure.sum()
    assert 0.1 < n_sure / 8000 < 0.9


@pytest.mark.parametrize("from_logits", [False, True])
def test_guesses_of_one_unit_are_1_or_minus_1(from_logits):
    layer = SureGuesses(0.9, from_logits)
    logits = np.array([[3.0], [-3.0], [0.01]], dtype="float32")
    for _ in range(500):  # the certainty needed approaches the mean, about 0.8
        guesses = layer(logits if from_logits else 1 / (1 + np.exp(-logits))).numpy()
    assert_array_equal(guesses, [[1], [-1], [0]])


def test_the_threshold_is_always_enough():
    layer = SureGuesses(0.6, from_logits=False)
    probabilities = np.array([[0.99, 0.01], [0.61, 0.39]], dtype="float32")
    for _ in range(500):
        guesses = layer(probabilities).numpy()
    assert_array_equal(guesses, [[1, 0], [1, 0]])


@pytest.mark.parametrize(
    ("params", "size", "n_images", "n_steps"),
    [
        ({"n_steps": 7}, 8, 64, 7),
        ({"n_steps": 0.5}, 8, 6400, 50),
        ({"n_steps": 0.001}, 8, 64, 1),
        ({}, 31, 64, 600),
        ({}, 32, 64, 200),
        ({}, 8, 6400, 2400),  # six passes of 400 steps
        ({"n_passes": 9, "batch_size": 32}, 32, 6400, 1800),
        ({"n_passes": 0}, 8, 6400, 600),
    ],
)
def test_steps_follow_from_those_of_fine_tuning(params, size, n_images, n_steps):
    images = np.broadcast_to(np.uint8(0), (n_images, size, 8, 1))
    learner = Learner.__new__(Learner)  # which needs no network to count
    learner.n_steps, learner.data = 100, TrainingSet(images, np.arange(n_images))
    assert FixMatch(**params)._count_steps(learner) == n_steps


def test_by_default_labels_spread_first():
    spreading, consistent = as_strategies("auto")
    assert isinstance(spreading, LabelSpread) and isinstance(consistent, FixMatch)


def test_batches_begin_with_labelled_rows_and_repeat_none_before_all_came():
    images = np.arange(10, dtype="uint8").reshape(10, 1, 1, 1)
    targets = np.array([1, 0, 1, -1, -1, -1, -1, -1, -1, -1])
    data = TrainingSet(images, np.arange(10), targets)
    batches = MixedBatches(
        data, None, 3, 0, n_labelled=3, labelled_batch_size=2, epoch_steps=4
    )
    block = batches.block(*batches.epoch_batches(0))
    rows = block[0].reshape(4, 5)
    assert_array_equal(block[2], [0, 5, 10, 15, 20])
    assert (rows[:, :2] < 3).all() and (rows[:, 2:] >= 3).all()
    assert len(set(rows[:, :2].ravel()[:3])) == 3
    assert len(set(rows[:, 2:].ravel()[:7])) == 7
    assert_array_equal(block[4], targets[block[0].ravel()])
    again, other = (batches.block(*batches.epoch_batches(k)) for k in (0, 1))
    assert_array_equal(again[0], block[0])
    assert not np.array_equal(other[0], block[0])


# In the classifier


def test_every_training_row_gets_a_label(trained, few_labels, digits):
    X, y = few_labels
    assert_array_equal(trained.transduction_[y != -1], y[y != -1])
    assert trained.label_distributions_.shape == (len(X), 10)
    assert_array_equal(trained.label_distributions_[y != -1].max(axis=1), 1)
    unlabelled = y == -1
    assert_array_equal(
        trained.transduction_[unlabelled], trained.predict(X[unlabelled])
    )
    losses = trained.self_training_history_["loss"]
    assert len(losses) >= 2 and np.isfinite(losses).all()


@pytest.mark.parametrize("none", ["strategy", "unlabelled rows"])
def test_without_strategy_or_unlabelled_rows_nothing_of_it_is_left(
    trained, few_labels, digits, none
):
    again = clone(trained)
    if none == "strategy":
        again.set_params(self_training=None).fit(*few_labels)
    else:
        again.fit(*digits)
    assert again.self_training_history_ is None
    assert again.transduction_ is None and again.label_distributions_ is None


def test_it_goes_on_from_the_fine_tuned_network(trained, few_labels, quick):
    class Nothing(SelfTraining):
        def learn(self, learner):
            """Learn nothing."""

    kept = make(quick, self_training=Nothing()).fit(*few_labels)
    without = make(quick, self_training=None).fit(*few_labels)
    assert_same_weights(kept.model_, without.model_)
    assert kept.transduction_ is not None


def test_a_repeated_fit_is_bit_identical(trained, few_labels):
    again = clone(trained).fit(*few_labels)
    assert_same_weights(again.model_, trained.model_)
    assert_array_equal(again.transduction_, trained.transduction_)


def test_it_is_saved_and_loaded(trained, few_labels, tmp_path):
    trained.save(tmp_path / "classifier")
    loaded = load(tmp_path / "classifier")
    assert_array_equal(loaded.transduction_, trained.transduction_)
    assert_array_equal(loaded.label_distributions_, trained.label_distributions_)
    assert_equal(loaded.self_training_history_, trained.self_training_history_)


def test_a_search_reaches_the_parameters_of_a_strategy(quick, few_labels):
    classifier = make(quick, self_training=FixMatch(), augmentation=None)
    grid = {"self_training__n_steps": [1, 3], "augmentation": [None, "auto"]}
    search = GridSearchCV(classifier, grid, cv=SemiSupervisedKFold(2), refit=False)
    search.fit(*few_labels)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_an_interrupted_fit_leaves_the_classifier_as_it_was(
    trained, few_labels, interrupted, tmp_path
):
    before = trained.model_
    with interrupted(after=2):
        trained.fit(*few_labels)
    assert trained.model_ is before
    again = clone(trained).set_params(checkpoint_dir=tmp_path)
    with interrupted(after=2, at_its_end=True):
        again.fit(*few_labels)
    assert len(list(tmp_path.iterdir())) == 3
    again.fit(*few_labels)
    assert_same_weights(again.model_, trained.model_)
    assert not list(tmp_path.iterdir())


def test_text_labels_and_two_classes_with_one_unit(few_labels, quick):
    X, y = few_labels
    labels = np.where(y == -1, None, np.where(y < 5, "low", "high"))

    def one_unit(meta):
        return keras.Sequential(
            [
                keras.Input(meta["X_shape_"][1:]),
                keras.layers.Flatten(),
                keras.layers.Dense(8, activation="relu"),
                keras.layers.Dense(1, activation="sigmoid"),
            ]
        )

    classifier = make(quick, unlabeled_label=np.nan).set_params(
        estimator=quick(one_unit, epochs=10, loss="binary_crossentropy")
    )
    classifier.fit(X, labels)
    assert set(classifier.transduction_) == {"low", "high"}
    assert_allclose(classifier.label_distributions_.sum(axis=1), 1, rtol=1e-5)


def few_of(case, y, rng):
    """Return five labels of each class, in a case that self-training may fall for."""
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(y == k))[:5] for k in range(10)]
    )
    few = np.full(len(y), -1)
    few[rows] = y[rows]
    if case == "a wrong label":
        few[rows[7]] = (y[rows[7]] + 3) % 10
    elif case == "a class with one label":
        few[rows[1:5]] = -1
    elif case == "a class without unlabelled images":
        few[y == 4] = 4
    return few


@pytest.mark.parametrize(
    "case",
    [
        "a wrong label",
        "a class with one label",
        "a class without unlabelled images",
        "a tenth of noise",
    ],
)
def test_it_does_not_harm_where_labels_or_images_are_odd(case):
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    X_train, few = X[:1000], few_of(case, y[:1000], rng)
    if case == "a tenth of noise":
        X_train = np.vstack([X_train, rng.uniform(0, 16, (100, 64))])
        few = np.append(few, np.full(100, -1))
    network = KerasClassifier(build_cnn, optimizer="adam", epochs=200, batch_size=64)
    classifier = SelfSupervisedClassifier(network, pretrain_epochs=0, random_state=0)
    scores = [
        classifier.set_params(self_training=strategy)
        .fit(X_train, few)
        .score(X[1000:], y[1000:])
        for strategy in (None, "auto")
    ]
    assert scores[1] > scores[0] - 0.02


@pytest.mark.parametrize(
    ("strategy", "error", "message"),
    [
        ("fixmatch", TypeError, "self_training must be 'auto'.*got 'fixmatch'"),
        (KNeighborsClassifier(), TypeError, "self_training must be 'auto'"),
        ([FixMatch(), 3], TypeError, "self_training must be 'auto'.*got 3"),
        (FixMatch(n_steps=0), ValueError, "n_steps == 0, must be >= 1"),
        (FixMatch(n_steps=-0.5), ValueError, "n_steps == -0.5, must be > 0"),
        (FixMatch(n_steps="all"), TypeError, "n_steps must be an instance of"),
        (LabelSpread(n_steps=0.0), ValueError, "n_steps == 0.0, must be > 0"),
        (FixMatch(n_passes=-1), ValueError, "n_passes == -1, must be >= 0"),
        (FixMatch(batch_size=0), ValueError, "batch_size == 0, must be >= 1"),
        (FixMatch(threshold=2), ValueError, "threshold == 2, must be <= 1"),
        (FixMatch(strength=-1), ValueError, "strength == -1, must be >= 0"),
        (LabelSpread(n_rounds=0), ValueError, "n_rounds == 0, must be >= 1"),
        (LabelSpread(share=0), ValueError, "share == 0, must be > 0"),
        (LabelSpread(min_agreement=2), ValueError, "min_agreement == 2, must be <= 1"),
        (LabelSpread(estimator=3), TypeError, "estimator must be a classifier"),
    ],
)
def test_a_wrong_strategy_is_refused_before_anything_is_trained(
    few_labels, quick, trainings, strategy, error, message
):
    with pytest.raises(error, match=message):
        make(quick, self_training=strategy).fit(*few_labels)
    assert not trainings
