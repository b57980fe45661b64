"""Files of every kind, made by Pillow, as arrays."""

import os
import pickle
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator

from skssl import ImageReader, load_image_files
from skssl._data import decoding
from skssl._storage import image_cache

ORIENTATION = 0x0112


def save(path, image=None, **options):
    """Write an image, by default a grey one of 8 by 8 pixels, and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", (8, 8), 100) if image is None else image
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.asarray(image))
    image.save(path, **options)
    return path


def read(path, **params):
    """Return one file as an image, by default of 8 by 8 pixels."""
    return ImageReader(params.pop("image_shape", (8, 8)), **params).transform([path])[0]


def names(data, folder):
    return [Path(name).relative_to(folder).as_posix() for name in data.filenames]


def truncated(path):
    """Cut off the second half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.fixture
def pets(tmp_path):
    """Return a folder of two classes and images without a label, as grey as named."""
    folder = tmp_path / "pets"
    for name in ["dog/30.png", "cat/20.png", "cat/10.png", "unlabelled/40.png"]:
        grey = int(Path(name).stem)
        save(folder / name, np.full((8, 8), grey, np.uint8))
    return folder


@pytest.fixture
def decoded(monkeypatch):
    """Return a list that grows by the name of each file that is decoded."""
    files, decode = [], decoding.Decoding.decode

    def noted(self, path):
        files.append(Path(path).name)
        return decode(self, path)

    monkeypatch.setattr(decoding.Decoding, "decode", noted)
    return files


# Folders, labels and order


def test_sub_folders_are_classes(pets):
    data = load_image_files(pets, (4, 6))
    assert set(data) == {"images", "target", "target_names", "filenames"}
    assert names(data, pets) == [
        "cat/10.png",
        "cat/20.png",
        "dog/30.png",
        "unlabelled/40.png",
    ]
    assert data.images.shape == (4, 4, 6, 3)
    assert data.images.dtype == np.uint8
    assert data.images[:, 0, 0, 0].tolist() == [10, 20, 30, 40]
    assert data.target.tolist() == ["cat", "cat", "dog", "unlabelled"]
    assert data.target_names == ["cat", "dog"]
    assert data.filenames[0] == str(pets / "cat" / "10.png")
    assert data.target.dtype.kind == data.filenames.dtype.kind == "U"


def test_files_further_inside_belong_to_the_class_and_loose_ones_to_none(pets):
    save(pets / "cat" / "2024" / "may" / "a.png")
    save(pets / "loose.png")
    data = load_image_files(str(pets))
    labels = dict(zip(names(data, pets), data.target, strict=True))
    assert labels["cat/2024/may/a.png"] == "cat"
    assert labels["loose.png"] == labels["unlabelled/40.png"] == "unlabelled"
    assert data.target_names == ["cat", "dog"]


def test_folders_are_sorted_before_names_that_continue_theirs(tmp_path):
    for name in ["a b/1.png", "a/2.png", "a/1.png", "a.png", "a-/1.png"]:
        save(tmp_path / name)
    assert names(load_image_files(tmp_path), tmp_path) == [
        "a/1.png",
        "a/2.png",
        "a b/1.png",
        "a-/1.png",
        "a.png",
    ]


def test_another_name_of_the_folder_without_labels(pets):
    (pets / "unlabelled").rename(pets / "rest")
    data = load_image_files(pets, unlabeled="rest")
    assert data.target.tolist() == ["cat", "cat", "dog", "rest"]
    assert data.target_names == ["cat", "dog"]


@pytest.mark.parametrize("name", ["unlabeled", "Unlabelled"])
def test_another_spelling_of_unlabelled_is_no_class(pets, name):
    (pets / "unlabelled").rename(pets / name)
    with pytest.raises(ValueError, match=f"'{name}' would be a class.*Set unlabeled="):
        load_image_files(pets)
    assert load_image_files(pets, unlabeled=name).target_names == ["cat", "dog"]


def test_no_label_at_all(tmp_path):
    save(tmp_path / "1.png")
    data = load_image_files(tmp_path)
    assert data.target.tolist() == ["unlabelled"]
    assert data.target_names == []


def test_what_is_no_image_by_its_name_is_ignored(pets):
    for name in ["notes.txt", "Thumbs.db", ".DS_Store", "cat/README", "dog/a.pdf"]:
        (pets / name).write_text("no image")
    save(pets / "cat" / "._10.png")
    save(pets / ".thumbnails" / "1.png")
    (pets / "empty").mkdir()
    save(pets / "dog" / "50.PNG")
    data = load_image_files(pets)
    assert len(data.images) == 5
    assert data.target_names == ["cat", "dog"]


def test_links_to_files_and_sub_folders_are_followed_and_circles_are_not(pets):
    (pets / "bird").symlink_to(pets / "dog", target_is_directory=True)
    (pets / "cat" / "15.png").symlink_to(pets / "cat" / "10.png")
    (pets / "cat" / "all").symlink_to(pets, target_is_directory=True)
    found = names(load_image_files(pets), pets)
    assert found[:4] == ["bird/30.png", "cat/10.png", "cat/15.png", "cat/20.png"]
    assert len(found) == 6


def test_names_that_are_no_text(pets):
    folder = os.fsencode(pets)
    try:
        os.rename(folder + b"/cat/10.png", folder + b"/cat/\xff.png")
    except OSError:
        pytest.skip("the file system takes text alone")
    data = load_image_files(pets, cache=pets.parent / "cache")
    assert os.fsencode(str(data.filenames[1])) == folder + b"/cat/\xff.png"
    assert data.images[1, 0, 0, 0] == 10


def test_a_missing_folder_and_a_file_in_its_place(pets):
    with pytest.raises(FileNotFoundError, match="a folder of images.*is not there"):
        load_image_files(pets / "birds")
    with pytest.raises(NotADirectoryError, match="a folder of images.*is a file"):
        load_image_files(pets / "cat" / "10.png")


def test_folders_without_images(tmp_path):
    with pytest.raises(ValueError, match="must hold image files.*none, or hidden"):
        load_image_files(tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.HEIX").write_text("")
    (tmp_path / "cat" / "LICENSE").write_text("")
    with pytest.raises(ValueError, match=r"1 with \.heix, 1 with no extension"):
        load_image_files(tmp_path)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"image_shape": 64}, r"\(height, width\), ints of at least 1, got 64"),
        ({"image_shape": (8, 8, 3)}, "channels follows from color"),
        ({"image_shape": (8, 0)}, "at least 1"),
        ({"image_shape": (8.0, 8)}, "ints"),
        ({"color": "gray"}, r"color must be one of \['rgb', 'grayscale'\], got 'gray'"),
        ({"color": None}, "color must be one of"),
        ({"resize": "fit"}, r"resize must be one of \['crop', 'pad', 'stretch'\]"),
        ({"on_error": "ignore"}, "'warn' or 'raise', got 'ignore'"),
        ({"unlabeled": -1}, "unlabeled must be text.*got -1"),
    ],
)
def test_parameters_are_checked(pets, params, message):
    with pytest.raises(ValueError, match=message):
        load_image_files(pets, **params)
    if not params.keys() & {"on_error", "unlabeled"}:
        for method in ("fit", "transform"):
            with pytest.raises(ValueError, match=message):
                getattr(ImageReader(**params), method)(["a.png"])


def test_the_progress_bar_is_on_stderr(pets, capfd):
    load_image_files(pets)
    assert capfd.readouterr() == ("", "")
    load_image_files(pets, verbose=1)
    output, errors = capfd.readouterr()
    assert output == ""
    assert errors.endswith(f"[{'=' * 30}] 4/4 images\n")


# Shapes and colours


def test_crop_cuts_off_equally(tmp_path):
    wide = np.arange(1, 9, dtype=np.uint8).reshape(2, 4)
    path = save(tmp_path / "a.png", wide)
    assert_array_equal(
        read(path, image_shape=(2, 2), color="grayscale")[..., 0], [[2, 3], [6, 7]]
    )
    path = save(tmp_path / "b.png", wide.T)
    assert_array_equal(
        read(path, image_shape=(2, 2), color="grayscale")[..., 0], [[2, 6], [3, 7]]
    )


def test_pad_fills_up_with_black(tmp_path):
    wide = np.arange(1, 9, dtype=np.uint8).reshape(2, 4)
    path = save(tmp_path / "a.png", wide)
    image = read(path, image_shape=(4, 4), color="grayscale", resize="pad")[..., 0]
    assert_array_equal(image, [[0] * 4, [1, 2, 3, 4], [5, 6, 7, 8], [0] * 4])
    image = read(path, image_shape=(2, 8), resize="pad")
    assert_array_equal(image[:, 2:6, 1], wide)
    assert not image[:, [0, 1, 6, 7]].any()


def test_stretch_keeps_everything(tmp_path):
    path = save(tmp_path / "a.png", np.repeat([[0, 200]], 8, axis=1).astype(np.uint8))
    image = read(path, image_shape=(4, 16), color="grayscale", resize="stretch")
    assert_array_equal(image[:, [0, -1], 0], [[0, 200]] * 4)


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("shape", [(1, 1000), (1000, 1), (1, 1), (5, 3), (300, 200)])
def test_every_shape_can_be_resized(tmp_path, resize, shape):
    path = save(tmp_path / "a.png", np.full(shape, 77, np.uint8))
    image = read(path, image_shape=(7, 9), resize=resize)
    assert image.shape == (7, 9, 3)
    assert set(np.unique(image)) <= ({0, 77} if resize == "pad" else {77})
    assert image.any()


def test_colours(tmp_path):
    path = save(tmp_path / "a.png", Image.new("RGB", (8, 8), (200, 100, 50)))
    assert read(path)[3, 3].tolist() == [200, 100, 50]
    grey = read(path, color="grayscale")
    assert grey.shape == (8, 8, 1)
    assert grey[3, 3, 0] == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)


@pytest.mark.parametrize("color", ["rgb", "grayscale"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes(tmp_path, mode, color):
    image = Image.new("RGB", (8, 8), "white").convert(mode)
    image = read(save(tmp_path / "a.tif", image), color=color)
    assert image.shape == (8, 8, 3 if color == "rgb" else 1)
    assert (image == 255).all()


def test_cmyk(tmp_path):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    path = save(tmp_path / "a.jpg", image, quality=100)
    assert_allclose(read(path)[3, 3], [255, 0, 0], atol=3)
    assert_allclose(read(path, color="grayscale")[3, 3], [76], atol=3)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_grey_of_16_bits_is_scaled_and_not_clipped(tmp_path, name):
    values = np.array([[0, 257, 25_700, 65_535]], np.uint16)
    path = tmp_path / name
    if name == "a.pgm":
        path.write_bytes(b"P5 4 1 65535\n" + values.astype(">u2").tobytes())
    else:
        save(path, values)
    image = read(path, image_shape=(1, 4), color="grayscale")
    assert image[0, :, 0].tolist() == [0, 1, 100, 255]
    assert read(path, image_shape=(1, 4))[0, :, 2].tolist() == [0, 1, 100, 255]


def test_grey_of_16_bits_with_the_high_byte_first(tmp_path):
    image = Image.frombytes("I;16B", (2, 1), bytes([100, 100, 255, 255]))
    path = save(tmp_path / "a.tif", image)
    assert read(path, image_shape=(1, 2), color="grayscale").ravel().tolist() == [
        100,
        255,
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((8, 8), 0.5, np.float32), "pixels are floats, whose range"),
        (np.full((8, 8), 70_000, np.int32), "pixels are integers from 70000 to 70000"),
        (np.full((8, 8), -1, np.int32), "pixels are integers from -1 to -1"),
    ],
)
def test_greys_of_unknown_range_are_refused(tmp_path, values, message):
    path = save(tmp_path / "a.tif", values)
    with pytest.raises(ValueError, match=rf"a\.tif' cannot be read: its {message}"):
        read(path)


def test_transparent_images_are_put_on_white(tmp_path):
    pixels = np.full((8, 8, 4), [200, 0, 0, 255], np.uint8)
    pixels[:4, :, 3] = 0
    pixels[4, :, 3] = 51
    image = read(save(tmp_path / "a.png", pixels))
    assert image[[0, 7, 4], 0].tolist() == [[255] * 3, [200, 0, 0], [244, 204, 204]]
    image = read(tmp_path / "a.png", color="grayscale")
    assert image[[0, 7], 0, 0].tolist() == [255, 60]


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_palettes_with_a_transparent_colour(tmp_path, name):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 0, 0, 200, 9, 9, 9])
    image.paste(0, (0, 0, 4, 8))
    image = read(save(tmp_path / name, image, transparency=0))
    assert image[0, [0, 7]].tolist() == [[255, 255, 255], [0, 0, 200]]


def test_palettes_with_transparency_of_each_colour_and_grey_with_one(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 0, 0, 200])
    path = save(tmp_path / "a.png", image, transparency=bytes([255, 51]))
    assert read(path)[0, 0].tolist() == [204, 204, 244]
    path = save(tmp_path / "b.png", transparency=100)
    assert (read(path) == 255).all()


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    for name in ["a.gif", "a.png", "a.tif", "a.webp"]:
        options = {"lossless": True} if name == "a.webp" else {}
        path = tmp_path / name
        save(path, frames[0], save_all=True, append_images=frames[1:], **options)
        assert read(path)[3, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path, name, orientation):
    quarters = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [9, 9, 9]]])
    image = Image.fromarray(np.kron(quarters, np.ones((32, 48, 1))).astype(np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = save(tmp_path / name, image, exif=exif, quality=95)
    with Image.open(path) as stored:
        expected = ImageOps.exif_transpose(stored).convert("RGB").resize((4, 6))
    found = read(path, image_shape=(6, 4), resize="stretch")
    corners = np.ix_([0, -1], [0, -1])
    assert_allclose(found[corners], np.asarray(expected)[corners], atol=30)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
@pytest.mark.parametrize("exif", [b"XXXXXXXX", b"MM\0*\0\0\0\x08\0\x05\x01\x12"])
def test_damaged_exif_data_do_not_matter(tmp_path, name, exif):
    path = save(tmp_path / name, exif=b"Exif\0\0" + exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, of the EXIF data
        assert_allclose(read(path), 100, atol=2)


@pytest.mark.parametrize("shape", [(600, 800), (800, 600), (90, 1200)])
def test_large_jpeg_files_are_decoded_smaller(tmp_path, monkeypatch, shape):
    rows, columns = np.indices(shape)
    ramp = (127 + 60 * np.sin(rows / 40) + 60 * np.cos(columns / 50)).astype(np.uint8)
    path = save(tmp_path / "a.jpg", ramp, quality=95)
    sizes, load = [], JpegImageFile.load

    def noted(self):
        sizes.append(self.size)
        return load(self)

    monkeypatch.setattr(JpegImageFile, "load", noted)
    found = read(path, image_shape=(32, 24), color="grayscale")
    assert min(sizes[0]) >= 64
    assert sizes[0] == shape[::-1] if min(shape) < 128 else max(sizes[0]) < 400
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.fit(image, (24, 32)))
    assert_allclose(found[..., 0], expected.astype(float), atol=4)


# Files that cannot be read


@pytest.fixture
def damaged(pets):
    """Return the same folder with damaged files in it."""
    truncated(save(pets / "cat" / "cut.jpg", noise(64, 64)))
    truncated(save(pets / "cat" / "cut.png", noise(64, 64)))
    (pets / "dog" / "empty.png").write_bytes(b"")
    (pets / "dog" / "text.jpg").write_text("no image")
    (pets / "dog" / "gone.png").symlink_to(pets / "nowhere.png")
    save(pets / "dog" / "float.tif", np.zeros((8, 8), np.float32))
    return pets


def test_files_that_cannot_be_read_are_left_out_with_one_warning(damaged):
    with pytest.warns(UserWarning, match="cannot be read") as caught:
        data = load_image_files(damaged, (8, 8))
    (message,) = (str(warning.message) for warning in caught)
    assert message.startswith(f"6 of 10 image files in {str(damaged)!r} cannot be read")
    assert "'cat/cut.jpg' (OSError: image file is truncated" in message
    assert "'dog/empty.png' (Pillow knows no image format like it)" in message
    assert "'dog/gone.png' (No such file or directory) and 1 more." in message
    assert caught[0].filename == __file__
    assert data.images[:, 0, 0, 0].tolist() == [10, 20, 30, 40]
    assert data.target.tolist() == ["cat", "cat", "dog", "unlabelled"]
    assert len(data.filenames) == 4


def test_or_raise_an_error_where_that_is_asked(damaged):
    cache = damaged.parent / "cache"
    for _ in range(2):
        with pytest.raises(ValueError, match=r"cut\.jpg' cannot be read: OSError"):
            load_image_files(damaged, on_error="raise", cache=cache)
    assert list(cache.iterdir()) == []
    with pytest.warns(UserWarning, match="6 of 10"):
        load_image_files(damaged, cache=cache)
    with pytest.raises(ValueError, match=r"cut\.jpg' cannot be read: OSError"):
        load_image_files(damaged, on_error="raise", cache=cache)


@pytest.mark.parametrize("cached", [False, True])
def test_no_file_that_can_be_read(tmp_path, cached):
    (tmp_path / "a.png").write_text("no image")
    cache = tmp_path / "cache" if cached else None
    with pytest.raises(ValueError, match=r"of 1 none can: 'a\.png' \(Pillow knows"):
        load_image_files(tmp_path, cache=cache)


def test_a_class_without_a_file_that_can_be_read_is_none(pets):
    (pets / "dog" / "30.png").write_text("no image")
    with pytest.warns(UserWarning, match="1 of 4"):
        assert load_image_files(pets).target_names == ["cat"]


def test_huge_images(pets, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    save(pets / "cat" / "large.png", noise(12, 12))
    with pytest.warns(Image.DecompressionBombWarning, match="144 pixels"):
        assert len(load_image_files(pets).images) == 5
    save(pets / "cat" / "large.png", noise(20, 20))
    message = r"1 of 5 .*large\.png' \(DecompressionBombError: .*400 pixels"
    with pytest.warns(UserWarning, match=message):
        assert len(load_image_files(pets).images) == 4


def test_settings_of_the_process_are_left_alone(damaged, monkeypatch):
    def settings():
        limits = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        return *limits, list(warnings.filters)

    with pytest.warns(UserWarning, match="6 of 10"):
        before = settings()
        # It would change the filters of other threads, too.
        monkeypatch.setattr(warnings, "catch_warnings", None)
        load_image_files(damaged, cache=damaged.parent / "cache")
        monkeypatch.undo()
        assert settings() == before


def test_truncated_files_are_read_where_the_user_lets_pillow_do_so(
    damaged, monkeypatch
):
    cache = damaged.parent / "cache"
    with pytest.warns(UserWarning, match="6 of 10"):
        load_image_files(damaged, cache=cache)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.warns(UserWarning, match="4 of 10"):
        data = load_image_files(damaged, cache=cache)
    assert names(data, damaged)[2:4] == ["cat/cut.jpg", "cat/cut.png"]


# The cache


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "a" / "cache"


def test_the_second_call_decodes_nothing(pets, cache, decoded):
    plain = load_image_files(pets)
    del decoded[:]
    first = load_image_files(pets, cache=cache)
    assert sorted(decoded) == ["10.png", "20.png", "30.png", "40.png"]
    second = load_image_files(pets, cache=str(cache))
    assert len(decoded) == 4
    (entry,) = cache.iterdir()
    assert entry.suffix == ".images"
    for data in (first, second):
        assert isinstance(data.images, np.memmap)
        assert data.images.mode == "r"
        assert Path(data.images.filename) == entry
        assert not data.images.flags.writeable
        for key in ("images", "target", "filenames"):
            assert_array_equal(data[key], plain[key])
        with pytest.raises(ValueError, match="read-only"):
            data.images[0] = 0


def test_rows_that_are_left_out_are_left_out_of_the_cache(damaged, cache, decoded):
    for n_decoded in (10, 16):  # what could not be read is tried again, for the reason
        with pytest.warns(UserWarning, match=r"6 of 10.*cut\.jpg' \(OSError: image"):
            data = load_image_files(damaged, cache=cache)
        assert len(decoded) == n_decoded
        assert data.images[:, 0, 0, 0].tolist() == [10, 20, 30, 40]
        assert data.target.tolist() == ["cat", "cat", "dog", "unlabelled"]
    assert len(list(cache.iterdir())) == 1


def test_a_file_that_can_be_read_by_now_is_in_it(pets, cache):
    path = pets / "dog" / "45.png"
    path.symlink_to(pets / "later.txt")
    with pytest.warns(UserWarning, match="1 of 5"):
        load_image_files(pets, cache=cache)
    key, images_key = "same", image_cache.images_key
    with pytest.MonkeyPatch.context() as patch:  # as after a change of permissions
        patch.setattr("skssl._image_files.images_key", lambda *_: key)
        with pytest.warns(UserWarning, match="1 of 5"):
            load_image_files(pets, cache=cache)
        save(pets / "45.png").rename(pets / "later.txt")
        data = load_image_files(pets, cache=cache)
        assert_array_equal(load_image_files(pets, cache=cache).images, data.images)
    assert data.images[:, 0, 0, 0].tolist() == [10, 20, 30, 100, 40]
    assert images_key(str(pets), [], 0) != images_key(str(pets), [], 1)


def change_content(pets):
    path = pets / "cat" / "10.png"
    time = path.stat().st_mtime_ns
    save(path, noise(8, 8))
    os.utime(path, ns=(time, time))


def change_time(pets):
    path = pets / "cat" / "10.png"
    time = path.stat().st_mtime_ns
    os.utime(path, ns=(time, time + 1))


def add(pets):
    save(pets / "cat" / "15.png")


def rename(pets):
    (pets / "cat" / "10.png").rename(pets / "cat" / "11.png")


def relabel(pets):
    (pets / "cat").rename(pets / "lion")


def remove(pets):
    (pets / "cat" / "10.png").unlink()


@pytest.mark.parametrize(
    "change", [change_content, change_time, add, rename, relabel, remove]
)
def test_changed_files_are_decoded_anew(pets, cache, decoded, change):
    load_image_files(pets, cache=cache)
    change(pets)
    del decoded[:]
    data = load_image_files(pets, cache=cache)
    assert len(decoded) == len(data.images)
    assert_array_equal(data.images, load_image_files(pets).images)


@pytest.mark.parametrize(
    "params",
    [{"image_shape": (32, 32)}, {"color": "grayscale"}, {"resize": "pad"}],
)
def test_other_parameters_make_another_file(pets, cache, decoded, params):
    load_image_files(pets, cache=cache)
    data = load_image_files(pets, cache=cache, **params)
    assert len(decoded) == 8
    assert_array_equal(data.images, load_image_files(pets, **params).images)
    load_image_files(pets, cache=cache)
    load_image_files(pets, cache=cache, on_error="raise")
    assert len(decoded) == 12


def test_another_version_makes_another_file(pets, cache, decoded, monkeypatch):
    load_image_files(pets, cache=cache)
    monkeypatch.setattr(decoding, "DECODING_VERSION", 0)
    load_image_files(pets, cache=cache)
    monkeypatch.setattr("PIL.__version__", "0")
    load_image_files(pets, cache=cache)
    assert len(decoded) == 12
    assert len(list(cache.iterdir())) == 3


def test_equal_names_sizes_and_times_in_another_folder(pets, cache):
    other = pets.parent / "others"
    for path in pets.rglob("*.png"):
        copy = save(other / path.relative_to(pets))
        for file in (path, copy):
            file.write_bytes(file.read_bytes().ljust(200))
            os.utime(file, ns=(0, 0))
    assert load_image_files(pets, cache=cache).images[0, 0, 0, 0] == 10
    assert load_image_files(other, cache=cache).images[0, 0, 0, 0] == 100


@pytest.mark.parametrize("n_bytes", [0, 3, 100, -1])
def test_a_file_of_another_length_is_written_anew(pets, cache, n_bytes):
    images = np.array(load_image_files(pets, cache=cache).images)
    (entry,) = cache.iterdir()
    content = entry.read_bytes()
    entry.write_bytes(content[:n_bytes] if n_bytes >= 0 else content + b"\1")
    assert_array_equal(load_image_files(pets, cache=cache).images, images)
    assert entry.read_bytes() == content


LOAD = """
import os, signal, sys, time
from skssl import load_image_files
from skssl._data.decoding import Decoding

folder, cache, killed = sys.argv[1:]
decode = Decoding.decode

def slow(self, path):
    if killed == "killed" and path.endswith("30.png"):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return decode(self, path)

Decoding.decode = slow
print("ready", flush=True)
sys.stdin.readline()
images = load_image_files(folder, cache=cache).images
print(images[:, 0, 0, 0].tolist(), images.mode)
"""


def load_in_a_process(*arguments):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", LOAD, *arguments], **pipes)


def let_go(processes):
    """Let them start to load, once all of them have imported what they need."""
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate()[0] for process in processes]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_what_a_killed_process_left_does_no_harm(pets, cache):
    process = load_in_a_process(pets, cache, "killed")
    let_go([process])
    assert process.returncode == -signal.SIGKILL
    (leftover,) = cache.iterdir()
    assert leftover.suffix == ".tmp"
    data = load_image_files(pets, cache=cache)
    assert data.images[:, 0, 0, 0].tolist() == [10, 20, 30, 40]
    assert leftover.exists()  # another process might still write it
    os.utime(leftover, (0, 0))
    load_image_files(pets, cache=cache)
    assert [path.suffix for path in cache.iterdir()] == [".images"]


def test_two_processes_at_once(pets, cache):
    processes = [load_in_a_process(pets, cache, "not") for _ in range(2)]
    assert let_go(processes) == ["[10, 20, 30, 40] r\n"] * 2
    assert [path.suffix for path in cache.iterdir()] == [".images"]


def test_an_interrupted_call_leaves_nothing(pets, cache, monkeypatch):
    def interrupted(file):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_image_files(pets, cache=cache)
    assert list(cache.iterdir()) == []


def test_another_process_wrote_it_last(pets, cache, monkeypatch):
    def replace(temporary, path):
        data = bytearray(Path(temporary).read_bytes())
        size = 64 * 64 * 3
        Path(path).write_bytes(data[size:-4] + bytes([0, 1, 1, 1]))
        Path(temporary).unlink()

    monkeypatch.setattr(os, "replace", replace)
    with pytest.warns(UserWarning, match=r"'cat/10\.png' \(unknown to this process\)"):
        data = load_image_files(pets, cache=cache)
    assert data.images[:, 0, 0, 0].tolist() == [20, 30, 40]
    assert names(data, pets)[0] == "cat/20.png"


def test_a_cache_that_cannot_be_written(pets):
    with pytest.raises(OSError, match=r"30\.png"):
        load_image_files(pets, cache=pets / "dog" / "30.png")


# The transformer


def flat():
    return FunctionTransformer(lambda images: images.reshape(len(images), -1) / 255)


def test_paths_of_every_kind(pets):
    data = load_image_files(pets, (6, 5), color="grayscale", resize="pad")
    reader = ImageReader((6, 5), color="grayscale", resize="pad")
    texts = data.filenames.tolist()
    inputs = [
        texts,
        tuple(map(Path, texts)),
        data.filenames,
        np.array(texts, dtype=object)[:, np.newaxis],
        pd.Series(texts, index=[7, 7, 8, 9]),
        pd.Series(texts, dtype="category"),
        pd.DataFrame({"path": map(Path, texts)}),
    ]
    for X in inputs:
        images = reader.fit(X).transform(X)
        assert images.dtype == np.uint8
        assert_array_equal(images, data.images)
    assert_array_equal(reader.set_params(n_jobs=2).fit_transform(texts), data.images)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ("a.png", TypeError, r"got the path 'a\.png'. Give one path as \[path\]"),
        (Path("a.png"), TypeError, "Give one path as"),
        ([], ValueError, r"at least one path.*got shape \(0,\)"),
        ([["a.png", "b.png"]], ValueError, r"one column, got shape \(1, 2\)"),
        (iter(["a.png"]), ValueError, r"got shape \(\)\..*list\(X\)"),
        (["a.png", None], TypeError, "got None of type NoneType in row 1"),
        ([b"a.png"], TypeError, r"got b'a\.png' of type bytes in row 0"),
        (np.zeros((2, 1)), TypeError, r"got 0\.0 of type float in row 0"),
    ],
)
def test_what_are_no_paths(X, error, message):
    for method in ("fit", "transform"):
        with pytest.raises(error, match=message):
            getattr(ImageReader(), method)(X)


def test_a_file_that_cannot_be_read_is_an_error_with_its_name(damaged):
    good = damaged / "cat" / "10.png"
    for name, why in [
        ("cat/cut.jpg", "OSError: image file is truncated"),
        ("dog/text.jpg", "Pillow knows no image format like it"),
        ("dog/none.png", "No such file or directory"),
        ("dog", "Is a directory"),
    ]:
        with pytest.raises(ValueError, match=f"{name}' cannot be read: {why}") as error:
            ImageReader().transform([good, damaged / name, good])
        assert error.value.__cause__ is not None


def test_all_formats_are_known_before_threads_start(tmp_path, monkeypatch, decoded):
    def init():
        assert decoded == []
        calls.append("init")

    calls, path = [], save(tmp_path / "a.tif")
    monkeypatch.setattr(Image, "init", init)
    read(path)
    assert calls == ["init"]


def test_in_a_pipeline_and_in_cross_validation(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(10):
        save(tmp_path / "day" / f"{k}.png", rng.integers(150, 250, (9, 9), np.uint8))
        save(tmp_path / "night" / f"{k}.jpg", rng.integers(0, 100, (9, 9), np.uint8))
    data = load_image_files(tmp_path)
    pipeline = make_pipeline(ImageReader((8, 8)), flat(), LogisticRegression())
    for X in (
        data.filenames,
        list(map(Path, data.filenames)),
        pd.DataFrame({"path": data.filenames}),
    ):
        assert cross_val_score(pipeline, X, data.target, cv=2).tolist() == [1, 1]
    pipeline.fit(data.filenames, data.target)
    assert pipeline.predict([tmp_path / "day" / "3.png"]).tolist() == ["day"]


def test_it_is_cloned_pickled_and_stateless(pets):
    shape = [8, 8]
    reader = ImageReader(shape, color="grayscale", resize="stretch", n_jobs=1)
    copy = clone(reader)
    assert copy.get_params() == reader.get_params()
    assert reader.image_shape is shape
    X = [pets / "dog" / "30.png"]
    images = reader.transform(X)  # without fit
    loaded = pickle.loads(pickle.dumps(reader.fit(X)))
    assert_array_equal(loaded.transform(X), images)
    assert vars(reader) == reader.get_params()
    with pytest.raises(ValueError, match="n_jobs == 0"):
        reader.set_params(n_jobs=0).transform(X)


def test_tags_and_the_checks_of_scikit_learn_for_any_input():
    tags = get_tags(ImageReader())
    assert not tags.requires_fit
    assert tags.input_tags.string
    assert tags.input_tags.one_d_array
    assert not tags.input_tags.two_d_array
    with pytest.warns(SkipTestWarning, match="one_d_array=True"):
        check_estimator(ImageReader())
