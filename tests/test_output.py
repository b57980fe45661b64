import re

import numpy as np
import pandas as pd
import pytest
from networks import two_stages
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils import estimator_html_repr

from skssl import RotationPretext, SelfSupervisedEncoder

N_TRAIN = 60


@pytest.fixture(scope="module")
def frame(digits):
    """Rows with an index and names of their own."""
    X = digits[0][:N_TRAIN].reshape(N_TRAIN, -1)
    return pd.DataFrame(
        X,
        columns=[f"pixel{k}" for k in range(64)],
        index=[f"row{k}" for k in range(N_TRAIN)],
    )


@pytest.fixture(scope="module")
def y(digits):
    return digits[1][:N_TRAIN]


@pytest.fixture(scope="module", params=["encoder", "classifier"])
def transformer(request, frame, y, quick):
    """Return a fitted encoder, and a fitted classifier, whose network has 16 units."""
    if request.param == "encoder":
        estimator = SelfSupervisedEncoder(quick(), epochs=1, random_state=0)
    else:
        estimator = two_stages(
            quick(),
            pretext=RotationPretext((0, 180)),
            pretrain_epochs=1,
            random_state=0,
        )
    return estimator.fit(frame, y)


def test_feature_names_count_the_embedding(transformer):
    name = type(transformer).__name__.lower()
    expected = [f"{name}{k}" for k in range(16)]
    assert_array_equal(transformer.get_feature_names_out(), expected)
    with pytest.raises(ValueError, match="input_features is not equal"):
        transformer.get_feature_names_out(["a"] * 64)


def test_pandas_output_has_names_and_index(transformer, frame):
    values = transformer.transform(frame)
    assert isinstance(values, np.ndarray)
    try:
        output = transformer.set_output(transform="pandas").transform(frame)
    finally:
        transformer.set_output(transform="default")
    assert isinstance(output, pd.DataFrame)
    assert_array_equal(output.columns, transformer.get_feature_names_out())
    assert_array_equal(output.index, frame.index)
    assert set(output.dtypes) == {np.dtype(np.float32)}
    assert_array_equal(output, values)


def test_pandas_output_through_a_pipeline(quick, frame, y):
    pipeline = make_pipeline(
        MinMaxScaler(), SelfSupervisedEncoder(quick(), epochs=1, random_state=0)
    ).set_output(transform="pandas")
    output = pipeline.fit_transform(frame, y)
    assert_array_equal(output.columns, pipeline.get_feature_names_out())
    assert_array_equal(output.index, frame.index)
    assert_array_equal(pipeline[-1].feature_names_in_, frame.columns)


@pytest.mark.parametrize("method", ["transform", "predict", "predict_pretext"])
def test_names_are_those_of_fit(method, transformer, frame):
    if not hasattr(transformer, method):
        pytest.skip("an encoder predicts no classes")
    assert_array_equal(transformer.feature_names_in_, frame.columns)
    predict = getattr(transformer, method)
    for wrong in (frame[frame.columns[::-1]], frame.rename(columns={"pixel3": "x"})):
        with pytest.raises(ValueError, match="feature names should match"):
            predict(wrong)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        rows = predict(frame.to_numpy())
    assert_array_equal(rows, predict(frame))


def test_images_have_no_names(transformer, frame, y):
    images = frame.to_numpy().reshape(-1, 8, 8)
    assert_array_equal(transformer.transform(images), transformer.transform(frame))
    fitted = clone(transformer).fit(frame, y)
    assert hasattr(fitted, "feature_names_in_")
    assert not hasattr(fitted.fit(images, y), "feature_names_in_")


def visible(html):
    """Return the text of a page, without style and script."""
    html = re.sub(r"<(style|script).*?</\1>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_the_diagram_is_short_and_shows_parameters(transformer, frame, y):
    text = visible(estimator_html_repr(transformer))
    assert type(transformer).__name__ in text
    assert "KerasClassifier" in text
    assert "build_cnn" in text
    if hasattr(transformer, "pretrain_epochs"):
        assert "pretrain_epochs" in text
        assert "(0, 180)" in text
    assert len(text) < 20_000
    assert "0., 0., 0." not in text  # no pixels, no weights


def test_the_diagram_of_what_holds_networks_is_short(transformer, frame, y):
    encoder = getattr(transformer, "encoder_", transformer)
    network = encoder.pretext_model_
    clf = two_stages(network, pretrain_epochs=3)
    assert "pretrain_epochs" in visible(estimator_html_repr(clf))
    frozen = two_stages(encoder=FrozenEstimator(encoder))
    text = visible(estimator_html_repr(make_pipeline(MinMaxScaler(), frozen)))
    for name in ("MinMaxScaler", "SelfSupervisedClassifier", "SelfSupervisedEncoder"):
        assert name in text
    assert len(text) < 40_000
