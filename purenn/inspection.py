"""What happens inside a network: a table of its layers, a picture of any tree, and checks of gradients by differences.

Importing this module gives every record its picture in notebooks, as ``purenn.jax`` makes every record a pytree.
"""

import math
import sys
from collections.abc import Callable
from html import escape
from typing import Any, TypeVar, cast

from purenn import arrays, pictures, trees
from purenn.activations import Activation
from purenn.arrays import Array, astype, check_floats, check_real, describe, float64_of, generator, is_float, namespace
from purenn.dropout import seeded
from purenn.layers import checked_output, checked_pair, dense_vjp, forward, network_vjp, vjp
from purenn.losses import last_layer, logits, logits_vjp, output_of
from purenn.records import for_every_record, record
from purenn.trees import Tree, aligned, flatten, leaf_paths, namespace_of, ravel, tree_map, unflatten, with_children

T = TypeVar("T")

STEP = sys.float_info.epsilon ** (1 / 3)  # balances rounding and truncation in a central difference


def numerical_grads(f: Callable[[T], Any], tree: T) -> T:
    """Return the gradient of a function by central differences: slow, and independent of every derivative in purenn.

    Each entry is ``(f(p + h) - f(p - h)) / 2h`` with ``h = cbrt(eps) max(1, |p|)`` (Press et al. 2007, section 5.7),
    computed in float64. That takes two calls of ``f`` for each number in the tree. The error is about 1e-9 of the
    largest entry, except where a relu changes sides between ``p - h`` and ``p + h``. The result has the structure and
    the dtypes of ``tree``.

    Parameters
    ----------
    f : callable
        Takes a tree like ``tree``, but of float64, and returns a number, or a 0-d array.
    tree : tree
        At least one array, all of floats.

    Raises
    ------
    ValueError
        If the tree has no arrays, ``f`` does not return one number, or the array library has no float64, as JAX unless
        ``jax.config.update("jax_enable_x64", True)`` was called.
    TypeError
        If an array does not hold floats.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> layer, x, y = nn.Dense(np.zeros((1, 2)), np.zeros(2), nn.softmax), np.asarray([[3.0]]), np.asarray([0])
    >>> gradient = nn.numerical_grads(lambda p: nn.loss(p, x, y), layer)
    >>> np.round(gradient.weights, 6)
    array([[-1.5,  1.5]])
    """
    xp = namespace_of(arrays := aligned(tree=tree)[0])
    for array in arrays:
        check_floats(array)
    vector, unravel = ravel(_cast(tree, float64_of(xp)))

    def value(vector: Array) -> Array:
        number = xp.asarray(f(unravel(vector)))
        check_real(number, "what f returned")
        if number.shape != ():
            raise ValueError(f"f returned {describe(number)}, but must return a number")
        return xp.astype(number, xp.float64)

    steps = STEP * xp.maximum(xp.abs(vector), 1)
    quotients = []
    for entry in range(vector.shape[0]):
        step = xp.where(xp.arange(vector.shape[0]) == entry, steps, 0)
        quotients.append((value(vector + step) - value(vector - step)) / (2 * xp.sum(step)))
    return tree_map(lambda p, g: xp.astype(g, p.dtype), tree, unravel(xp.stack(quotients)))


def _cast(tree: T, dtype: Any) -> T:
    """Return a tree whose arrays of floats have another dtype."""
    return tree_map(lambda leaf: astype(leaf, dtype) if is_float(leaf) else leaf, tree)


def check_vjp(layer: trees.Layer, x: Tree) -> None:
    """Check the rule of a layer, or the pullback of an activation, against differences; raise if anything is wrong.

    For a random ``dy``, let ``s = sum(dy * forward(layer, x))``. Along a random direction ``v``, the central difference
    of ``s`` must equal ``sum(g * v)``, for each gradient ``g`` that the rule returns. A direction that crosses a kink,
    where the derivative jumps, is drawn anew; three of at most 20 must agree. This takes at least fifteen forward
    passes per array, in float64. The error allowed is ``1e-6 |g| + 1e-9 sum(|dy * y|)``, so a factor of 1.0001 is
    found. It also checks structures, shapes and dtypes, in the original dtype. The seed is fixed, so the same call
    gives the same result.

    Parameters
    ----------
    layer : any record registered with ``vjp.register``, or an Activation
    x : array
        What the layer takes: an array of any shape, or a tree of arrays. Integers and booleans have no gradient. If
        ``x`` holds only those, ``dx``, which returns the gradient of ``x``, is not called.

    Raises
    ------
    TypeError
        If the rule or the pullback does not return a pair, the gradient is of another class than the layer, or ``dx``
        is not callable.
    ValueError
        If the output is empty, not finite, or not that of ``forward``; if a gradient is wrong, or does not match the
        layer or ``x`` in structure, shape or dtype; if too many directions cross a kink, as at ``x = 0`` for relu; or
        if the array library has no float64 (see ``numerical_grads``).

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.check_vjp(nn.init(0, sizes=(4, 3), activations=[nn.softmax]), np.ones((2, 4), np.float32))
    >>> nn.check_vjp(nn.Activation("square", lambda z: z * z, lambda z, y, dy: z * dy), np.ones((1, 2)))
    Traceback (most recent call last):
    ValueError: the pullback of square gives a wrong dx: ...
    """
    is_activation = isinstance(layer, Activation)
    name = f"the pullback of {layer}" if is_activation else f"the rule of {type(layer).__name__}"
    forwards, rule = (Activation.__call__, _activation_vjp) if is_activation else (forward, cast("Any", vjp))
    floats, takes = [*filter(is_float, flatten((layer, x))[0])], [*map(is_float, flatten(x)[0])]
    xp, random = namespace_of(floats, "the layer and x"), generator(0)
    for dtype in (floats[0].dtype, float64_of(xp)):
        layer, x = _cast((layer, x), dtype)
        y, pullback = checked_pair(layer, "rule", rule(layer, x))
        aligned(**{f"forward(layer, x) in {dtype}": astype(forwards(layer, x), dtype), f"y of {name}": y})
        dy = astype(xp.asarray(random.standard_normal(y.shape)), dtype)
        gradient, dx = checked_pair(layer, "pullback", pullback(dy), type(layer))
        slope = dx() if all(takes) else tree_map(lambda a, b: b if is_float(a) else a, x, dx()) if any(takes) else x
        expected, returned = {"gradient": seeded(layer, 0), "dx": x}, {"gradient": seeded(gradient, 0), "dx": slope}
        _, slopes, _ = aligned(**{"the layer and x": expected, f"the result of {name}": returned})
    if 0 in y.shape or not xp.all(xp.isfinite(y)):
        raise ValueError(f"{name} gives y = {describe(y)}, but must give numbers, at least one, and all finite")
    noise, error = 1e-9 * float(xp.sum(xp.abs(dy * y))), float(xp.max(xp.abs(y - forwards(layer, x))))
    if not error <= noise:
        raise ValueError(f"{name} gives a wrong y: it differs from forward(layer, x) by up to {error:.3g}")
    arrays, structure = flatten({"gradient": layer, "dx": x})

    def value(k: int, change: Array) -> float:
        there = unflatten(structure, [*arrays[:k], arrays[k] + change, *arrays[k + 1 :]])
        return float(xp.sum(dy * forwards(there["gradient"], there["dx"])))

    for k, (path, g) in enumerate(zip(leaf_paths(structure), slopes, strict=True)):
        if is_float(g) and 0 not in g.shape:
            _check_slope(value, k, arrays[k], g, random, noise, f"{name} gives a wrong {path}")


def _activation_vjp(f: Activation, z: Array) -> Any:
    y = f(z)
    return y, lambda dy: (f, lambda: f.pullback(z, y, dy))


def _check_slope(value: Any, k: int, at: Array, g: Array, random: Any, noise: float, what: str) -> None:
    """Raise ValueError unless ``g`` is the gradient of ``value(k, change)``, where the change is added to ``at``."""
    xp, norm = namespace(g), float(trees.global_norm(g))
    if not math.isfinite(norm):
        raise ValueError(f"{what}: it is not finite")
    tolerance, agreements = noise + 1e-6 * norm, 0
    for draw in range(20):  # with ever smaller steps, in case kinks or strong curvature are near
        h = STEP * max(0.5**draw * float(xp.max(xp.abs(at))), 0.5 ** min(draw, 2))
        v = xp.asarray(random.standard_normal(g.shape))
        a, b, c, d, e = (value(k, s * h * v) for s in (-1, -0.5, 0, 0.5, 1))
        expected, given = (e - a) / (2 * h), float(xp.sum(g * v))
        # The third difference shows strong curvature, the fourth a kink; both vanish for a smooth function and small h.
        smooth = max(abs(e - 2 * d + 2 * b - a), abs(e - 4 * d + 6 * c - 4 * b + a)) / h <= tolerance
        agrees = abs(given - expected) <= tolerance
        if smooth and not agrees:
            raise ValueError(f"{what}: {given:.6g} along a random direction, but differences give {expected:.6g}")
        if (agreements := agreements + agrees) == 3:
            return
    raise ValueError(f"{what}, or x is too close to kinks; take fewer examples, or values of x that are apart")


# A table of what happens inside


@record
class Row:
    """What one layer does to a batch. Fields that need an ``x`` or ``y`` that was not given are None.

    Attributes
    ----------
    path : str
        Where the layer is in the network, such as ``layers.0``; ``prediction`` for the activation at the output.
    layer : record
        The layer, or the activation at the output.
    input, output : arrays
        The output of a last dense layer is the logits; the prediction has a row of its own.
    output_gradient : array
        The gradient of the loss with respect to the output; in the row of the prediction, with respect to the logits.
    gradient : record
        The gradient of the loss with respect to the layer: a record like the layer.
    """

    path: str
    layer: Tree
    input: Tree = None
    output: Tree = None
    output_gradient: Tree = None
    gradient: Tree = None


@record
class Inspection:
    """What ``inspect`` found: ``rows``, one for each layer, and the ``loss``. It prints as a table."""

    rows: tuple[Row, ...]
    loss: Tree = None

    def __repr__(self) -> str:
        table = _table(self)
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
        return "\n".join([*lines, _summary(self)])


def inspect(params: trees.Layer, x: Tree | None = None, y: Array | None = None) -> Inspection:
    """Return what happens inside a network on a batch: a row for each layer, which prints as a table.

    Each ``Row`` holds arrays: the input and output of a layer, the gradient of the loss at its output, and its own
    gradient. The table shows the mean and the standard deviation of each output, the Euclidean norm of each gradient,
    and that norm divided by the norm of the layer's parameters. For dense layers with an elementwise activation, it
    shows the shares of dead and saturated units. A unit is dead if its derivative is 0 on the whole batch, and
    saturated if the derivative is not always 0, but stays below 0.05 in magnitude. A last dense layer shows these
    shares in the row ``prediction``. The last line counts the parameters, and says where the first value appears that
    is not finite: forwards, from the input to the loss, or backwards, from the logits to the gradients.

    Parameters
    ----------
    params : Params, or any layer
    x : array, (n, fan_in), or None
        A batch. Without it, the table shows shapes and counts alone.
    y : array, or None
        Labels or targets, as ``loss`` takes them. If None, no gradients are computed.

    Raises
    ------
    ValueError, TypeError
        Those of ``forward``, and with ``y`` those of ``grads``.

    Examples
    --------
    >>> import numpy as np, purenn as nn
    >>> nn.inspect(nn.init(0, sizes=(4, 3, 2), activations=(nn.relu, nn.softmax)))
    path      layer          output  parameters
    layers.0  Dense relu     (n, 3)  15
    layers.1  Dense softmax  (n, 2)  8
    23 parameters; first values that are not finite: none
    """
    if vjp.dispatch(type(params)) is vjp.dispatch(object):
        vjp(params, x)  # raises TypeError
    if x is None and y is not None:
        raise TypeError("y was given without x; inspect(params, x, y) takes both")
    last = last_layer(params)
    is_dense, dz, loss = vjp.dispatch(type(last)) is dense_vjp, None, None
    z, back = _traced(params, "", x, logits_vjp if is_dense else vjp)
    if y is not None:
        output = output_of(params)
        checked = output.checked(y, None, z)
        dz, loss = output.loss_gradient(z, *checked), output.mean_loss(z, *checked)
    rows = back(dz)[0][params is not last :]  # the network itself is not a row
    if is_dense and x is not None:
        rows.append(Row("prediction", last.activation, z, last.activation.function(z), dz))
    return Inspection(tuple(rows), loss)


def _traced(layer: Any, path: str, x: Any, rule: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Apply a layer; return its output, and the function ``dy -> (rows, gradient, dx)``. Values may be None."""
    if vjp.dispatch(type(layer)) is not network_vjp:
        y, pullback = None, cast("Any", None)
        if x is not None:
            try:
                y, pullback = checked_pair(layer, "rule", rule(layer, x))
            except (TypeError, ValueError) as error:
                error.add_note(f"in {path or 'the layer'}")
                raise
            y = checked_output(vjp, layer, x, y)

        def back(dy: Any) -> Any:
            if dy is None:
                return [Row(path, layer, x, y)], None, lambda: None
            gradient, dx = checked_pair(layer, "pullback", pullback(dy), type(layer))
            return [Row(path, layer, x, y, dy, gradient)], gradient, dx

        return y, back

    y, parts = x, []
    for number, part in enumerate(layer.layers):
        inner = rule if number == len(layer.layers) - 1 else vjp
        y, part_back = _traced(part, f"{path}{'.' * bool(path)}layers.{number}", y, inner)
        parts.append((part_back, is_float(y)))

    def network_back(dy: Any) -> Any:
        rows, gradients, dx = list[Row](), list[Any](), cast("Any", lambda: dy)
        for part_back, has_slope in reversed(parts):  # integers have no gradient
            below, gradient, dx = part_back(dx() if has_slope else None)
            rows, gradients = below + rows, [gradient, *gradients]
        gradient = None if dy is None else with_children(layer, tuple(gradients))
        return [Row(path, layer, x, y, dy, gradient), *rows], gradient, dx

    return y, network_back


# How an inspection prints

_HEADINGS = ("path", "layer", "output", "parameters", "mean", "std", "dead", "saturated", "|gradient|", "/ |layer|")


def _table(inspection: Inspection) -> list[tuple[str, ...]]:
    """Return the cells of the table, without the columns that are empty."""
    idle = [_idle(row.layer, row.input) for row in inspection.rows]
    if [row.path for row in inspection.rows[1:]][-1:] == ["prediction"]:
        idle[-2] = ("", "")  # whose output is the logits
    rows = [_cells(row, *shares) for row, shares in zip(inspection.rows, idle, strict=True)]
    columns = [column for column in zip(_HEADINGS, *rows, strict=True) if any(column[1:])]
    return list(zip(*columns, strict=True))


def _cells(row: Row, dead: str, saturated: str) -> tuple[str, ...]:
    layer, is_activation = row.layer, isinstance(row.layer, Activation)
    slopes = row.output_gradient if is_activation else row.gradient
    name = str(layer) if is_activation else f"{type(layer).__name__} {getattr(layer, 'activation', '')}".strip()
    shape = f"(n, {getattr(layer, 'fan_out', None) or '?'})" if row.output is None else str(row.output.shape)
    mean, std, norm, ratio = "", "", "", ""
    if is_float(row.output) and not trees.not_finite(row.output) and 0 not in row.output.shape:
        xp, top = namespace(row.output), arrays.magnitude(row.output)
        mean, std = (f"{float(f(row.output / top)) * top:.3g}" for f in (xp.mean, xp.std))
    if flatten(slopes)[0]:
        slope, size = (float(trees.global_norm(tree)) if flatten(tree)[0] else 0.0 for tree in (slopes, layer))
        norm, ratio = f"{slope:.3g}", f"{slope / size:.3g}" if size else ""
    indent = "  " * (row.path.count("layers.") - 1)
    return indent + row.path, name, shape, f"{trees.size(layer):,}", mean, std, dead, saturated, norm, ratio


def _idle(f: Any, z: Any) -> tuple[str, str]:
    """Return the shares of units that are dead and saturated, if the activation acts on each unit by itself."""
    if vjp.dispatch(type(f)) is dense_vjp and z is not None:
        f, z = f.activation, logits(f, z)
    if not isinstance(f, Activation) or not is_float(z) or 0 in z.shape or trees.not_finite(z):
        return "", ""
    xp, y, alone = namespace(z), f.function(z), f.function(z[..., :1])
    if not float(xp.max(xp.abs(y[..., :1] - alone))) < 1e-3:
        return "", ""
    slopes = xp.max(xp.abs(xp.reshape(f.pullback(z, y, xp.ones_like(z)), (-1, z.shape[-1]))), axis=0)
    dead, low = (float(xp.mean(xp.astype(test, z.dtype))) for test in (slopes == 0, slopes < 0.05))
    return f"{dead:.0%}", f"{low - dead:.0%}"


def _summary(inspection: Inspection) -> str:
    """Return the line below the table."""
    rows = [row for row in inspection.rows if vjp.dispatch(type(row.layer)) is not network_vjp]
    places = [("the input", row.input) for row in rows[:1]]
    for row in rows:
        name = row.path or "the layer"
        places += [(f"the parameters of {name}", row.layer), (f"the output of {name}", row.output)]
    places += [("the loss", inspection.loss)]
    for row in reversed(rows):
        at = "the logits" if row.path == "prediction" else f"the output of {row.path or 'the layer'}"
        places += [(f"the gradient at {at}", row.output_gradient), (f"the gradient of {row.path}", row.gradient)]
    counts = ((place, trees.not_finite(tree), trees.size(tree)) for place, tree in places)
    first = next((f"{place}: {bad:,} of {size:,}" for place, bad, size in counts if bad), "none")
    loss = "" if inspection.loss is None else f"loss {inspection.loss:.4g}; "
    return f"{sum(trees.size(row.layer) for row in rows):,} parameters; {loss}first values that are not finite: {first}"


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
    kind, children = trees.kinds[type(value)], dict[str, Any]()
    text = f"<b>{escape(name[:80])}</b> " if name else ""
    if path.count(".") > 50:
        text += "…"
    elif kind is None:
        text += _leaf(value, path)
    elif isinstance(value, Inspection):
        text += _inspected(value)
    else:
        detail, values = kind.open(value)
        children = dict(zip(detail if kind.fields is None else kind.fields, values, strict=True))
        fields = trees.fields_of(value) if kind.fields is not None else {}
        statics = [f"{key}={arrays.brief(field)}" for key, field in fields.items() if key not in children]
        what = f"{type(value).__name__} of {len(values)}" if kind.fields is None and values else type(value).__name__
        text += escape(f"{what} {', '.join(statics)}") + _digits(value)
    text = text.encode(errors="replace").decode()
    size = len(text.encode()) + 50  # for the tags
    text, left[0] = (text if size <= left[0] else "…"), left[0] - size
    parts = [_node(str(n), child, f"{path}.{n}", left) for n, child in children.items() if left[0] >= 0]
    parts += ["<div>…</div>"] * (len(parts) < len(children))
    return f"<details open><summary>{text}</summary>{''.join(parts)}</details>" if parts else f"<div>{text}</div>"


def _leaf(value: Any, path: str) -> str:
    text, v = escape(arrays.brief(value)), arrays.real_numbers(value)
    if v is None:
        return text
    xp, bad, side = namespace(v), trees.not_finite(v), math.isqrt(v.shape[0] if v.ndim else 0)
    if v.ndim and bad < v.size:
        finite = v[xp.isfinite(v)] if bad else v
        text += f" {finite.min():.3g} … {finite.mean(dtype=float):.3g} … {finite.max():.3g}"
    text += f" <mark>{bad:,} not finite</mark>" if bad else "" if v.ndim else f" {v:.3g}"
    tiles = v.reshape(1, -1, v.shape[-1] if v.ndim else 1)
    is_first = path.endswith(".weights") and {part.split(".")[0] for part in path.split(".layers.")[1:]} == {"0"}
    if v.ndim == 2 and 4 <= side == v.shape[0] / side and is_first:
        tiles = v.T.reshape(-1, side, side)[: max(1, min(64, 12_000 // side**2))]
    return f"{pictures.image(tiles)} {text}"


def _digits(record: Any) -> str:
    """Return the first images of a data set with their labels."""
    shape, names = getattr(record, "image_shape", None), ("train_images", "train_labels")
    images, labels = (arrays.real_numbers(getattr(record, name, None)) for name in names)
    if images is None or labels is None or not shape or images.shape != (labels.size, math.prod(shape)):
        return ""
    digits = [pictures.image(image.reshape(1, *shape)) for image in images[:20]]
    figures = zip(digits, map(int, labels), strict=False)
    return "<br>" + "".join(f"<figure>{image}<figcaption>{label}</figcaption></figure>" for image, label in figures)


def _inspected(inspection: Inspection) -> str:
    head, *table = _table(inspection)
    lines = [(*map(escape, (cell[:80] for cell in cells)), "") for cells in table]
    lines = [(*line[:-1], pictures.histogram(row.output)) for line, row in zip(lines, inspection.rows, strict=True)]
    lines[50:-1] = [("…",)] if len(lines) > 51 else lines[50:-1]
    rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in lines)
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{rows}</table>{escape(_summary(inspection))}"


def _picture_in_notebooks(cls: Any) -> None:
    """Let notebooks show records of a class by ``html``, unless it has its own ``_repr_html_``."""
    if not hasattr(cls, "_repr_html_"):
        cls._repr_html_ = html


for_every_record(_picture_in_notebooks)
