"""Image files to arrays of bytes, several files at a time in threads.

Pillow decodes without holding Python's lock. Its settings, and the filters of warnings,
belong to the whole process: nothing here changes them.
"""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import PIL
from PIL import Image, ImageFile, ImageOps

# Raise it with every change after which the same file gives other pixels.
DECODING_VERSION = 1

MODES = {"rgb": "RGB", "grayscale": "L"}  # Keras's word to Pillow's

# Values of the EXIF tag "orientation", and what brings each upright.
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def image_extensions():
    """Return the extensions of image files, in lower case, such as ".png".

    Pillow also registers documents and videos, of which it reads no pixels.
    """
    return {
        extension
        for extension, kind in Image.registered_extensions().items()
        if Image.MIME.get(kind, "image/").startswith("image/")
    }


@dataclass(frozen=True)
class Decoding:
    """How a file becomes an image: the parameters that the public names share."""

    image_shape: tuple
    color: str
    resize: str

    def __post_init__(self):
        shape = self.image_shape
        if (
            not isinstance(shape, tuple | list)
            or len(shape) != 2
            or any(isinstance(n, bool) or not isinstance(n, Integral) for n in shape)
            or min(shape) < 1
        ):
            raise ValueError(
                f"image_shape must be (height, width), ints of at least 1, got "
                f"{shape!r}. Give the shape that all images shall have; the number of "
                "channels follows from color."
            )
        for name, known in [("color", MODES), ("resize", RESIZERS)]:
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise ValueError(f"{name} must be one of {[*known]}, got {value!r}.")

    @property
    def shape(self):
        """(height, width, channels) of the images."""
        return (*map(int, self.image_shape), 1 if self.color == "grayscale" else 3)

    @property
    def dependencies(self):
        """All but the file that the pixels depend on, and whether it can be read."""
        return (
            DECODING_VERSION,
            PIL.__version__,
            ImageFile.LOAD_TRUNCATED_IMAGES,
            Image.MAX_IMAGE_PIXELS,
            self.shape,
            self.resize,
        )

    def decode(self, path):
        """Return the first image in a file.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        image : ndarray of shape (height, width, channels), uint8
            The image, upright.

        Raises
        ------
        Exception
            Any, where the file is damaged: Pillow's readers raise errors of many types.
        """
        height, width, _ = self.shape
        with Image.open(path) as image:
            # A JPEG decodes faster at a half to an eighth of its size. Twice the final
            # size leaves enough for a resize that looks like that of the whole image.
            # The larger side counts for both, for the image may lie on its side.
            image.draft(None, [2 * max(height, width)] * 2)
            image.load()
            image = _in_mode(_upright(image), MODES[self.color])
            image = RESIZERS[self.resize](image, (width, height))
            return np.array(image).reshape(self.shape)


def decode_files(paths, decoding, n_threads):
    """Decode files in threads, a few at a time.

    Parameters
    ----------
    paths : list of str or path-like
        The files.
    decoding : Decoding
        How to decode each.
    n_threads : int
        How many to decode at once.

    Yields
    ------
    image : ndarray of shape (height, width, channels), uint8, or None
        Image of each file, in order; None where it cannot be read.
    error : Exception or None
        Why it cannot be read. Keep no more than its text: its traceback holds pixels.
    """

    def decode(path):
        try:
            return decoding.decode(path), None
        except Exception as error:
            return None, error

    # Threads that load Pillow's readers at once would not find those of each other.
    Image.init()
    waiting = deque()
    with ThreadPoolExecutor(n_threads) as pool:
        for path in paths:
            waiting.append(pool.submit(decode, path))
            # Finished images would fill the memory where they are not taken as fast.
            if len(waiting) == 8 * n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def reason(error):
    """Say why a file could not be read."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return "Pillow knows no image format like it"  # without the path
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = str(error).rstrip(".")
    return (
        message if type(error) is ValueError else f"{type(error).__name__}: {message}"
    )


def unreadable(path, error):
    """Say which file could not be read, and why."""
    return f"{os.fspath(path)!r} cannot be read: {reason(error)}."


def _upright(image):
    """Return an image turned as its EXIF data say."""
    try:
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION))
    except Exception:  # damaged EXIF data do not make the pixels useless
        return image
    return image if turn is None else image.transpose(turn)


def _in_mode(image, mode):
    """Return an image in mode "L" or "RGB", without transparency."""
    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    elif image.mode == "F":
        raise ValueError(
            "its pixels are floats, whose range is not known; convert them to bytes"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(mode)


def _from_16_bits(image):
    """Return a grey image of 16 bits with 8 bits, where Pillow would clip."""
    values = np.asarray(image).astype(np.int64)
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise ValueError(
            f"its pixels are integers from {low} to {high}, whose range is not known; "
            "convert them to bytes"
        )
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _crop(image, size):
    return ImageOps.fit(image, size)


def _pad(image, size):
    scale = min(size[0] / image.width, size[1] / image.height)
    inner = [max(1, round(scale * n)) for n in image.size]
    padded = Image.new(image.mode, size)  # black
    padded.paste(
        image.resize(inner),
        [(n - m) // 2 for n, m in zip(size, inner, strict=True)],
    )
    return padded


def _stretch(image, size):
    return image.resize(size)


RESIZERS = {"crop": _crop, "pad": _pad, "stretch": _stretch}
