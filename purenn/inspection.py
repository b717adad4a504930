"""What happens inside a network: a table of what each layer does to a batch."""

from collections.abc import Callable
from typing import Any, cast

from purenn.activations import Activation
from purenn.arrays import Array, is_array, is_float, namespace
from purenn.layers import dense_vjp, network_vjp, placed, vjp
from purenn.losses import logits, logits_vjp, output_of, targeted
from purenn.records import record
from purenn.trees import Layer, Tree, flatten, global_norm, like


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
        rows = table(self)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in rows]
        return "\n".join([*lines, summary(self)])


def inspect(params: Layer, x: Tree | None = None, y: Array | None = None) -> Inspection:
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
    dz, loss = None, None
    z, back = _traced(params, "", x, is_last=True)
    if y is not None:
        batch = targeted(output_of(params), z, y, None)
        dz, loss = batch.gradient(), batch.loss()
    rows = back(dz)[0]
    last = rows[-1].layer
    if vjp.dispatch(type(last)) is dense_vjp and x is not None:
        rows.append(Row("prediction", last.activation, z, last.activation.function(z), dz))
    return Inspection(tuple(rows[params is not last :]), loss)  # the network itself is not a row


def _traced(layer: Any, path: str, x: Any, is_last: bool) -> tuple[Any, Callable[[Any], Any]]:
    """Apply a layer, the last one up to its logits; return its output, and the function ``dy -> (rows, gradient, dx)``.
    Values may be None.
    """
    if vjp.dispatch(type(layer)) is not network_vjp:
        rule = logits_vjp if is_last and vjp.dispatch(type(layer)) is dense_vjp else vjp
        y, pullback = (None, None) if x is None else rule(layer, x)

        def back(dy: Any) -> Any:
            gradient, dx = pullback(dy) if pullback and dy is not None else (None, lambda: None)
            return [Row(path, layer, x, y, dy, gradient)], gradient, dx

        return y, back

    y, parts = x, []
    for number, part in enumerate(layer.layers):
        is_inner_last = is_last and number == len(layer.layers) - 1
        y, part_back = placed(layer, number, _traced, part, f"{path}{path and '.'}layers.{number}", y, is_inner_last)
        parts.append((number, part_back, is_float(y)))

    def network_back(dy: Any) -> Any:
        rows, gradients, dx = list[Row](), list[Any](), cast("Any", lambda: dy)
        for number, part_back, has_slope in reversed(parts):  # integers have no gradient
            slope = placed(layer, number + 1, dx) if has_slope else None
            below, gradient, dx = placed(layer, number, part_back, slope)
            rows, gradients = below + rows, [gradient, *gradients]
        gradient = None if dy is None else like(layer, layers=tuple(gradients))
        return [Row(path, layer, x, y, dy, gradient), *rows], gradient, lambda: placed(layer, 0, dx)

    return y, network_back


# How an inspection prints

_HEADINGS = ("path", "layer", "output", "parameters", "mean", "std", "dead", "saturated", "|gradient|", "/ |layer|")


def table(inspection: Inspection) -> list[tuple[str, ...]]:
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
    if is_float(row.output) and not not_finite(row.output) and 0 not in row.output.shape:
        xp, top = namespace(row.output), magnitude(row.output)
        mean, std = (f"{float(f(row.output / top)) * top:.3g}" for f in (xp.mean, xp.std))
    if flatten(slopes)[0]:
        slope, own = (float(global_norm(tree)) if flatten(tree)[0] else 0.0 for tree in (slopes, layer))
        norm, ratio = f"{slope:.3g}", f"{slope / own:.3g}" if own else ""
    indent = "  " * (row.path.count("layers.") - 1)
    return indent + row.path, name, shape, f"{size(layer):,}", mean, std, dead, saturated, norm, ratio


def _idle(f: Any, z: Any) -> tuple[str, str]:
    """Return the shares of units that are dead and saturated, if the activation acts on each unit by itself."""
    if vjp.dispatch(type(f)) is dense_vjp and z is not None:
        f, z = f.activation, logits(f, z)
    if not isinstance(f, Activation) or not is_float(z) or 0 in z.shape or not_finite(z):
        return "", ""
    xp, y, alone = namespace(z), f.function(z), f.function(z[..., :1])
    if not float(xp.max(xp.abs(y[..., :1] - alone))) < 1e-3:
        return "", ""
    slopes = xp.max(xp.abs(xp.reshape(f.pullback(z, y, xp.ones_like(z)), (-1, z.shape[-1]))), axis=0)
    # 0 * slopes: a derivative that is NaN is neither dead nor alive
    dead, low = (float(xp.mean(xp.astype(test, z.dtype) + 0 * slopes)) for test in (slopes == 0, slopes < 0.05))
    return f"{dead:.0%}", f"{low - dead:.0%}"


def summary(inspection: Inspection) -> str:
    """Return the line below the table."""
    rows = [(r.path or "the layer", r) for r in inspection.rows if vjp.dispatch(type(r.layer)) is not network_vjp]
    places = [("the input", row.input) for _, row in rows[:1]]
    for name, row in rows:
        places += [(f"the parameters of {name}", row.layer), (f"the output of {name}", row.output)]
    places += [("the loss", inspection.loss)]
    for name, row in reversed(rows):
        at = "the logits" if name == "prediction" else f"the output of {name}"
        places += [(f"the gradient at {at}", row.output_gradient), (f"the gradient of {row.path}", row.gradient)]
    first = next((f"{at}: {not_finite(tree):,} of {size(tree):,}" for at, tree in places if not_finite(tree)), "none")
    loss = "" if inspection.loss is None else f"loss {inspection.loss:.4g}; "
    return f"{sum(size(row.layer) for _, row in rows):,} parameters; {loss}first values that are not finite: {first}"


def size(tree: Any) -> int:
    """Return how many numbers the arrays of a tree hold."""
    return sum(array.size for array in filter(is_array, flatten(tree)[0]))


def not_finite(tree: Any) -> int:
    """Return how many floats of a tree are NaN or infinite."""
    return sum(int(namespace(a).count_nonzero(~namespace(a).isfinite(a))) for a in filter(is_float, flatten(tree)[0]))


def magnitude(array: Array) -> float:
    """Return the largest magnitude of the finite values of an array, or 1 if that is 0."""
    xp = namespace(array)
    return float(xp.max(xp.where(xp.isfinite(array), xp.abs(array), 0))) or 1.0
