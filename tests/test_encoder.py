import logging
import pickle

import numpy as np
import pytest
from networks import two_stages
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score

from skssl import RotationPretext, SelfSupervisedEncoder


@pytest.fixture(scope="module")
def encoder(digits):
    return SelfSupervisedEncoder(random_state=0).fit(digits[0])


def test_it_learns_to_tell_the_angles(encoder, digits):
    X, _ = digits
    assert encoder.score(X) > 0.8
    labels = encoder.predict_pretext(X)
    assert labels.shape == (len(X), 4)
    assert (labels == np.arange(4)).mean() == pytest.approx(encoder.score(X))


def test_embeddings_are_the_output_of_the_backbone(encoder, digits):
    X, _ = digits
    embedding = encoder.transform(X[:7])
    assert embedding.dtype == np.float32
    expected = encoder.backbone_(X[:7, :, :, None].astype(np.float32))
    assert_allclose(embedding, expected, rtol=1e-4, atol=1e-5)
    assert len(encoder.get_feature_names_out()) == embedding.shape[1]


def test_set_output_gives_data_frames(digits, quick):
    encoder = SelfSupervisedEncoder(quick(), epochs=1, random_state=0)
    frame = encoder.set_output(transform="pandas").fit_transform(digits[0][:50])
    assert list(frame.columns[:2]) == [
        "selfsupervisedencoder0",
        "selfsupervisedencoder1",
    ]


def test_cross_validation_tunes_without_labels(digits, quick):
    encoder = SelfSupervisedEncoder(quick(), epochs=3, random_state=0)
    scores = cross_val_score(encoder, digits[0], cv=2)
    assert (scores > 0.3).all()


def test_the_batch_size_counts_what_the_network_sees(digits, quick):
    import tensorflow as tf

    seen = []

    class Recording(RotationPretext):
        def make_batch(self, images, seed):
            inputs, targets = super().make_batch(images, seed)
            record = tf.py_function(
                lambda n: seen.append(int(n)), [tf.shape(inputs)[0]], []
            )
            with tf.control_dependencies([record]):
                return tf.identity(inputs), targets

    pretext = Recording((0, 180))
    encoder = SelfSupervisedEncoder(quick(), pretext=pretext, epochs=1, batch_size=32)
    encoder.fit(digits[0][:64])
    assert seen == [32] * 4


def test_ready_views_are_the_task(digits, quick):
    X, _ = digits
    views = RotationPretext((0, 90)).fit_transform(X)
    encoder = SelfSupervisedEncoder(quick(), epochs=8, random_state=0).fit(views)
    assert encoder.score(views) > 0.7
    assert encoder.predict_pretext(views).shape == (len(X), 2)
    assert_array_equal(encoder.transform(views), encoder.transform(X))
    with pytest.raises(ValueError, match="expects 2 ready views"):
        encoder.predict_pretext(X)
    with pytest.raises(ValueError, match="pretext=None"):
        SelfSupervisedEncoder(pretext=RotationPretext()).fit(views)


def test_pickle_and_clone(encoder, digits):
    X, _ = digits
    loaded = pickle.loads(pickle.dumps(encoder))
    assert_array_equal(loaded.transform(X), encoder.transform(X))
    assert_array_equal(loaded.predict_pretext(X), encoder.predict_pretext(X))
    fresh = clone(encoder)
    assert fresh.get_params() == encoder.get_params()
    with pytest.raises(NotFittedError):
        fresh.transform(X)
    assert "SelfSupervisedEncoder" in encoder._repr_html_()
    assert repr(fresh) == "SelfSupervisedEncoder(random_state=0)"


def test_scoring_many_encoders_is_silent(digits, quick):
    X, _ = digits
    logged = []
    handler = logging.Handler()
    handler.emit = logged.append
    logger = logging.getLogger("tensorflow")
    logger.addHandler(handler)
    try:
        for _ in range(7):
            encoder = SelfSupervisedEncoder(quick(), epochs=1, random_state=0)
            encoder.fit(X[:20]).score(X[:8])
    finally:
        logger.removeHandler(handler)
    assert logged == []


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("setting", ["floatx", "dtype_policy"])
def test_weights_of_16_bits_are_refused(kind, setting, digits, quick):
    import keras

    X, y = digits
    change = getattr(keras.config, f"set_{setting}")
    try:
        change(kind)
        message = f"got {kind}. Set .*'mixed_{kind}'"
        with pytest.raises(ValueError, match=message):
            SelfSupervisedEncoder(quick(), epochs=1).fit(X)
        with pytest.raises(ValueError, match=message):
            two_stages(quick(), pretrain_epochs=0).fit(X, y)
    finally:
        change("float32")
    assert SelfSupervisedEncoder(quick(), epochs=1).fit(X).transform(X).shape[1] == 16


@pytest.mark.parametrize("method", ["transform", "predict_pretext", "score"])
def test_an_unfitted_encoder_says_so(method):
    with pytest.raises(NotFittedError):
        getattr(SelfSupervisedEncoder(), method)(np.zeros((2, 8, 8)))


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"epochs": 0}, ValueError, "epochs == 0, must be >= 1"),
        ({"batch_size": 1.5}, TypeError, "batch_size"),
        ({"pretext": "rotation"}, TypeError, "PretextTask.*got 'rotation'"),
        ({"estimator": 3}, TypeError, "estimator must be .* got 3"),
    ],
)
def test_wrong_parameters_are_named(params, error, message, digits):
    with pytest.raises(error, match=message):
        SelfSupervisedEncoder(**params).fit(digits[0])
