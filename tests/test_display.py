import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from networks import two_stages
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA, KernelPCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skssl import (
    EmbeddingDisplay,
    LabelEfficiencyDisplay,
    PredictionDisplay,
    PretextDisplay,
    TrainingCurveDisplay,
    label_efficiency_curve,
)

DISPLAYS = [
    EmbeddingDisplay,
    LabelEfficiencyDisplay,
    PredictionDisplay,
    PretextDisplay,
    TrainingCurveDisplay,
]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def embeddings():
    """Embeddings of three classes in four dimensions, and labels of half of them."""
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=60)
    embeddings = rng.normal(size=(60, 4)) + 5 * np.eye(4)[y]
    return embeddings, np.where(rng.random(60) < 0.5, y, -1)


def drawn(display_class, fitted, digits, **params):
    """Return the display of a fitted estimator."""
    X, y = digits
    if display_class is LabelEfficiencyDisplay:
        return display_class.from_estimators(
            GaussianNB(), X.reshape(len(X), -1), y, random_state=0, **params
        )
    data = {TrainingCurveDisplay: (), PretextDisplay: (X,)}.get(display_class, (X, y))
    return display_class.from_estimator(fitted, *data, **params)


def legend_entries(axes):
    """Return the colour of each label in the legend."""
    legend = axes.get_legend()
    return {
        text.get_text(): to_hex(handle.get_facecolor()[0])
        for text, handle in zip(legend.texts, legend.legend_handles, strict=True)
    }


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
        plt.rcParams["text.color"] if true == predicted else "red"
        for true, predicted in zip(display.y_true, display.y_pred, strict=True)
    ]
    assert set(colors) == {"black", "red"}


def test_titles_and_points_are_seen_in_a_dark_style(digits):
    X, y = digits
    few = np.where(np.arange(len(y)) < 300, y, -1)
    with plt.style.context("dark_background"):
        grid = PredictionDisplay.from_predictions(X[:3], y[:3], y[:3])
        points = EmbeddingDisplay.from_embeddings(X.reshape(len(X), -1), few)
    assert {axes.title.get_color() for axes in grid.axes_} == {"white"}
    entries = legend_entries(points.axes_)
    brightness = {label: max(to_rgb(color)) for label, color in entries.items()}
    assert brightness.pop("unlabelled") == pytest.approx(0.17, abs=0.01)
    assert min(brightness.values()) > 0.5


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


@pytest.mark.parametrize("layout", [None, "tight", "constrained"])
@pytest.mark.parametrize("display_class", DISPLAYS)
def test_given_axes_are_drawn_in(display_class, layout, fitted, digits):
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout=layout)
    display = drawn(display_class, fitted, digits, ax=right, title="Here")
    assert display.figure_ is figure
    assert right.get_title() == "Here"
    figure.canvas.draw()
    for axes in np.ravel(display.axes_):
        assert left.bbox.x1 < axes.get_tightbbox().x0
        assert axes.get_tightbbox().x1 <= figure.bbox.x1
        assert axes.bbox.width > 25
        if axes is not right:
            assert not right.title.get_window_extent().overlaps(axes.get_tightbbox())
    assert left.axison


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_axes_outside_a_grid_are_drawn_in(display_class, fitted, digits):
    figure = plt.figure(figsize=(8, 6))
    ax = figure.add_axes([0.2, 0.3, 0.6, 0.4])
    display = drawn(display_class, fitted, digits, ax=ax, title="Here")
    assert display.figure_ is figure
    assert ax.get_title() == "Here"
    figure.canvas.draw()
    for axes in np.ravel(display.axes_):
        box = axes.get_position()
        assert box.x0 > 0.19
        assert box.x1 < 0.81
        assert box.y0 > 0.29
        assert box.y1 < 0.71


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_a_new_figure_has_the_title(display_class, fitted, digits):
    display = drawn(display_class, fitted, digits, title="Here")
    if display_class in (EmbeddingDisplay, LabelEfficiencyDisplay):
        assert display.axes_.get_title() == "Here"
    else:
        assert display.figure_.get_suptitle() == "Here"
    assert plt.get_fignums() == [display.figure_.number]


@pytest.mark.parametrize("display_class", DISPLAYS)
def test_a_display_is_drawn_again_from_its_data(display_class, fitted, digits):
    display = drawn(display_class, fitted, digits)
    first = display.figure_
    assert display.plot() is display
    assert display.figure_ is not first


def test_colormap_and_limits_of_grey_images(digits):
    X, y = digits
    display = PredictionDisplay.from_predictions(
        X, y, y, cmap="viridis", im_kw={"vmin": 0, "vmax": 99}
    )
    image = display.axes_[0].images[0]
    assert image.get_cmap().name == "viridis"
    assert image.get_clim() == (0, 99)


def test_figures_take_the_shape_of_the_images():
    X = np.zeros((5, 4, 8, 1))
    figure = PredictionDisplay.from_predictions(X, *[range(5)] * 2).figure_
    assert_allclose(figure.get_size_inches(), [7.5, 0.75 + 0.4])


def test_rows_padded_in_fit_are_drawn_padded(digits):
    X, y = digits

    class Padded(ClassifierMixin, BaseEstimator):
        image_shape_, n_features_in_ = (8, 8, 1), 60

        def predict(self, X):
            return np.zeros(len(X))

    rows = X.reshape(-1, 64)[:, :60]
    display = PredictionDisplay.from_estimator(Padded(), rows, y)
    assert display.images.shape == (5, 8, 8, 1)
    assert (display.images[:, -1, -4:] == 0).all()


def test_views_as_lists_and_label_names_as_an_array():
    views = np.zeros((3, 2, 4, 4, 1)).tolist()
    names = np.array(["up", "down"])
    display = PretextDisplay.from_predictions(views, [[0, 1]] * 3, class_names=names)
    assert set(display.y_true) <= {"up", "down"}
    assert_array_equal(display.y_true, display.y_pred)


def test_training_curves_show_all_stages(fitted):
    display = TrainingCurveDisplay.from_estimator(fitted)
    loss, accuracy = display.axes_
    stages = ["pretraining", "fine-tuning", "self-training"]
    assert [line.get_label() for line in loss.lines] == stages
    assert_array_equal(
        accuracy.lines[1].get_ydata(), fitted.finetune_history_["accuracy"]
    )
    assert_array_equal(loss.lines[1].get_xdata(), np.arange(1, 21))


def test_training_curves_of_an_encoder_and_of_validation(fitted):
    display = TrainingCurveDisplay.from_estimator(fitted.encoder_)
    assert len(display.axes_[0].lines) == 1
    history = {"loss": [2, 1], "val_loss": [3, 2]}
    loss, _ = TrainingCurveDisplay({"fine-tuning": history}).plot().axes_
    assert [line.get_linestyle() for line in loss.lines] == ["-", "--"]


def test_any_number_of_stages_has_a_colour_each():
    history = {"loss": [2, 1], "val_loss": [3, 2]}
    names = ["pretraining", "fine-tuning", "self-training"]
    loss, _ = TrainingCurveDisplay(dict.fromkeys(names, history)).plot().axes_
    assert [line.get_label() for line in loss.lines[::2]] == names
    colors = [to_hex(line.get_color()) for line in loss.lines]
    assert colors[::2] == colors[1::2]
    assert colors[::2] == [to_hex(f"tab:{x}") for x in ("blue", "orange", "green")]


def test_a_stage_that_was_not_run_has_no_line_and_the_next_keeps_its_colour(
    fitted, few_labels, quick
):
    clf = two_stages(quick(), pretrain_epochs=0)
    clf.fit(few_labels[0][:100], few_labels[1][:100])
    (line,) = TrainingCurveDisplay.from_estimator(clf).axes_[0].lines
    assert line.get_label() == "fine-tuning"
    both = TrainingCurveDisplay.from_estimator(fitted).axes_[0].lines
    assert line.get_color() == both[1].get_color()


def test_an_estimator_without_histories_of_training():
    with pytest.raises(NotFittedError):
        TrainingCurveDisplay.from_estimator(two_stages())
    with pytest.raises(TypeError, match=r"SelfSupervisedEncoder, got PCA\(\)\."):
        TrainingCurveDisplay.from_estimator(PCA().fit(np.eye(3)))


def test_epochs_without_a_value_are_gaps_and_single_ones_points():
    values = [np.nan] * 40 + [2.0] + [np.nan] * 9
    history = {"loss": [1.0] * 50, "val_loss": values}
    axes, _ = TrainingCurveDisplay({"fine-tuning": history}).plot().axes_
    loss, validation = axes.lines
    assert_array_equal(validation.get_xdata(), np.arange(1, 51))
    assert_array_equal(validation.get_ydata(), values)
    assert loss.get_marker() == "None"
    assert validation.get_marker() == "."


def test_line_properties_of_training_curves():
    display = TrainingCurveDisplay({"pretraining": {"loss": [2, 1]}})
    display.plot(line_kw={"lw": 4, "color": "green", "linestyle": ":"})
    line = display.axes_[0].lines[0]
    assert line.get_linewidth() == 4
    assert line.get_color() == "green"
    assert line.get_linestyle() == ":"


def test_a_line_and_a_shade_for_each_estimator(digits):
    X, y = digits
    params = {"n_labels": [20, 10, 100], "cv": 3, "random_state": 0}
    estimators = {"neighbour": KNeighborsClassifier(1), "Bayes": GaussianNB()}
    rows = X.reshape(len(X), -1)
    display = LabelEfficiencyDisplay.from_estimators(estimators, rows, y, **params)
    curve = label_efficiency_curve(estimators, rows, y, **params)
    axes = display.axes_
    assert [text.get_text() for text in axes.get_legend().texts] == list(estimators)
    for line, shade, scores in zip(
        axes.lines, axes.collections, curve.test_scores.values(), strict=True
    ):
        assert_array_equal(line.get_xdata(), [10, 20, 100])
        assert_array_equal(line.get_ydata(), scores.mean(axis=1))
        top = (scores.mean(axis=1) + scores.std(axis=1)).max()
        assert_allclose(shade.get_datalim(axes.transData).y1, top)
        assert to_hex(shade.get_facecolor()[0]) == to_hex(line.get_color())
    assert axes.get_xlabel() == "Number of labels"
    assert axes.get_ylabel() == "Accuracy"


@pytest.mark.parametrize(
    ("n_labels", "expected"),
    [
        ([10, 30, 1000], ["10", "30", "1,000"]),
        (range(10, 400, 20), ["10", "20", "50", "100", "200"]),
        ([25], ["25"]),
    ],
)
def test_numbers_of_labels_are_written_plainly(n_labels, expected):
    scores = {"one": np.ones((len(n_labels), 2))}
    axes = LabelEfficiencyDisplay(list(n_labels), scores).plot().axes_
    assert axes.get_xscale() == "log"
    axes.figure.canvas.draw()
    low, high = axes.get_xlim()
    ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    shown = [label.get_text() for place, label in ticks if low <= place <= high]
    assert shown == expected
    assert len(axes.get_xticks(minor=True)) == 0


@pytest.mark.parametrize(
    ("scoring", "name"),
    [
        ("balanced_accuracy", "Balanced accuracy"),
        (lambda estimator, X, y: 0.5, "Score"),
    ],
)
def test_the_axis_names_the_score(scoring, name, embeddings):
    axes = LabelEfficiencyDisplay.from_estimators(
        GaussianNB(), *embeddings, n_labels=[9], scoring=scoring
    ).axes_
    assert axes.get_ylabel() == name


def test_line_properties_of_label_efficiency():
    display = LabelEfficiencyDisplay([10, 20], {"one": np.ones((2, 2))})
    display.plot(line_kw={"lw": 4, "c": "green"})
    assert display.axes_.lines[0].get_linewidth() == 4
    shade = display.axes_.collections[0].get_facecolor()[0]
    assert to_hex(shade) == to_hex("green")


def test_embeddings_of_an_estimator_and_of_a_pipeline(fitted, few_labels):
    X, y = few_labels
    display = EmbeddingDisplay.from_estimator(fitted, X, y)
    assert_allclose(
        display.points,
        PCA(2, random_state=0).fit_transform(fitted.transform(X)),
        rtol=1e-4,
        atol=1e-4,
    )
    assert_array_equal(display.y, y)
    assert list(legend_entries(display.axes_)) == [*"0123456789", "unlabelled"]

    pipeline = make_pipeline(MinMaxScaler(), StandardScaler())
    rows = X.reshape(len(X), -1)
    pipeline.fit(rows)
    ours = EmbeddingDisplay.from_estimator(pipeline, rows).points
    given = EmbeddingDisplay.from_embeddings(pipeline.transform(rows)).points
    assert_array_equal(ours, given)


def test_points_have_the_colour_of_their_class(embeddings):
    display = EmbeddingDisplay.from_embeddings(*embeddings, s=7, marker="^")
    grey, labelled = display.axes_.collections[:2]
    y = display.y
    assert_array_equal(grey.get_offsets(), display.points[y == -1])
    assert_array_equal(labelled.get_offsets(), display.points[y != -1])
    assert_array_equal(labelled.get_sizes(), [7])
    entries = legend_entries(display.axes_)
    assert list(entries) == ["0", "1", "2", "unlabelled"]
    colors = [to_hex(color) for color in labelled.get_facecolors()]
    assert colors == [entries[str(label)] for label in y[y != -1]]
    assert to_hex(grey.get_facecolors()[0]) == entries["unlabelled"]


def test_unlabelled_points_lie_beneath(embeddings):
    axes = EmbeddingDisplay.from_embeddings(*embeddings).axes_
    first, second = axes.collections[:2]
    assert first.get_label() == "unlabelled"
    assert first.get_zorder() <= second.get_zorder()


def test_embeddings_without_labels_have_no_legend(embeddings):
    display = EmbeddingDisplay.from_embeddings(embeddings[0], color="green")
    assert display.axes_.get_legend() is None
    assert len(display.axes_.collections[0].get_offsets()) == 60
    nothing = EmbeddingDisplay.from_embeddings(embeddings[0], [-1] * 60)
    assert list(legend_entries(nothing.axes_)) == ["unlabelled"]


def test_minus_one_is_coloured_where_nothing_marks_unlabelled_rows(embeddings):
    display = EmbeddingDisplay.from_embeddings(*embeddings, unlabeled_label=None)
    assert list(legend_entries(display.axes_)) == ["-1", "0", "1", "2"]


def test_string_labels(embeddings):
    X, y = embeddings
    names = [-1 if label == -1 else f"class {label}" for label in y]
    axes = EmbeddingDisplay.from_embeddings(X, names).axes_
    assert list(legend_entries(axes))[1:] == ["class 1", "class 2", "unlabelled"]


@pytest.mark.parametrize("layout", [None, "tight", "constrained"])
def test_the_legend_takes_its_room_from_given_axes(layout, embeddings):
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout=layout)
    EmbeddingDisplay.from_embeddings(*embeddings, ax=left)
    figure.canvas.draw()
    legend = left.get_legend().get_window_extent()
    assert left.bbox.x1 < legend.x0 < legend.x1 < right.bbox.x0
    assert left.bbox.width > right.bbox.width / 2


@pytest.mark.parametrize("n_classes", [2, 10, 20, 100])
def test_colours_differ_and_the_legend_stays_in_the_figure(n_classes):
    X = np.random.default_rng(0).normal(size=(2 * n_classes + 1, 3))
    y = np.append(np.tile(np.arange(n_classes), 2), -1)
    display = EmbeddingDisplay.from_embeddings(X, y)
    entries = legend_entries(display.axes_)
    assert len(set(entries.values())) == n_classes + 1
    display.figure_.canvas.draw()
    box = display.axes_.get_legend().get_window_extent()
    assert box.x0 > display.axes_.bbox.x1
    assert box.x1 <= display.figure_.bbox.x1
    assert box.y0 >= 0
    assert 420 < display.axes_.bbox.width < 620


def test_colormaps_of_classes(embeddings):
    def colors(cmap):
        axes = EmbeddingDisplay.from_embeddings(*embeddings, cmap=cmap).axes_
        return list(legend_entries(axes).values())[:3]

    viridis = plt.get_cmap("viridis")
    assert colors("viridis") == [to_hex(viridis(x)) for x in (0.0, 0.5, 1.0)]
    assert colors(viridis) == colors("viridis")
    assert colors("Set1") == [to_hex(plt.get_cmap("Set1")(i)) for i in range(3)]


def test_axes_name_the_transformer_and_its_variance(embeddings):
    X, _ = embeddings
    shares = PCA(2).fit(X).explained_variance_ratio_
    axes = EmbeddingDisplay.from_embeddings(X).axes_
    assert axes.get_xlabel() == f"PCA 1 ({shares[0]:.0%} of variance)"
    assert axes.get_ylabel() == f"PCA 2 ({shares[1]:.0%} of variance)"
    tsne = TSNE(perplexity=5, max_iter=250, init="random", random_state=0)
    display = EmbeddingDisplay.from_embeddings(X, transformer=tsne)
    assert display.axes_.get_xlabel() == "TSNE 1"
    assert_array_equal(display.points, display.transformer.embedding_)
    chain = make_pipeline(StandardScaler(), KernelPCA(2))
    axes = EmbeddingDisplay.from_embeddings(X, transformer=chain).axes_
    assert axes.get_ylabel() == "KernelPCA 2"
    assert EmbeddingDisplay(X[:, :2]).plot().axes_.get_xlabel() == ""


def test_a_frozen_transformer_stays_and_another_is_cloned(embeddings):
    X, _ = embeddings
    pca = PCA(2).fit(X[:20])
    expected = pca.transform(X)
    frozen = EmbeddingDisplay.from_embeddings(X, transformer=FrozenEstimator(pca))
    assert_array_equal(frozen.points, expected)
    assert frozen.axes_.get_xlabel().startswith("PCA 1 (")
    refitted = EmbeddingDisplay.from_embeddings(X, transformer=pca)
    assert not np.allclose(refitted.points, expected)
    assert_array_equal(pca.transform(X), expected)


@pytest.mark.parametrize(
    ("X", "y", "params", "message"),
    [
        (np.zeros((3, 2, 2)), None, {}, "Found array with dim 3"),
        (np.zeros((3, 2)), [0, 1], {}, "inconsistent numbers of samples"),
        (np.eye(4), None, {"transformer": PCA(3)}, r"got \(4, 3\) from PCA.*=3"),
        (np.eye(4), [0.5, 1.5, 2.5, 3.5], {}, "Unknown label type: continuous"),
        ([[np.nan, 0]], None, {}, "embeddings contains NaN"),
    ],
)
def test_what_is_no_embedding_of_classes(X, y, params, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingDisplay.from_embeddings(X, y, **params)


def test_an_estimator_that_gives_no_embeddings():
    with pytest.raises(TypeError, match="must have a transform.*LogisticRegression"):
        EmbeddingDisplay.from_estimator(LogisticRegression(), [[0]])


def test_an_estimator_that_tells_no_views_apart():
    with pytest.raises(NotFittedError):
        PretextDisplay.from_estimator(two_stages(), np.zeros((2, 4, 4)))
    pca = PCA().fit(np.eye(3))
    with pytest.raises(TypeError, match=r"a task that classifies.* got PCA\(\)"):
        PretextDisplay.from_estimator(pca, np.eye(3))


def test_wrong_images_and_numbers_of_them_are_named():
    with pytest.raises(ValueError, match=r"1, 3 or 4 channels, got shape \(2, 4, 4, 2"):
        PredictionDisplay.from_predictions(np.zeros((2, 4, 4, 2)), [0, 1], [0, 1])
    with pytest.raises(ValueError, match="n_samples == 0, must be >= 1"):
        PredictionDisplay.from_predictions(
            np.zeros((2, 4, 4)), [0, 1], [0, 1], n_samples=0
        )


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"got \(2, 4, 4\) and \(2, 4\)"):
        PretextDisplay.from_predictions(np.zeros((2, 4, 4)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="inconsistent"):
        PredictionDisplay.from_predictions(np.zeros((2, 4, 4)), [1], [1])
