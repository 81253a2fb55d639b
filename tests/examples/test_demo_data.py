"""The demo's images: every file format it takes, and one clear line where a file is damaged."""

import gzip

import numpy as np
import pytest

from mpcompile.errors import UsageError

rng = np.random.default_rng(3)


@pytest.fixture
def data(demo_path):
    import data

    return data


def idx_file(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def idx_folder(folder, packed: bool):
    sets = {
        part: (rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.uint8))
        for part, n in (("train", 5), ("t10k", 3))
    }
    for part, (images, labels) in sets.items():
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            raw = idx_file(array)
            (folder / f"{part}-{kind}-ubyte{'.gz' * packed}").write_bytes(gzip.compress(raw) if packed else raw)
    return sets


def test_digits_are_real_images_of_ten_classes(data):
    d = data.load(None)
    assert d.train[0].shape == (1437, 1, 32, 32) and d.test[0].shape == (360, 1, 32, 32)
    assert set(d.train[1]) == set(d.test[1]) == set(range(10)) and d.classes == 10
    assert not {i.tobytes() for i in d.train[0]} & {i.tobytes() for i in d.test[0]}


@pytest.mark.parametrize("packed", [False, True])
def test_idx(data, tmp_path, packed):
    sets = idx_folder(tmp_path, packed)
    d = data.load(tmp_path, images=4)
    assert np.array_equal(d.train[1], sets["train"][1][:4]) and np.array_equal(d.test[1], sets["t10k"][1])
    assert np.array_equal(d.train[0], data.enlarge(sets["train"][0][:4, None]))


def test_cifar(data, tmp_path):
    records = rng.integers(0, 10, (6, 2, 3073), np.uint8)
    for name, part in zip([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"], records):
        (tmp_path / name).write_bytes(part.tobytes())
    d = data.load(tmp_path)
    assert d.channels == 3 and len(d.train[0]) == 10 and len(d.test[0]) == 2
    assert np.array_equal(d.test[0].reshape(2, -1), records[5, :, 1:]) and np.array_equal(d.test[1], records[5, :, 0])


def test_npz(data, tmp_path):
    arrays = {
        "train_images": rng.integers(0, 256, (4, 32, 32, 3), np.uint8),
        "train_labels": np.arange(4),
        "test_images": rng.integers(0, 256, (2, 32, 32, 3), np.uint8),
        "test_labels": np.arange(2),
    }
    np.savez(tmp_path / "mine.npz", **arrays)
    d = data.load(tmp_path / "mine.npz")
    assert d.name == "mine" and d.classes == 4
    assert np.array_equal(d.train[0].transpose(0, 2, 3, 1), arrays["train_images"])


@pytest.mark.parametrize("side", [8, 28, 48])
def test_enlarge_is_bilinear(data, side):
    torch = pytest.importorskip("torch")
    images = rng.integers(0, 256, (2, 3, side, side), np.uint8)
    expected = torch.nn.functional.interpolate(torch.from_numpy(images).double(), (32, 32), mode="bilinear").numpy()
    assert np.abs(data.enlarge(images) - expected).max() <= 0.5 + 1e-3


def test_damaged_sets_are_named(data, tmp_path):
    with pytest.raises(UsageError, match="nowhere is neither"):
        data.load(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="has no train-images-idx3-ubyte"):
        data.load(tmp_path)
    idx_folder(tmp_path, packed=False)
    cut = tmp_path / "t10k-images-idx3-ubyte"
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(UsageError, match="t10k-images-idx3-ubyte is no IDX file"):
        data.load(tmp_path)
    np.savez(tmp_path / "half.npz", train_images=np.zeros((1, 8, 8), np.uint8), train_labels=np.zeros(1))
    with pytest.raises(UsageError, match="half.npz has no array"):
        data.load(tmp_path / "half.npz")


@pytest.mark.parametrize("name, content", [("cut.npz", b"PK\3\4 cut"), ("text.npz", b"hello")])
def test_a_damaged_npz_is_one_line(data, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name} cannot be read") as found:
        data.load(tmp_path / name)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"train_images": np.zeros((4, 8, 8), np.float32)}, "train images are float32"),
        ({"test_labels": np.zeros(3, np.int64)}, "test images are uint8 .* with labels"),
        ({"test_labels": np.array([0, -1])}, "test labels are no whole numbers"),
    ],
)
def test_arrays_that_do_not_fit(data, tmp_path, change, message):
    good = {
        "train_images": np.zeros((4, 8, 8), np.uint8),
        "train_labels": np.zeros(4, np.int64),
        "test_images": np.zeros((2, 8, 8), np.uint8),
        "test_labels": np.zeros(2, np.int64),
    }
    np.savez(tmp_path / "mine.npz", **good | change)
    with pytest.raises(UsageError, match=message):
        data.load(tmp_path / "mine.npz")


def test_a_cut_cifar_file(data, tmp_path):
    for i in range(1, 6):
        (tmp_path / f"data_batch_{i}.bin").write_bytes(bytes(3073))
    (tmp_path / "test_batch.bin").write_bytes(bytes(3000))
    with pytest.raises(UsageError, match="cannot be read"):
        data.load(tmp_path)
