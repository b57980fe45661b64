"""Texts that several public docstrings share, and the decorator that inserts them.

A docstring holds the name of a text in braces, on a line of its own, and its class or
function is decorated with :func:`fill_docstrings`. Lines that follow with a deeper
indentation continue the text. What only one docstring says stays there.

These are the texts, by name:

{X_images_or_views}
X : array-like of shape (n_samples, height, width[, channels]), \
                (n_samples, n_features) or (n_samples, n_views, height, width, channels)

{X_images}
X : array-like of shape (n_samples, height, width[, channels]) or \
                (n_samples, n_features)

{X_to_embed}
X : array-like of shape (n_samples, height, width[, channels]) or \
                (n_samples, n_features)
    Images of the shape seen in `fit`; of ready views the first is the image.

{X_to_split}
X : array-like of shape (n_samples, ...)
    Samples, as the estimators take them.

{X_to_view}
X : array-like of shape (n_samples, height, width[, channels]) or \
                (n_samples, n_features)
    Images of the shape seen in `fit`, or ready views where these were given.

{augmentation}
augmentation : "auto", None, keras.layers.Layer, list of layers or callable, \
                default="auto"
    What makes the two views of an image differ. "auto" moves, turns and scales it a
    little and changes the colours of RGB images; a layer, several in turn, or a
    function of a batch take its place. None leaves the views equal, which is refused.

{ax_of_grid}
ax : matplotlib Axes, default=None
    Axes in whose place to draw; None makes a new figure.

{axes_of_images}
axes_ : ndarray of matplotlib Axes, shape (n_samples,)
    One for each image.

{ax}
ax : matplotlib Axes, default=None
    Axes to draw in; None makes a new figure.

{batch_inputs}
inputs : tensor of shape (batch * n_views, height, width, channels)
    Inputs of the backbone.

{batch_seed}
seed : int32 tensor of shape (2,)
    A fresh seed for stateless random operations.

{callbacks}
callbacks : list of keras.callbacks.Callback, default=None
    Callbacks of every stage of training, used as given, not copied. The name of the
    stage is ``self.params["stage"]`` of a callback: "pretraining", "fine-tuning",
    "fine-tuning of all layers", "self-training, part 1" and so on. A pretraining that
    `memory` holds calls none.

{checkpoint_dir}
checkpoint_dir : str or path-like, default=None
    Folder that keeps the state of a running `fit` after each epoch. The same call,
    after the process was killed, continues from there and ends with the same bits
    as without the interruption; needs an int as `random_state` for that. A finished
    fit removes its files. Both folders hold pickles: let nobody else write there.

{color_of_files}
color : {"rgb", "grayscale"}, default="rgb"
    Whether images get three channels or one.

{cv_of_labelled}
cv : int, cross-validation generator or iterable, default=None
    How to split the labelled rows; indices count these alone. Unlabelled rows are in
    every training fold. None makes 5 stratified folds, an int as many.

{decoding_of_files}
Of animations the first frame is read. Images are turned upright as their EXIF data
say, transparent ones are put on white, and CMYK becomes RGB without its colour profile.
Grey of 16 bits is divided by 257, so that the whole range fits one byte. Greys of 32
bits and floats are refused, because their range is not known. JPEG files that are much
larger than `image_shape` are decoded at a half, quarter or eighth of their size.

Pillow warns of images with more than ``PIL.Image.MAX_IMAGE_PIXELS`` pixels, and refuses
those with more than twice as many. Set this number yourself where you trust the files.

{drawn_display}
display : object
    The display, drawn.

{embedding_transformer}
transformer : transformer, default=None
    Brings embeddings to two dimensions, such as
    ``TSNE(random_state=0)``. It is cloned and fitted to the embeddings, without
    y; one in :class:`~sklearn.frozen.FrozenEstimator` stays as it is. None is
    ``PCA(n_components=2, random_state=0)``.

{embedding}
embedding : ndarray of shape (n_samples, n_embedding), float32
    Output of the backbone.

{estimators_to_compare}
estimators : classifier, dict of {str: classifier} or list of (str, classifier)
    What to compare. None of them is changed.

{features}
features : KerasTensor of shape (None, n_embedding)
    The backbone's output.

{figure}
figure_ : matplotlib Figure
    The figure they are in.

{fitted_task}
self : object
    The task.

{image_batch}
images : tensor of shape (batch, height, width, channels)
    Images.

{image_shape}
image_shape : tuple of int, default=None
    (height, width) or (height, width, channels) of the images in flat rows. None
    takes a square number of features for a square grey image.

{input_attributes}
image_shape_ : tuple of int
    (height, width, channels) of the images seen in `fit`.
n_features_in_ : int
    Number of values of one sample; of images height * width * channels.
feature_names_in_ : ndarray of shape (`n_features_in_`,)
    Column names, where X was a DataFrame.

{layer_to_pretrain}
layer : keras.layers.Layer
    A layer of the network that is to be pretrained.

{loss_of_outputs}
loss : callable
    Loss of a whole batch.

{memory}
memory : str, path-like or joblib.Memory, default=None
    Folder that keeps finished pretraining, so that the same images, network,
    parameters and seed are never pretrained twice, as in a grid search over
    fine-tuning. Needs an int as `random_state` to find anything again.

{metrics_of_partners}
metrics : list of callable
    Share of views whose nearest other view in the batch is of the same image.

{n_jobs}
n_jobs : int, default=None
    How many processes to use; -1 means one for each core. Each takes one
    estimator and one split at a time.

{n_labels}
n_labels : array-like of int, default=(10, 20, 50, 100)
    Numbers of labels in a training fold.

{n_samples_to_draw}
n_samples : int, default=5
    How many images to draw.

{paths}
X : array-like of str or path-like, shape (n_samples,) or (n_samples, 1)
    Paths of image files: a list, array, Series or DataFrame of one column.

{plot_params}
**plot_params : dict
    Further arguments of `plot`.

{plotted_display}
display : object
    The display itself, with `axes_` and `figure_`.

{pretext_labels}
labels : ndarray of shape (n_samples, n_views), int64
    Predicted labels, for rotation the index into `angles`. Where the views of a
    task are the same in each call, as those of rotation are, a perfect row is
    ``0, 1, …, n_views - 1``.

{pretext}
pretext : PretextTask, default=None
    The pretext task, one of skssl or of your own; None is
    :class:`~skssl.RotationPretext`, or with X of ready views the task to tell these
    apart.

{projection_units}
projection_units : int, default=128
    Number of outputs of the projection head, in which the views are compared.

{random_choice}
random_state : int, RandomState instance or None, default=None
    Seeds the random choice of what to draw.

{random_labels}
random_state : int, RandomState instance or None, default=None
    Seeds the choice of the rows that keep their label.

{random_state}
random_state : int, RandomState instance or None, default=None
    Seeds initial weights and the order of the images. With an int, repeated fits on
    the same machine with the same number of threads are bit-identical. None takes
    that of the KerasClassifier.

{rotation_paper}
.. [1] Spyros Gidaris, Praveer Singh, Nikos Komodakis, "Unsupervised Representation
   Learning by Predicting Image Rotations", ICLR 2018, arXiv:1803.07728.

{resize_of_files}
resize : {"crop", "pad", "stretch"}, default="crop"
    How images of another shape are brought to `image_shape`. "crop" scales them until
    they cover it, and cuts off equally on both sides. "pad" scales them until they fit
    in, and fills up with black. "stretch" scales height and width on their own.

{scoring}
scoring : str or callable, default=None
    The score, as for `cross_validate`; None is that of the estimator's `score`.

{shape_of_images}
image_shape : tuple of int
    (height, width, channels) of the images.

{shape_of_read_images}
image_shape : tuple of int, default=(64, 64)
    (height, width) of the images in pixels.

{standardize}
standardize : bool or "auto", default="auto"
    Whether the network standardises each channel of the images. "auto" does so
    unless the network scales them itself, by anything that an image passes before
    the first layer with weights, nested networks and operations such as ``x / 255``
    included; a `keras.Model` that is given with its weights is left as it is. True
    does so in any case, after the scaling of the network. The standardisation
    follows leading augmentation layers. A `Normalization` layer of the network that
    was not adapted takes its place, and wherever one stands it is adapted to what
    it receives; False leaves these as they are, too.

{training_images}
X : ndarray of shape (n_samples, height, width, channels)
    Training images.

{unlabeled_label}
unlabeled_label : object, default=-1
    What marks a row without a label in y. ``np.nan`` stands for every missing
    value: NaN, None and ``pd.NA``. None says that every row has a label.

{verbose}
verbose : int, default=0
    0 prints nothing, 1 shows the progress bar of Keras, which counts up to 32 steps
    as one, 2 prints one line per epoch.

{y_ignored}
y : None
    Ignored.

{y_of_points}
y : array-like of shape (n_samples,), default=None
    Class labels; None draws all points alike.

{y_to_hide}
y : array-like of shape (n_samples,)
    True labels. Rows marked by `unlabeled_label` are only trained on.
"""

import re
from textwrap import indent

# Under python -OO there are no docstrings, neither here nor where they are to go.
TEXTS = dict(re.findall(r"(?ms)^\{(\w+)\}\n(.+?)\n(?=\n\{|\Z)", __doc__ or ""))


def fill_docstrings(documented):
    """Put the shared texts into the docstrings of a class or a function.

    Parameters
    ----------
    documented : type or function
        What is decorated: of a class its own docstring and those of the methods that
        it defines itself.

    Returns
    -------
    documented : type or function
        The same object.
    """
    members = vars(documented).values() if isinstance(documented, type) else ()
    for member in [documented, *members]:
        # Wrappers, such as those of scikit-learn's set_output, copied the docstring.
        while member is not None:
            text = member.__doc__
            if text and (filled := _filled(text)) != text:
                member.__doc__ = filled
            member = getattr(member, "__wrapped__", None)
    return documented


def _filled(text):
    """Replace each line that holds a name in braces by the text of that name."""
    return re.sub(
        r"(?m)^( *)\{(\w+)\}$", lambda line: indent(TEXTS[line[2]], line[1]), text
    )
