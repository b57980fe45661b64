"""The same network and training in PyTorch, on the CPU.

`pip install torch --index-url https://download.pytorch.org/whl/cpu`
"""

import os
import time

import torch
from torch import nn

torch.set_num_threads(os.cpu_count())  # as TensorFlow does


class TorchPretraining:
    """Learning to tell the angle, in the fastest of PyTorch's ways.

    Parameters
    ----------
    images : ndarray of shape (n_samples, 28, 28), uint8
        Training images. They are turned in batches, as they are trained on.
    n_steps : int
        Number of steps with which each way is tried.
    """

    def __init__(self, images, n_steps=100):
        self.images = torch.from_numpy(images)[:, None]
        pixels = self.images.float()
        self.mean, self.scale = pixels.mean(), pixels.std()
        self.speeds = {}
        for name, memory_format in [
            ("contiguous", torch.contiguous_format),
            ("channels_last", torch.channels_last),
        ]:
            for compiled in (False, True):
                self._prepare(memory_format, compiled)
                self._train(n_steps // 5 + 1)  # warms up, and compiles
                start = time.perf_counter()
                self._train(n_steps)
                way = f"{name}, {'compiled' if compiled else 'eager'}"
                self.speeds[way] = n_steps / (time.perf_counter() - start)
                if self.speeds[way] == max(self.speeds.values()):
                    self.way, best = way, (memory_format, compiled)
        self._prepare(*best)
        self._train(n_steps // 5 + 1)

    def _prepare(self, memory_format, compiled):
        self.memory_format = memory_format
        self.network = nn.Sequential(
            nn.Conv2d(1, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(1600, 128),
            nn.ReLU(),
            nn.Linear(128, 4),
        ).to(memory_format=memory_format)
        self._start_anew()
        self.forward = torch.compile(self.network) if compiled else self.network

    def _start_anew(self):
        """Draw weights as Keras does, so that both sides learn alike."""
        for layer in self.network:
            if hasattr(layer, "weight"):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.optimizer = torch.optim.Adam(self.network.parameters(), fused=True)

    def _batch(self, images):
        x = (images.float() - self.mean) / self.scale
        x = torch.stack([torch.rot90(x, k, dims=(2, 3)) for k in range(4)], dim=1)
        x = x.flatten(0, 1).to(memory_format=self.memory_format)
        return x, torch.arange(4).repeat(len(images))

    def _train(self, n_steps):
        self.network.train()
        loss_function, order = nn.CrossEntropyLoss(), torch.empty(0, dtype=torch.int64)
        for _ in range(n_steps):
            if len(order) < 16:
                order = torch.randperm(len(self.images))
            x, y = self._batch(self.images[order[:16]])
            order = order[16:]
            self.optimizer.zero_grad()
            loss_function(self.forward(x), y).backward()
            self.optimizer.step()

    def fit(self, epochs):
        """Train from fresh weights; the network is built and compiled already."""
        self._start_anew()
        self._train(epochs * len(self.images) // 16)

    @torch.no_grad()
    def score(self, images):
        """Return the rotation accuracy."""
        self.network.eval()
        x, y = self._batch(torch.from_numpy(images)[:, None])
        return (self.network(x).argmax(1) == y).float().mean().item()
