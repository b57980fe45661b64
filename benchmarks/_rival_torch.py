"""The whole recipe of `SelfSupervisedClassifier()` in PyTorch, on the CPU.

Pretraining on turned images, fine-tuning with augmentation, labels that spread over a
graph of neighbours, and FixMatch with the thresholds of FreeMatch. Besides these,
pretraining by SimCLR.

`pip install torch --index-url https://download.pytorch.org/whl/cpu`
"""

import math
import time
import warnings
from collections import namedtuple
from itertools import product

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.semi_supervised import LabelSpreading
from torch import nn
from torch.nn import functional as F

torch.set_flush_denormal(True)  # as TensorFlow does

STAGES = "pretrain", "pretrain_views", "fine_tune", "spread", "fixmatch"
Way = namedtuple("Way", "memory_format compiled")
FORMATS = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}
WAYS = {
    f"{name}, {'compiled' if compiled else 'eager'}": Way(FORMATS[name], compiled)
    for name, compiled in product(FORMATS, (False, True))
}


# Networks


def build_backbone(height, width, channels):
    """Return the convolutions, and the size of what they give.

    Parameters
    ----------
    height, width, channels : int
        Shape of the images.

    Returns
    -------
    layers : nn.Sequential
        Convolutions with pooling, flattened.
    n_features : int
        Number of its outputs.
    """
    layers, large = [], max(height, width) >= 32
    filters = [32, 64]
    if large:
        n_halvings = max(height, width).bit_length() - 3
        filters = [16] * (n_halvings - 3) + [32, 64, 128]
    shape = torch.empty(1, channels, height, width)
    for position, n_filters in enumerate(filters):
        n_channels, shortest = shape.shape[1], min(shape.shape[2:])
        strided = large and len(filters) > 3 and position == 0
        if strided:
            added = [nn.Conv2d(n_channels, n_filters, 5, stride=2, padding=2)]
        else:
            same = large or shortest < 6
            added = [nn.Conv2d(n_channels, n_filters, 3, padding=int(same))]
        added.append(nn.ReLU())
        if not strided and shortest >= 2:
            added.append(nn.MaxPool2d(2))
        shape = nn.Sequential(*added)(shape)
        layers += added
    return nn.Sequential(*layers, nn.Flatten()), shape.numel()


class Network(nn.Module):
    """Convolutions, an embedding, and a head for angles and one for classes."""

    def __init__(self, image_shape, n_classes):
        super().__init__()
        self.convolutions, n_features = build_backbone(*image_shape)
        self.dense = nn.Linear(n_features, 128)
        self.angles = nn.Linear(128, 4)
        self.project = nn.Sequential(
            nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128)
        )
        self.classes = nn.Linear(128, n_classes)

    def start_anew(self, *layers):
        """Draw the weights of some layers, or of all, as Keras does."""
        for layer in layers or self.modules():
            if hasattr(layer, "weight"):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def embed(self, x):
        """Return the embeddings of standardised images."""
        return F.relu(self.dense(self.convolutions(x)))


# Augmentation


def moved(images, drawn, strength=1.0):
    """Shift, turn, zoom and shear each image, as one affine map.

    Parameters
    ----------
    images : tensor of shape (n, channels, height, width)
        Images.
    drawn : tensor of shape (6, n)
        Random numbers from -1 to 1.
    strength : float or tensor of shape (n,)
        Factor of the largest changes.
    """
    height, width = images.shape[2:]
    shift_y, shift_x, turn, zoom_y, zoom_x, shear = drawn * strength
    turn = turn * math.radians(10)
    zoom_y, zoom_x, shear = (0.1 * zoom_y).exp(), (0.1 * zoom_x).exp(), 0.1 * shear
    cos, sin = turn.cos(), turn.sin()
    theta = torch.stack(
        [
            zoom_x * cos,
            zoom_y * (shear * cos - sin) * (height / width),
            0.2 * shift_x,
            zoom_x * sin * (width / height),
            zoom_y * (shear * sin + cos),
            0.2 * shift_y,
        ],
        dim=1,
    ).view(-1, 2, 3)
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def recolored(images, drawn, strength=1.0):
    """Change contrast, saturation, brightness and colour of each image.

    Parameters
    ----------
    images : tensor of shape (n, 3, height, width)
        Images.
    drawn : tensor of shape (n, 6, 1, 1)
        Random numbers from -1 to 1.
    strength : float or tensor of shape (n, 1, 1, 1)
        Factor of the largest changes.
    """
    drawn = drawn * strength
    contrast, saturation = (0.3 * drawn[:, :2]).exp().split(1, dim=1)
    offset = 0.3 * drawn[:, 2:3] + 0.15 * drawn[:, 3:]
    variance, mean = torch.var_mean(images, (1, 2, 3), correction=0, keepdim=True)
    grey = images.mean(1, keepdim=True)
    images = torch.lerp(grey, images, saturation)
    return torch.lerp(mean, images, contrast) + variance.sqrt() * offset


def erased(images, drawn, size=0.5):
    """Replace a square of each image by the mean of the image.

    Parameters
    ----------
    images : tensor of shape (n, channels, height, width)
        Images.
    drawn : tensor of shape (3, n, 1, 1)
        Random numbers from 0 to 1.
    size : float
        Largest side, as a share of the shorter side of the image.
    """
    height, width = images.shape[2:]
    half, y, x = drawn
    half = half * (size * min(height, width) / 2)
    rows = (torch.arange(height).view(1, -1, 1) + 0.5 - y * height).abs() < half
    columns = (torch.arange(width).view(1, 1, -1) + 0.5 - x * width).abs() < half
    inside = (rows & columns)[:, None]
    return torch.where(inside, images.mean((2, 3), keepdim=True), images)


def augmented(images, strength=1.0):
    """Change each image at random; `strength` is a float, or one for each image."""
    n = len(images)
    images = moved(images, torch.rand(6, n) * 2 - 1, strength)
    if images.shape[1] == 3:
        if torch.is_tensor(strength):
            strength = strength.view(-1, 1, 1, 1)
        images = recolored(images, torch.rand(n, 6, 1, 1) * 2 - 1, strength)
    return images


# Labels


def spread_labels(embeddings, targets, n_classes):
    """Return class probabilities that follow from the neighbours of embeddings."""
    if min(embeddings.shape) > 32:
        pca = PCA(32, svd_solver="covariance_eigh")
        embeddings = pca.fit_transform(embeddings)
    graph = LabelSpreading(kernel="knn", n_neighbors=10, max_iter=100, tol=0)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("ignore", ConvergenceWarning)
        graph.fit(embeddings, targets)
    found = np.zeros((len(embeddings), n_classes))
    found[:, graph.classes_] = np.nan_to_num(graph.label_distributions_)
    shares = np.bincount(targets[targets >= 0], minlength=n_classes)
    # Class mass normalisation.
    found *= shares / shares.sum() / np.maximum(found.sum(axis=0), 1e-300)
    sums = found.sum(axis=1, keepdims=True)
    return np.where(sums > 0, found / np.where(sums > 0, sums, 1), 1 / n_classes)


def trusted_rows(distributions, predicted, targets, share=0.9):
    """Return the most certain rows where graph and network agree, and how often."""
    logarithms = np.log(np.maximum(distributions, np.finfo(float).tiny))
    certainties = (distributions * logarithms).sum(axis=1)
    others = np.flatnonzero(targets < 0)
    n_most = round(share * len(others))
    most = others[np.argsort(-certainties[others], kind="stable")[:n_most]]
    agreeing = most[distributions[most].argmax(axis=1) == predicted[most]]
    return np.sort(agreeing), len(agreeing) / max(1, n_most)


# Training


class TorchRecipe:
    """All stages of `SelfSupervisedClassifier()`, each of which can be run alone.

    Parameters
    ----------
    images : ndarray of shape (n, height, width[, channels]), uint8
        Training images.
    targets : ndarray of shape (n,)
        Class index of each, -1 without a label.
    n_classes : int
        Number of classes.
    seed : int
        Seed of all that is drawn.
    memory_format : torch.memory_format
        In which way convolutions read images.
    compiled : bool
        Whether steps are compiled.
    bfloat16 : bool
        Whether steps are autocast to bfloat16.
    ways : dict of Way, optional
        Memory format and compilation of single stages, as `fastest_ways` finds them.

    Attributes
    ----------
    seconds : dict of float
        How long each stage took the last time, and "graph", a part of "spread".
    """

    def __init__(
        self,
        images,
        targets,
        n_classes,
        seed=0,
        memory_format=torch.contiguous_format,
        compiled=False,
        bfloat16=False,
        ways=None,
    ):
        self.images = _channels_first(images)
        self.targets = torch.as_tensor(targets, dtype=torch.int64)
        self.n_classes = n_classes
        self.seed, self.bfloat16 = seed, bfloat16
        self.ways = dict.fromkeys(STAGES, Way(memory_format, compiled)) | (ways or {})
        self.labelled = torch.nonzero(self.targets >= 0)[:, 0]
        self.every = torch.arange(len(self.images))
        self.mean, self.scale = _statistics(self.images)
        _, channels, height, width = self.images.shape
        self.network = Network((height, width, channels), n_classes)
        self.certainty = torch.empty(())
        self.shares = torch.empty(n_classes)
        self.losses = {
            "pretrain": self._rotation_loss,
            "pretrain_views": self._views_loss,
            "fine_tune": self._class_loss,
            "spread": self._class_loss,
            "fixmatch": self._consistency_loss,
        }
        self.compiled = {k: torch.compile(x) for k, x in self.losses.items()}
        self.seconds = {}
        self.start_anew()

    def start_anew(self, seed=None):
        """Draw fresh weights; what is compiled stays."""
        torch.manual_seed(self.seed if seed is None else seed)
        self.network.start_anew()
        self._keep_start()

    def fit(self):
        """Run all stages from fresh weights."""
        self.start_anew()
        self.pretrain()
        self.fine_tune()
        self.spread()
        self.fixmatch()
        return self

    def pretrain(self, n_steps=None):
        """Learn to tell by which angle an image is turned."""
        start = time.perf_counter()
        if n_steps is None:
            n_batches = math.ceil(len(self.images) / 16)
            n_steps = math.ceil(600 / n_batches) * n_batches
        batches = _drawn(self.every, n_steps, 16)
        layers = [self.network.convolutions, self.network.dense, self.network.angles]
        self._train("pretrain", batches, layers, last_rate=0)
        # What the dense layer has learned is the angles.
        self.network.start_anew(self.network.dense, self.network.classes)
        self._keep_start()
        self.seconds["pretrain"] = time.perf_counter() - start

    def pretrain_views(self, n_steps):
        """Learn to find the other view of each image, as SimCLR does."""
        batches = _drawn(self.every, n_steps, 32)
        layers = [self.network.convolutions, self.network.dense, self.network.project]
        self._train("pretrain_views", batches, layers, last_rate=0)

    def fine_tune(self, n_steps=None):
        """Learn from the labelled images."""
        start = time.perf_counter()
        n_labelled = len(self.labelled)
        size = math.ceil(n_labelled / math.ceil(n_labelled / 64))
        batches = _drawn(self.labelled, n_steps or self.tuning_steps, size)
        self._train("fine_tune", batches, self._classifier, labels=self.targets)
        self.seconds["fine_tune"] = time.perf_counter() - start

    def spread(self, n_steps=None):
        """Learn from labels that spread over the neighbours of embeddings."""
        start = time.perf_counter()
        embeddings, outputs = self.predict_all(self.images)
        targets = self.targets.numpy()
        found = spread_labels(embeddings.numpy(), targets, self.n_classes)
        rows, agreement = trusted_rows(found, outputs.argmax(1).numpy(), targets)
        self.seconds["graph"] = time.perf_counter() - start
        if len(rows) and agreement >= 0.9:
            labels = self.targets.clone()
            labels[rows] = torch.from_numpy(found[rows].argmax(axis=1))
            self.relabel(torch.from_numpy(rows), labels, n_steps)
        self.seconds["spread"] = time.perf_counter() - start

    def relabel(self, rows, labels, n_steps=None):
        """Learn from rows that have got a label, and from the labelled ones."""
        n_labelled, n_others = len(self.labelled), len(rows)
        n_labelled = round(64 * n_labelled / (n_labelled + n_others))
        n_labelled = min(max(1, n_labelled), 63)
        n_steps = _whole_epochs(n_steps or max(1, round(0.5 * self.tuning_steps)))
        batches = torch.hstack(
            [
                _drawn(self.labelled, n_steps, n_labelled),
                _drawn(rows, n_steps, 64 - n_labelled),
            ]
        )
        self.network.load_state_dict(self.start)
        self._train(
            "spread", batches, self._classifier, labels, last_rate=0.02, averaged=True
        )

    def fixmatch(self, n_steps=None):
        """Learn from sure predictions for images, as FixMatch and FreeMatch do."""
        start = time.perf_counter()
        if n_steps is None:
            factor = 2 if max(self.images.shape[2:]) >= 32 else 6
            n_passes = math.ceil(6 * len(self.images) / 16)
            n_steps = max(factor * self.tuning_steps, n_passes)
        n_steps = _whole_epochs(n_steps)
        labelled = _drawn(self.labelled, n_steps, 4)
        batches = torch.hstack([labelled, _drawn(self.every, n_steps, 16)])
        self.certainty.fill_(1 / self.n_classes)
        self.shares.fill_(1 / self.n_classes)
        self._train(
            "fixmatch",
            batches,
            self._classifier,
            labels=self.targets,
            last_rate=0.02,
            averaged=True,
        )
        self.seconds["fixmatch"] = time.perf_counter() - start

    @torch.inference_mode()
    def predict_all(self, images, batch_size=128):
        """Return embeddings and class scores of images, as channels come first."""
        parts = []
        for batch in images.split(batch_size):
            embedded = self.network.embed(self._standardised(batch.float()))
            parts.append((embedded, self.network.classes(embedded)))
        return tuple(map(torch.cat, zip(*parts, strict=True)))

    def predict(self, images):
        """Return the class index of each image."""
        return self.predict_all(_channels_first(images))[1].argmax(1).numpy()

    @property
    def tuning_steps(self):
        """Number of steps of fine-tuning."""
        n_batches = math.ceil(len(self.labelled) / 64)
        epoch_steps = math.ceil(50 / n_batches) * n_batches
        return max(5, math.ceil(1000 / epoch_steps)) * epoch_steps

    @property
    def _classifier(self):
        return [self.network.convolutions, self.network.dense, self.network.classes]

    def _keep_start(self):
        self.start = {k: x.clone() for k, x in self.network.state_dict().items()}

    def _train(
        self, stage, batches, layers, labels=None, last_rate=None, averaged=False
    ):
        """Take one step for each row of `batches`, which are positions of images.

        The learning rate falls to `last_rate` of what it was along a cosine; None is no
        fall. The weights of the result are their moving average if `averaged`.
        """
        self.memory_format, compiled = self.ways[stage]
        loss_of = self.compiled[stage] if compiled else self.losses[stage]
        network, n_steps = self.network.train(), len(batches)
        network.to(memory_format=self.memory_format)
        weights = [x for layer in layers for x in layer.parameters()]
        optimizer = torch.optim.Adam(weights, lr=1e-3, eps=1e-7, fused=True)
        (group,) = optimizer.param_groups
        share = 1 / min(1000, max(2, n_steps / 10))
        averages = None
        for step, rows in enumerate(batches):
            if last_rate is not None:
                cosine = (1 + math.cos(math.pi * step / n_steps)) / 2
                group["lr"] = 1e-3 * (last_rate + (1 - last_rate) * cosine)
            images = self.images[rows]
            given = [images] if labels is None else [images, labels[rows]]
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
                loss = loss_of(*given)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if averaged and averages is None:
                averages = [x.detach().clone() for x in weights]
            elif averaged:
                with torch.no_grad():
                    torch._foreach_lerp_(averages, weights, share)
        if averaged:
            with torch.no_grad():
                torch._foreach_copy_(weights, averages)
        network.eval()

    def _standardised(self, images):
        return ((images - self.mean) / self.scale).to(memory_format=self.memory_format)

    def _scores(self, images):
        return self.network.classes(self.network.embed(self._standardised(images)))

    def _rotation_loss(self, images):
        images = images.float()
        if images.shape[1] == 3:
            images = augmented(images)
        views = [torch.rot90(images, k, dims=(2, 3)) for k in range(4)]
        embedded = self.network.embed(self._standardised(torch.cat(views)))
        angles = torch.arange(4).repeat_interleave(len(images))
        return F.cross_entropy(self.network.angles(embedded), angles)

    def _views_loss(self, images):
        views = augmented(images.float().repeat_interleave(2, dim=0))
        z = self.network.project(self.network.embed(self._standardised(views)))
        z = F.normalize(z.float(), eps=1e-6)
        itself = torch.eye(len(z), dtype=torch.bool)
        logits = (z @ z.T / 0.5).masked_fill(itself, -1e9)
        return F.cross_entropy(logits, torch.arange(len(z)) ^ 1)

    def _class_loss(self, images, targets):
        return F.cross_entropy(self._scores(augmented(images.float())), targets)

    def _consistency_loss(self, images, targets):
        # 4 labelled images, 16 strong and 16 weak views of others.
        images = images.float()
        strength = torch.ones(36)
        strength[20:] = 0.5
        images = augmented(torch.cat([images, images[4:]]), strength)
        labelled, strong, weak = images.split([4, 16, 16])
        strong = erased(strong, torch.rand(3, 16, 1, 1))
        with torch.no_grad():
            sure, guesses = self._sure_guesses(self._scores(weak).float().softmax(1))
        scores = self._scores(torch.cat([labelled, strong]))
        losses = F.cross_entropy(scores[4:], guesses, reduction="none")
        return F.cross_entropy(scores[:4], targets[:4]) + (sure * losses).mean()

    def _sure_guesses(self, probabilities):
        """Return which predictions are sure, and the class of each."""
        certainties, guesses = probabilities.max(1)
        self.certainty.lerp_(certainties.mean(), 0.01)
        self.shares.lerp_(probabilities.mean(0), 0.01)
        needed = self.certainty * self.shares / self.shares.max()
        return certainties >= needed[guesses].clamp(max=0.95), guesses


def _channels_first(images):
    images = torch.from_numpy(images)
    if images.ndim == 3:
        return images[:, None]
    return images.permute(0, 3, 1, 2).contiguous()


def _statistics(images):
    """Return mean and deviation of each channel, of shape (channels, 1, 1)."""
    channels = images.unbind(1)
    counts = torch.stack([x.flatten().bincount(minlength=256) for x in channels])
    shares = counts.double() / counts.sum(1, keepdim=True)
    values = torch.arange(256.0).double()
    mean = shares @ values
    variance = (shares * (values - mean[:, None]) ** 2).sum(1)
    scale = torch.where(variance > 0, variance, 1).sqrt()
    return (x.float().view(-1, 1, 1) for x in (mean, scale))


def _drawn(rows, n_steps, size):
    """Return rows, (n_steps, size); none comes again before all have come."""
    n_passes = math.ceil(n_steps * size / len(rows))
    order = torch.cat([rows[torch.randperm(len(rows))] for _ in range(n_passes)])
    return order[: n_steps * size].view(n_steps, size)


def _whole_epochs(n_steps):
    """Round a number of steps up to epochs of 100, if there are as many."""
    return math.ceil(n_steps / 100) * 100 if n_steps > 100 else n_steps


def time_stages(recipe, n_steps, clock=time.perf_counter):
    """Yield each stage and the seconds of a step, after some steps that warm up."""
    for stage in STAGES:
        for n in (max(3, n_steps // 5), n_steps):
            start = clock()
            if stage == "spread":  # the graph has no steps
                recipe.relabel(recipe.every, recipe.targets.clamp(min=0), n)
            else:
                getattr(recipe, stage)(n)
            seconds = (clock() - start) / n
        yield stage, seconds


def fastest_ways(images, targets, n_classes, n_steps=100, **params):
    """Try each stage in four ways.

    Parameters
    ----------
    images, targets, n_classes
        As for `TorchRecipe`.
    n_steps : int
        Number of steps with which each way is tried.
    **params : dict
        Others of `TorchRecipe`.

    Returns
    -------
    ways : dict of Way
        The fastest way of each stage.
    seconds : dict of dict
        Seconds of a step by stage and way.
    """
    seconds = {stage: {} for stage in STAGES}
    for name, way in WAYS.items():
        recipe = TorchRecipe(images, targets, n_classes, 0, *way, **params)
        for stage, of_step in time_stages(recipe, n_steps):
            seconds[stage][name] = of_step
    ways = {stage: WAYS[min(x, key=x.get)] for stage, x in seconds.items()}
    return ways, seconds
