"""Pictures in HTML: of any tree, of numbers, of an inspection.

Importing this module gives every record its picture in notebooks, as ``purenn.jax`` makes every record a pytree.
"""

import base64
import math
import struct
import zlib
from html import escape
from typing import Any

import numpy as np

from purenn.arguments import as_floats, brief
from purenn.arrays import has_kind, is_array, is_float, is_numpy, namespace
from purenn.inspection import Inspection, magnitude, not_finite, summary, table
from purenn.records import for_every_record
from purenn.trees import Tree, fields_of, kinds

COLOURS = b"\x3b\x8b\xd9" * 17 + b"\xe6\x76\x10" * 16 + b"\xe8\xd0\x00"  # blue, orange; yellow: not finite
OPACITIES = bytes([*(round(255 * abs(level - 16) / 16) for level in range(33)), 255])


def image(tiles: Any) -> str:
    """Return pictures ``(n, height, width)``, eight in a row, as one PNG (Portable Network Graphics, section 11)."""
    xp, tiles = namespace(tiles), tiles[:, :: -(-tiles.shape[1] // 48), :: -(-tiles.shape[2] // 48)]
    levels = xp.where(xp.isfinite(tiles), xp.round(16 * (tiles / magnitude(tiles))) + 16, 33).astype("uint8")
    columns, gap = min(len(levels), 8), int(len(levels) > 1)
    padded = xp.pad(levels, ((0, -len(levels) % columns), (0, gap), (0, gap)), constant_values=16)
    _, height, width = padded.shape
    pixels = xp.moveaxis(padded.reshape(-1, columns, height, width), 2, 1).reshape(-1, columns * width)
    header = struct.pack(">IIBBBBB", pixels.shape[1], len(pixels), 8, 3, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels), 9)  # each row begins with its filter: none
    chunks = ((b"IHDR", header), (b"PLTE", COLOURS), (b"tRNS", OPACITIES), (b"IDAT", data), (b"IEND", b""))
    png = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    source = base64.b64encode(b"\x89PNG\r\n\x1a\n" + png).decode()
    return f'<img height="{len(pixels) * max(1, min(8, 144 // len(pixels)))}" src="data:image/png;base64,{source}">'


def histogram(values: Any) -> str:
    """Return a histogram of 16 bars, drawn by one path."""
    if not is_float(values) or not_finite(values) or 0 in values.shape:
        return ""
    v = np.asarray(values).astype(float) / magnitude(values)
    counts = np.bincount(((v - v.min()) / (np.ptp(v) or 1) * 16).astype(int).clip(max=15).ravel(), minlength=16)
    bars = "".join(f"M{4 * k},16h3v{-16 * count / max(counts):.1f}h-3z" for k, count in enumerate(counts))
    return f'<svg width="64" height="16"><path fill="currentColor" d="{bars}"/></svg>'


# Pictures for notebooks

_STYLE = """<style>.purenn{font:12px monospace;overflow:auto}.purenn details>*{margin-left:1.5em}
.purenn img{image-rendering:pixelated;vertical-align:middle;outline:1px solid #8885}
.purenn figure{display:inline-block;margin:4px;text-align:center}.purenn mark{background:#e8d000;color:#000}
.purenn td,.purenn th{padding:1px 8px;white-space:pre;text-align:left}
.purenn table{color:inherit;font:inherit}</style>"""


def html(tree: Tree) -> str:
    """Return a picture of a tree in HTML, at most 100 KB: what a notebook shows for a record.

    The tree can be folded. An array is shown with its dtype, shape, smallest, mean and largest value, the number of
    values that are not finite, and a picture: negative numbers are blue, positive ones orange, the largest magnitude is
    the strongest colour, and what is not finite is yellow. Of a large array, evenly spaced rows and columns are drawn.
    If the first layer of a network takes square images, its weights are drawn as images. A data set shows its first
    digits. An inspection shows its table, with histograms of the outputs.

    >>> import purenn as nn
    >>> nn.html("a < b").endswith("<div>&#x27;a &lt; b&#x27;</div></div>")
    True
    """
    return f'<div class="purenn">{_STYLE}{_node("", tree, "", [80_000])}</div>'


def _node(name: str, value: Any, path: str, left: list[int]) -> str:
    """Return a node of a tree with its children; ``left`` holds the number of characters that may still come."""
    kind, children = kinds[type(value)], dict[str, Any]()
    text = f"<b>{escape(name[:80])}</b> " if name else ""
    if path.count(".") > 50:
        text += "…"
    elif kind is None:
        text += _leaf(value, path)
    elif isinstance(value, Inspection):
        text += _inspected(value)
    else:
        detail, values = kind.open(value)
        children = dict(zip(sorted(detail) if kind.fields is None else kind.fields, values, strict=True))
        fields = {} if kind.fields is None else fields_of(value)
        statics = [f"{key}={brief(field)}" for key, field in fields.items() if key not in children]
        what = f"{type(value).__name__} of {len(values)}" if kind.fields is None and values else type(value).__name__
        text += escape(f"{what} {', '.join(statics)}") + _digits(value)
    text = text.encode(errors="replace").decode()
    size = len(text.encode()) + 50  # for the tags
    text, left[0] = (text if size <= left[0] else "…"), left[0] - size
    parts = [_node(str(n), child, f"{path}.{n}", left) for n, child in children.items() if left[0] >= 0]
    parts += ["<div>…</div>"] * (len(parts) < len(children))
    return f"<details open><summary>{text}</summary>{''.join(parts)}</details>" if parts else f"<div>{text}</div>"


def _leaf(value: Any, path: str) -> str:
    text, v = escape(brief(value)), _real_numbers(value)
    if v is None:
        return text
    xp, bad, side = namespace(v), not_finite(v), math.isqrt(v.shape[0] if v.ndim else 0)
    if v.ndim and bad < v.size:
        finite = v[xp.isfinite(v)] if bad else v
        text += f" {finite.min():.3g} … {finite.mean(dtype=float):.3g} … {finite.max():.3g}"
    text += f" <mark>{bad:,} not finite</mark>" if bad else "" if v.ndim else f" {v:.3g}"
    tiles = v.reshape(1, -1, v.shape[-1] if v.ndim else 1)
    is_first = path.endswith(".weights") and {part.split(".")[0] for part in path.split(".layers.")[1:]} == {"0"}
    if v.ndim == 2 and 4 <= side == v.shape[0] / side and is_first:
        tiles = v.T.reshape(-1, side, side)[: max(1, min(64, 12_000 // side**2))]
    return f"{image(tiles)} {text}"


def _digits(data: Any) -> str:
    """Return the first images of a data set with their labels."""
    shape, names = getattr(data, "image_shape", None), ("train_images", "train_labels")
    images, labels = (_real_numbers(getattr(data, name, None)) for name in names)
    if images is None or labels is None or not shape or images.shape != (labels.size, math.prod(shape)):
        return ""
    digits = zip([image(pixels.reshape(1, *shape)) for pixels in images[:20]], map(int, labels), strict=False)
    return "<br>" + "".join(f"<figure>{digit}<figcaption>{label}</figcaption></figure>" for digit, label in digits)


def _inspected(inspection: Inspection) -> str:
    head, *rows = table(inspection)
    outputs = [histogram(row.output) for row in inspection.rows]
    lines = [[*(escape(cell[:80]) for cell in cells), bars] for cells, bars in zip(rows, outputs, strict=True)]
    lines[50:-1] = [["…"]] if len(lines) > 51 else lines[50:-1]
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in lines)
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{body}</table>{escape(summary(inspection))}"


def _picture_in_notebooks(cls: Any) -> None:
    """Let notebooks show records of a class by ``html``, unless it has its own ``_repr_html_``."""
    if not hasattr(cls, "_repr_html_"):
        cls._repr_html_ = html


for_every_record(_picture_in_notebooks)


def _real_numbers(value: Any) -> "np.ndarray | None":
    """Return an array of real numbers as NumPy's, of floats; None for anything else, or if it is empty."""
    try:
        if not is_array(value) or 0 in value.shape or not has_kind(value, "bool", "integral", "real floating"):
            return None
        return value if is_float(value) and is_numpy(value) else np.asarray(as_floats(value, "array"))
    except (TypeError, NotImplementedError):  # NumPy's subclasses, and what JAX traces
        return None
