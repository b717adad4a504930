"""Pictures of trees, numbers and inspections in HTML."""

import base64
import re
import struct
import zlib

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn
from purenn.pictures import histogram
from tests.toys import Flip, Holder


def pixels(page):
    """The pixels of all pictures of a page, as palette indices."""
    for source in re.findall(r'src="data:image/png;base64,([^"]+)"', page):
        png = base64.b64decode(source)
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        chunks, at = {}, 8
        while at < len(png):
            (length,) = struct.unpack(">I", png[at : at + 4])
            name, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
            assert struct.unpack(">I", png[at + 8 + length : at + 12 + length]) == (zlib.crc32(name + data),)
            chunks[name], at = data, at + 12 + length
        assert chunks[b"IHDR"][8:] == bytes([8, 3, 0, 0, 0])  # 8 bits for each pixel, of a palette
        width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
        assert len(chunks[b"PLTE"]) == 3 * len(chunks[b"tRNS"]) == 3 * 34
        rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
        assert not rows[:, 0].any() and rows.max() < 34
        yield rows[:, 1:].astype(int)


def test_pictures_show_signs_sizes_and_what_is_not_finite():
    (picture,) = pixels(nn.html(np.asarray([[-2.0, 0.0, 2.0], [1.0, np.nan, -np.inf]])))
    assert picture.tolist() == [[0, 16, 32], [24, 33, 33]]
    text = nn.html(np.asarray([[-2.0, 0.0, 2.0], [1.0, np.nan, -np.inf]]))
    assert "f64[2,3] -2 … 0.25 … 2 <mark>2 not finite</mark>" in text
    assert "<mark>" not in nn.html(np.ones(3))
    assert "f32[4] 3e+38 … 3e+38 … 3e+38" in nn.html(np.full(4, 3e38, np.float32)) and '<img height="8"' in nn.html(
        np.ones(3)
    )
    assert "f64[2] <mark>2 not finite</mark></div>" in nn.html(np.full(2, np.nan))
    for array in (np.zeros((0, 3)), np.asarray("text"), np.ones(2, complex)):
        assert "<img" not in nn.html(array)
    assert "f32[] 2.5" in nn.html(np.float32(2.5)[None].reshape(())) and "bool[2]" in nn.html(np.asarray([True, False]))


def test_first_weights_are_images_and_digits_have_labels():
    params = nn.init(0, (64, 10, 9), (nn.tanh, nn.softmax))
    first, *_ = pixels(params._repr_html_())
    assert first.shape == (18, 72)
    tile = np.round(16 * params.layers[0].weights[:, 0] / abs(params.layers[0].weights).max()).reshape(8, 8) + 16
    for fan_in in (4, 8):  # not images of at least 4 by 4 pixels
        assert next(pixels(nn.html(nn.init(0, (fan_in, 3, 2), (nn.relu, nn.relu))))).shape == (fan_in, 3)
    wide, narrow = nn.init(0, (64, 16, 9), (nn.relu, nn.relu)).layers
    assert next(pixels(nn.html(nn.Params((nn.Params((wide,)), narrow))))).shape == (18, 72)
    assert [picture.shape for picture in pixels(nn.html(nn.Params((wide, nn.Params((narrow,))))))][2] == (16, 9)
    assert first[:8, :8].tolist() == tile.tolist() and (first[8] == 16).all() and (first[9:, 18:] == 16).all()
    data = nn.mnist.digits()
    labels = re.findall(r"<figcaption>(\d)</figcaption>", nn.html(data))
    assert labels == [str(label) for label in data.train_labels[:20]]
    digit = next(pixels(nn.html(data)))
    image = data.train_images[0].reshape(8, 8)
    assert digit.tolist() == (np.round(16 * (image / image.max())) + 16).tolist()


TREES = {
    "script": {"<script>alert(1)</script>": Holder((np.ones(2), "</details><script>"), "<b>&\"'")},
    "many arrays": tuple(np.random.default_rng(0).standard_normal((300, 60, 60))),
    "many leaves": list(range(100_000)),
    "deep": None,
    "long": {"x" * 1_000_000: "y" * 1_000_000, "z": Holder(None, "t" * 1_000_000)},
    "large": np.random.default_rng(0).standard_normal((2_000, 2_000)),
    "first weights": nn.init(0, (784, 300, 10), (nn.tanh, nn.softmax)),
    "layers": nn.init(0, [8] * 400, [nn.relu] * 399),
    "inspection": nn.inspect(nn.init(0, [8] * 400, [nn.relu] * 399), np.ones((9, 8), np.float32)),
    "emoji": {"😀" * 80 + str(number): "😀" * 100 for number in range(2_000)},
    "mixed": (
        *np.random.default_rng(0).standard_normal((34, 48, 48)),
        nn.inspect(nn.init(0, [8] * 99, [nn.relu] * 98), np.ones((9, 8), np.float32)),
    ),
    "surrogates": {"\ud800": "\udfff\0"},
    "nothing": (
        nn.tree_map(np.mean, nn.mnist.digits()),
        nn.tree_map(lambda a: a[:, ::2] if a.ndim == 2 else a, nn.mnist.digits()),
        np.ma.ones(3),
        np.full((2, 2), np.nan),
    ),
    "huge": np.asarray([1.7e308, -1.7e308, 5e-324, 0]),
}
for _ in range(500):
    TREES["deep"] = (TREES["deep"], 1)


@pytest.mark.parametrize("name", TREES)
def test_pages_are_small_well_formed_and_escaped(name):
    page = nn.html(TREES[name])
    assert len(page.encode()) <= 100_000
    assert "<script" not in page
    for tag in ("div", "details", "summary", "table", "tr", "td", "th", "figure", "mark", "b", "svg"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag
    assert all(picture.size < 20_000 for picture in pixels(page))
    assert ("…</" in page) == (name in ("many arrays", "many leaves", "deep", "layers", "inspection", "emoji", "mixed"))
    assert ("prediction" in page) == ("inspection" in name)


@pytest.mark.parametrize(
    "tree", [nn.Dropout(0.5), nn.Params((nn.Dropout(0.5), Holder(()))), (), {}, None, nn.relu, Flip()]
)
def test_trees_without_arrays_have_pictures(tree):
    assert "<b>a</b> 2<" in nn.html({"b": 1, "a": 2}) and "<b>b</b> 1<" in nn.html({"b": 1, "a": 2})
    page = nn.html({"b": tree, "a": tree})
    assert page.count(type(tree).__name__) >= 2 or tree is None or tree is nn.relu
    assert page.count("rate=0.5") == 2 * repr(tree).count("Dropout")


@given(st.lists(st.integers(0, 9), min_size=16, max_size=16), st.sampled_from([-8, -3, 0, 5]))
def test_a_bar_is_as_high_as_its_count(counts, start):
    counts[0], counts[-1] = counts[0] + 1, counts[-1] + 1  # so that the values reach from end to end
    values = np.repeat(np.arange(16) + start + 0.5, counts)
    values[0], values[-1] = start, start + 16
    heights = re.findall(r"v(-?[0-9.]+)h-3z", histogram(values))
    assert [float(height) for height in heights] == [round(-16 * count / max(counts), 1) for count in counts]


def test_every_record_has_its_picture_and_inspections_their_histograms():
    assert Holder(None)._repr_html_() == nn.html(Holder(None))
    own = nn.record(type("Own", (), {"__annotations__": {"name": str}, "_repr_html_": lambda self: "mine"}))
    assert own("x")._repr_html_() == "mine"
    inspection = nn.inspect(nn.init(0, (4, 3, 2), (nn.tanh, nn.softmax)), np.eye(4, dtype=np.float32), np.arange(4) % 2)
    page = inspection._repr_html_()
    two = nn.html(nn.inspect(nn.Dense(np.eye(1), np.zeros(1), nn.identity), np.asarray([[0.0], [1.0]])))
    assert "M0,16h3v-16.0h-3zM4,16h3v0.0" in two.replace("-0.0", "0.0") and "M60,16h3v-16.0h-3z" in two
    assert page.count("<svg") == 3 and "<th>dead</th>" in page and "<td>Dense tanh</td>" in page
    assert "<svg" not in nn.html(nn.inspect(inspection.rows[0].layer, np.full((2, 4), np.nan, np.float32)))
    assert "f16[70000] 1 … 1 … 1<" in nn.html(np.ones(70_000, np.float16))
    there = nn.tree_map(strict.asarray, nn.init(0, (4, 3), [nn.softmax]))
    assert nn.html(there) == nn.html(nn.init(0, (4, 3), [nn.softmax]))
    assert str(nn.inspect(there, strict.ones((2, 4), dtype=strict.float32))).count("\n") == 3
