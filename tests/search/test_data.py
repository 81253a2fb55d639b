"""Loaders, and that errors name the path."""

import gzip
import struct

import numpy as np
import pytest
import torch

from mpcompile.errors import UsageError
from mpcompile.search import data
from mpcompile.search.digits import digits

RNG = np.random.default_rng(0)


def idx(array) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_idx(folder, compress=False, count=20):
    wanted = {}
    for part in ("train", "t10k"):
        pixels, labels = RNG.integers(0, 256, (count, 8, 8)), np.arange(count) % 10
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            raw = idx(array)
            name = folder / f"{part}-{kind}-ubyte{'.gz' if compress else ''}"
            name.write_bytes(gzip.compress(raw) if compress else raw)
        wanted[part] = pixels
    return wanted


def test_digits():
    found = data.load(side=32, train=100, test=50)
    assert found.train.pixels.shape == (100, 1, 32, 32) and found.train.pixels.dtype == torch.uint8
    assert len(found.test) == 50 and found.classes == 10 and found.train.pixels.max() > 200
    assert (
        found.fingerprint
        == data.load(side=32, train=100, test=50).fingerprint
        != data.load(side=32, train=99, test=50).fingerprint
    )


def test_scenes_depend_on_their_number_alone_and_none_is_there_twice():
    (some, labels), (test, _) = digits(30, 20)
    (more, more_labels), _ = digits(1437 + 30, 1)
    assert np.array_equal(more[:30], some) and np.array_equal(more_labels[:30], labels)
    assert np.array_equal(more_labels[1437:], labels) and not np.array_equal(more[1437:], some)  # the same digits again
    assert len({image.tobytes() for image in (*more, *test)}) == len(more) + len(test)


@pytest.mark.parametrize("compress", [False, True])
def test_idx_files(tmp_path, compress):
    wanted = write_idx(tmp_path, compress)
    found = data.load(tmp_path, side=8)
    np.testing.assert_array_equal(found.train.pixels[:, 0].numpy(), wanted["train"])
    np.testing.assert_array_equal(found.test.pixels[:, 0].numpy(), wanted["t10k"])


def test_cifar_files(tmp_path):
    records = RNG.integers(0, 256, (5, 4, 3073)).astype(np.uint8)
    records[:, :, 0] %= 10
    for n in range(5):
        (tmp_path / f"data_batch_{n + 1}.bin").write_bytes(records[n].tobytes())
    (tmp_path / "test_batch.bin").write_bytes(records[0].tobytes())
    found = data.load(tmp_path)
    assert found.train.pixels.shape == (20, 3, 32, 32)
    np.testing.assert_array_equal(found.train.pixels.numpy().reshape(20, -1), records.reshape(20, -1)[:, 1:])
    np.testing.assert_array_equal(found.train.labels.numpy(), records.reshape(20, -1)[:, 0])
    (tmp_path / "data_batch_3.bin").write_bytes(b"\0" * 100)
    with pytest.raises(UsageError, match="data_batch_3.bin"):
        data.load(tmp_path)


@pytest.mark.parametrize(
    "names",
    [("train_images", "train_labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test")],
)
def test_npz(tmp_path, names):
    arrays = [RNG.integers(0, 256, (9, 8, 8, 3)).astype(np.uint8), np.arange(9)] * 2
    np.savez(tmp_path / "set.npz", **dict(zip(names, arrays)))
    found = data.load(tmp_path / "set.npz", side=8, train=5)
    assert found.train.pixels.shape == (5, 3, 8, 8) and found.classes == 9 and len(found.test) == 9
    np.testing.assert_array_equal(found.test.pixels.numpy(), arrays[0].transpose(0, 3, 1, 2))


def test_image_folders(tmp_path):
    from PIL import Image

    for part in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for n in range(3):
                Image.new("RGB", (12, 10), (200 * label, n, 0)).save(tmp_path / part / name / f"{n}.png")
    found = data.load(tmp_path, side=8)
    assert found.train.pixels.shape == (6, 3, 8, 8) and found.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.train.pixels[:, 0].float().mean((1, 2)).tolist() == [0, 0, 0, 200, 200, 200]
    (tmp_path / "val" / "dog" / "1.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match="1.png"):
        data.load(tmp_path)


def test_enlarging_keeps_what_is_flat_and_where_things_are():
    pixels = np.zeros((2, 8, 8), np.uint8)
    pixels[0], pixels[1, :4] = 77, 200
    found = data._images(pixels, np.arange(2), 32, None, "here").pixels
    assert (found[0] == 77).all() and (found[1, 0, :12] == 200).all() and (found[1, 0, 20:] == 0).all()


@pytest.mark.parametrize(
    "make, named",
    [
        (lambda p: None, "there is no data set"),
        (lambda p: p.mkdir(), "has no train-images-idx3-ubyte"),
        (lambda p: (p.mkdir(), (p / "train").mkdir()), "neither test/ nor val/"),
        (lambda p: (p.mkdir(), (p / "data_batch_1").write_text("")), "pickle"),
        (lambda p: p.write_text("x"), "no data set"),
        (
            lambda p: (p.mkdir(), write_idx(p), (p / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03abc")),
            "train-images-idx3-ubyte is no IDX",
        ),
        (
            lambda p: (p.mkdir(), write_idx(p, True), (p / "t10k-labels-idx1-ubyte.gz").write_bytes(b"junk")),
            "t10k-labels-idx1-ubyte.gz",
        ),
    ],
)
def test_errors_name_the_path(tmp_path, make, named):
    path = tmp_path / "set"
    make(path)
    with pytest.raises(UsageError, match=str(path)) as caught:
        data.load(path)
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_npz(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, train_images=np.zeros((3, 8, 8)))
    for content in (path.read_bytes(), path.read_bytes()[:50], b"junk"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=str(path)):
            data.load(path)


def test_split_is_disjoint_and_whole():
    images = data.Images(torch.arange(40, dtype=torch.uint8).reshape(10, 1, 2, 2), torch.arange(10))
    first, second = images.split(0.3, seed=4)
    assert len(second) == 3 and sorted(torch.cat([first.labels, second.labels]).tolist()) == list(range(10))
    assert (
        second.labels.tolist()
        == images.split(0.3, seed=4)[1].labels.tolist()
        != images.split(0.3, seed=5)[1].labels.tolist()
    )


def test_shifts_move_whole_images():
    pixels = torch.zeros(30, 1, 9, 9, dtype=torch.uint8)
    pixels[:, 0, 4, 4] = 9
    moved = data.shifted(pixels, 2, torch.Generator().manual_seed(0))
    places = {tuple(p) for p in moved.nonzero()[:, 2:].tolist()}
    assert (moved.sum((1, 2, 3)) == 9).all() and len(places) > 10
    assert all(2 <= y <= 6 and 2 <= x <= 6 for y, x in places)
