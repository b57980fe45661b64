import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skssl import PredictionDisplay, PretextDisplay, TrainingCurveDisplay


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def test_five_views_with_true_and_predicted_angle(fitted, digits):
    X, _ = digits
    display = PretextDisplay.from_estimator(fitted, X, random_state=0)
    assert len(display.axes_) == 5
    for axes, image, true, predicted in zip(
        display.axes_, display.images, display.y_true, display.y_pred, strict=True
    ):
        assert axes.get_title() == f"True: {true}\nPred: {predicted}"
        assert true in ("0°", "90°", "180°", "270°")
        turned = np.rot90(image, -(int(true[:-1]) // 90))[..., 0]
        assert (X == turned).all(axis=(1, 2)).any()


def test_wrong_predictions_are_red(digits):
    X, y = digits
    wrong = np.where(np.arange(len(y)) % 2, y, (y + 1) % 10)
    display = PredictionDisplay.from_predictions(
        X, y, wrong, n_samples=12, random_state=0
    )
    colors = [axes.title.get_color() for axes in display.axes_]
    assert colors == [
        "black" if true == predicted else "red"
        for true, predicted in zip(display.y_true, display.y_pred, strict=True)
    ]
    assert set(colors) == {"black", "red"}


def test_predictions_of_an_estimator(fitted, digits):
    X, y = digits
    rows = X.reshape(len(X), -1)
    display = PredictionDisplay.from_estimator(
        fitted, rows, y, n_samples=7, random_state=0, title="Digits"
    )
    assert_array_equal(fitted.predict(display.images), display.y_pred)
    assert display.figure_.get_suptitle() == "Digits"


@pytest.mark.parametrize("n_samples", [1, 5, 26])
def test_any_number_of_images_on_a_grid(digits, n_samples):
    X, y = digits
    display = PredictionDisplay.from_predictions(X, y, y, n_samples=n_samples)
    display.figure_.canvas.draw()
    boxes = [axes.get_tightbbox() for axes in display.axes_]
    assert len(boxes) == n_samples
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_fewer_images_than_asked_for(digits):
    X, y = digits
    assert len(PredictionDisplay.from_predictions(X[:2], y[:2], y[:2]).axes_) == 2


def test_colour_images(digits):
    X = np.random.default_rng(0).normal(size=(3, 4, 4, 3))
    display = PredictionDisplay.from_predictions(X, [0, 1, 2], [0, 1, 2])
    shown = display.axes_[0].images[0].get_array()
    assert shown.shape == (4, 4, 3)
    assert shown.min() >= 0
    assert shown.max() <= 1


@pytest.mark.parametrize("display", [PredictionDisplay, TrainingCurveDisplay])
def test_given_axes_are_drawn_in(display, fitted, digits):
    figure, (left, right) = plt.subplots(1, 2)
    data = () if display is TrainingCurveDisplay else digits
    drawn = display.from_estimator(fitted, *data, ax=right, title="Here")
    assert drawn.figure_ is figure
    assert right.get_title() == "Here"
    assert all(axes.get_position().x0 > 0.4 for axes in drawn.axes_)
    assert left.axison


def test_training_curves_show_both_stages(fitted):
    display = TrainingCurveDisplay.from_estimator(fitted)
    loss, accuracy = display.axes_
    assert [line.get_label() for line in loss.lines] == ["pretraining", "fine-tuning"]
    assert_array_equal(
        accuracy.lines[1].get_ydata(), fitted.finetune_history_["accuracy"]
    )
    assert_array_equal(loss.lines[0].get_xdata(), [1, 2, 3, 4, 5])


def test_training_curves_of_an_encoder_and_of_validation(fitted):
    display = TrainingCurveDisplay.from_estimator(fitted.encoder_)
    assert len(display.axes_[0].lines) == 1
    history = {"loss": [2, 1], "val_loss": [3, 2]}
    loss, _ = TrainingCurveDisplay({"fine-tuning": history}).plot().axes_
    assert [line.get_linestyle() for line in loss.lines] == ["-", "--"]


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"got \(2, 4, 4\) and \(2, 4\)"):
        PretextDisplay.from_predictions(np.zeros((2, 4, 4)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="inconsistent"):
        PredictionDisplay.from_predictions(np.zeros((2, 4, 4)), [1], [1])
