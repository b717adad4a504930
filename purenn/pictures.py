"""Small pictures of numbers, as HTML: an image of each sign and size, and a histogram."""

import base64
import struct
import zlib
from typing import Any

from purenn.arrays import as_numpy, is_float, magnitude, namespace
from purenn.trees import not_finite

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
    v = as_numpy(values).astype(float) / magnitude(values)
    above = v - v.min()
    bins = (above / (above.max() or 1) * 16).astype(int).clip(max=15)
    counts = [int((bins == k).sum()) for k in range(16)]
    bars = "".join(f"M{4 * k},16h3v{-16 * count / max(counts):.1f}h-3z" for k, count in enumerate(counts))
    return f'<svg width="64" height="16"><path fill="currentColor" d="{bars}"/></svg>'
