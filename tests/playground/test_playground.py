"""The playground: its runs, its answers, its server, and its page in a browser."""

import asyncio
import base64
import contextlib
import importlib.util
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import purenn as nn

pytest.importorskip("uvicorn", reason="needs the extra 'examples'")
pytest.importorskip("pydantic", reason="needs the extra 'examples'")
pytest.importorskip("httpx2", reason="needs the extra 'dev'")
testclient = pytest.importorskip("starlette.testclient", reason="needs the extra 'examples'")

PLAYGROUND = Path(__file__).parents[2] / "examples" / "playground"
DIGITS = nn.mnist.digits()


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PLAYGROUND))
        spec = importlib.util.spec_from_file_location("playground", PLAYGROUND / "__main__.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def runs(server):
    return server.runs


@pytest.fixture
def run(runs):
    return runs.start(DIGITS, runs.Settings(widths=(16, 8)))


def trained(runs, run, steps):
    while run.head.step < steps:
        run = runs.grown(run, next(runs.training(run, seconds=0)))
    return run


def steps_of(branch):
    return [moment.step for moment in branch]


# Runs


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("data", ["digits", "moons", "circles", "spirals", "xor"])
def test_training_resumed_from_any_moment_ends_in_the_same_one(runs, optimizer, data):
    lr = 0.01 if optimizer == "adam" else 0.1
    settings = runs.Settings(data=data, widths=(8, 6), optimizer=optimizer, lr=lr, batch_size=64, l2=1e-3)
    run = trained(runs, runs.start(DIGITS, settings), 30)
    assert steps_of(run.branches[0]) == list(range(31))
    for step in (0, 7, 22):
        past = attrs.evolve(run, branches=(run.branches[0][: step + 1],))
        assert trained(runs, past, 30).branches == run.branches
    assert run.head.figures[0] < run.branches[0][0].figures[0]


def test_training_is_a_fold_over_batches(runs, run):
    params, digits = run.head.params, runs.data(DIGITS, run.head.settings)[0]
    for epoch in range(2):
        for batch in nn.batches((0, epoch), *digits, batch_size=128):
            params = nn.sgd_step(params, nn.grads(params, *batch), lr=0.1)
    assert trained(runs, run, 2 * -(-len(digits[0]) // 128)).head.params == params


def test_validation_data_are_other_data(runs):
    for data in ("digits", "moons", "circles", "spirals", "xor"):
        training, validation = runs.data(DIGITS, runs.Settings(data=data))
        assert not {x.tobytes() for x in training[0]} & {x.tobytes() for x in validation[0]}


def test_the_seed_of_a_run_decides_its_bits(runs):
    first, second = (runs.start(DIGITS, runs.Settings(seed=seed)).head.params for seed in (0, 1))
    assert first == nn.init(0, (64, 128, 64, 10), (nn.tanh, nn.relu, nn.softmax))
    assert first != second


def test_l2_is_the_gradient_of_half_the_sum_of_the_squared_weights(runs, run):
    run, (x, y) = trained(runs, run, 3), (DIGITS.train_images[:20], DIGITS.train_labels[:20])
    assert run.head.params.layers[0].biases.any()
    plain, penalized = (
        runs.next_moment(attrs.evolve(run.head, settings=runs.Settings(l2=l2)), x, y) for l2 in (0, 0.5)
    )
    for old, a, b in zip(run.head.params.layers, plain.params.layers, penalized.params.layers, strict=True):
        np.testing.assert_allclose(b.weights - a.weights, -0.1 * 0.5 * old.weights, rtol=0, atol=1e-7)
        np.testing.assert_array_equal(a.biases, b.biases)


def test_many_more_early_moments_are_kept_than_late_ones(runs):
    kept = [step for step in range(100_000) if runs.is_kept(step, bits=5)]
    assert kept[:33] == list(range(33))
    for start in (64, 1024, 32_768):
        assert sum(start <= step < 2 * start for step in kept) == 16
    assert set(kept) >= {step for step in range(100_000) if runs.is_kept(step, bits=4)}


def test_the_memory_of_moments_is_bounded(server, runs, run, monkeypatch):
    one = run.nbytes
    monkeypatch.setattr(runs, "MEMORY", 20 * one)
    for _ in range(12):
        run = trained(runs, run, run.head.step + 40)
        assert run.nbytes <= 20 * one
        for branch in filter(None, run.branches):
            assert branch[0].step == 0
            assert steps_of(branch) == sorted(set(steps_of(branch)))
        branch = run.branches[-1]
        run = runs.branched(run, len(run.branches) - 1, branch[len(branch) // 2])
    assert sum(map(bool, run.branches)) == runs.BRANCHES == 8
    assert set(server.commands.status(run)["curves"]) == {k for k, branch in enumerate(run.branches) if branch}
    assert "there is no branch 0" in asked(server, run, "branch_off", settings={}, when=[0, 0])[1]["error"]


def test_branches_share_their_past(runs, run):
    run = trained(runs, run, 10)
    branched = runs.branched(run, 0, run.branches[0][6])
    assert branched.nbytes == run.nbytes
    assert all(a is b for a, b in zip(branched.branches[1], run.branches[0][:7], strict=True))
    changed = runs.changed(branched, branched.head.settings.model_copy(update={"lr": 0.2}))
    assert (changed.head.params, changed.head.step) == (branched.head.params, 6)
    assert changed.nbytes == run.nbytes
    assert trained(runs, changed, 12).branches[0] is run.branches[0]


def test_the_state_of_the_optimizer_lasts_as_long_as_the_optimizer(runs, run):
    def change(run, **settings):
        return runs.changed(run, run.head.settings.model_copy(update=settings))

    run = trained(runs, change(run, optimizer="adam"), 3)
    assert change(run, lr=0.2, l2=0.1).head.state is run.head.state
    assert change(run, optimizer="momentum").head.state == nn.zeros_like(run.head.params)


def test_no_command_changes_the_run_it_gets(server, runs, run):
    run = trained(runs, run, 5)
    before = run, run.branches, [moment.step for moment in run.branches[0]], run.head.params.layers[0].weights.copy()
    x = DIGITS.test_images[0].tolist()
    for command, arguments in [
        ("train", {}), ("pause", {}), ("one_step", {}), ("start_over", {"settings": {}}),
        ("change", {"settings": {"widths": [16, 8], "lr": 1}}),
        ("branch_off", {"settings": {"widths": [16, 8]}, "when": [0, 2]}), ("digit", {"number": 3, "wrong": True}),
        ("learn", {"x": x, "target": 3}), ("learn", {"x": x, "target": 3, "when": [0, 1]}),
        ("look", {"x": x, "target": 3, "unit": [0, 1]}), ("check", {"x": x, "target": 3, "unit": [0, 1], "weight": 20}),
    ]:  # fmt: skip
        _, reply = server.answer(run, json.dumps({"id": 1, "command": command, "arguments": arguments}))
        assert "error" not in reply, (command, reply)
        assert (run.branches, steps_of(run.branches[0])) == before[1:3]
        np.testing.assert_array_equal(run.head.params.layers[0].weights, before[3])


# What the page is told


def asked(server, run, command, **arguments):
    run, reply = server.answer(run, json.dumps({"id": 5, "command": command, "arguments": arguments}))
    assert reply["id"] == 5
    return run, reply


def decoded(picture):
    levels = np.frombuffer(base64.b64decode(picture["levels"]), np.int8)
    return levels * (picture["top"] / 127)


def test_a_look_shows_what_the_library_computes(server, runs, run):
    moment = trained(runs, run, 20).branches[0][10]
    run, params, x, target = trained(runs, run, 20), moment.params, DIGITS.test_images[5], 3
    _, look = asked(server, run, "look", x=x.tolist(), target=target, unit=[0, 4], when=[0, 10])
    assert (look["when"], look["settings"]["widths"]) == ((0, 10), (16, 8))
    rows = nn.inspect(params, x[None], np.asarray([target]))
    for layer, row in zip(look["layers"][:2], rows.rows[:2], strict=True):
        np.testing.assert_allclose(layer["values"], row.output[0], rtol=1e-3)
    np.testing.assert_allclose(look["layers"][2]["values"], nn.forward(params, x[None])[0], rtol=1e-3)
    np.testing.assert_allclose(look["layers"][2]["sums"], nn.logits(params, x[None])[0], rtol=1e-3)
    np.testing.assert_allclose(
        decoded(look["weights"]), params.layers[0].weights[:, 4], atol=look["weights"]["top"] / 200
    )

    gradient, backwards = nn.grads(params, x[None], np.asarray([target])), look["backwards"]
    for layer, sums in zip(gradient.layers, backwards["sums"], strict=True):
        np.testing.assert_allclose(sums, layer.biases, rtol=1e-3)
    double = nn.tree_map(lambda p: p.astype(np.float64), params)
    slopes = nn.numerical_grads(lambda x: nn.loss(double, x[None], np.asarray([target])), x.astype(np.float64))
    np.testing.assert_allclose(decoded(backwards["x"]), slopes, atol=backwards["x"]["top"] / 100)
    assert backwards["loss"] == pytest.approx(rows.loss, rel=1e-5)
    for unit in range(16):
        _, look = asked(server, run, "look", x=x.tolist(), target=target, unit=[0, unit], when=[0, 10])
        picture, column = look["backwards"]["weights"], gradient.layers[0].weights[:, unit]
        np.testing.assert_allclose(decoded(picture), column, atol=picture["top"] / 100)
        assert look["backwards"]["steepest"] == abs(column).argmax()


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_derivative_agrees_with_its_difference_quotient(server, runs, run, layer):
    run, x = trained(runs, run, 5), DIGITS.test_images[5].tolist()
    sums = asked(server, run, "look", x=x, target=3, unit=[0, 0])[1]["backwards"]["sums"][layer]
    unit, weights = [layer, int(np.argmax(np.abs(sums)))], range(run.head.params.layers[layer].fan_in)
    answers = [asked(server, run, "check", x=x, target=3, unit=unit, weight=weight)[1] for weight in weights]
    derivatives, quotients = ([float(answer[name]) for answer in answers] for name in ("derivative", "quotient"))
    np.testing.assert_allclose(derivatives, quotients, rtol=1e-6, atol=1e-9)
    assert any(derivatives)


def test_learning_from_a_drawing_makes_its_answer_more_probable(server, runs, run):
    x = DIGITS.test_images[0].tolist()

    def probability(run):
        return asked(server, run, "look", x=x, unit=[0, 0])[1]["layers"][2]["values"][7]

    learned, _ = asked(server, run, "learn", x=x, target=7)
    assert probability(learned) > probability(run)
    assert len(learned.branches) == 1
    run = trained(runs, run, 5)
    learned, _ = asked(server, run, "learn", x=x, target=7, when=[0, 2])
    assert (len(learned.branches), learned.head.step) == (2, 3)
    assert learned.branches[0] is run.branches[0]


def test_a_plane_shows_the_surface_of_every_unit_and_the_points_one_adds(server, runs):
    run = trained(runs, runs.start(DIGITS, runs.Settings(data="moons", widths=(3, 2))), 3)
    run, _ = asked(server, run, "add_point", point=[0.5, -1.25, 1])
    plane = asked(server, run, "look", x=[0.5, 0.5], unit=[0, 0])[1]["plane"]
    assert plane["points"][-1] == [0.5, -1.25, 1]
    assert len(plane["points"]) == 201
    side = np.linspace(-1.5, 1.5, 40)
    grid = np.stack(np.meshgrid(side, side[::-1]), axis=-1).reshape(-1, 2).astype(np.float32)
    p = nn.forward(run.head.params, grid)
    np.testing.assert_allclose(decoded(plane["decision"]), p[:, 1] - p[:, 0], atol=0.01)
    units = nn.forward(run.head.params.layers[0], grid).reshape(40, 40, 3)[::2, ::2]
    for k, picture in enumerate(plane["units"][0]):
        np.testing.assert_allclose(decoded(picture), units[..., k].ravel(), atol=picture["top"] / 100)
    for _ in range(499):
        run, reply = asked(server, run, "add_point", point=[0, 0, 0])
        assert "error" not in reply
    assert "at most 500" in asked(server, run, "add_point", point=[0, 0, 0])[1]["error"]


def test_digits_come_in_order_and_misclassified_ones_on_request(server, runs, run):
    for number in (0, 1, 359 + 1):
        reply = asked(server, run, "digit", number=number, wrong=False)[1]
        np.testing.assert_allclose(reply["x"], DIGITS.test_images[number % 359], atol=1e-4)
        assert reply["label"] == DIGITS.test_labels[number % 359]
    for number in range(5):
        reply = asked(server, run, "digit", number=number, wrong=True)[1]
        assert nn.predict(run.head.params, np.float32([reply["x"]]))[0] != reply["label"]
    right = nn.predict(run.head.params, DIGITS.test_images) == DIGITS.test_labels
    easy = attrs.evolve(DIGITS, test_images=DIGITS.test_images[right], test_labels=DIGITS.test_labels[right])
    reply = asked(server, attrs.evolve(run, digits=easy), "digit", number=0, wrong=True)[1]
    assert re.match(r"the network gets all of the first \d+ test digits right", reply["error"])


def test_a_page_is_told_only_the_branches_that_are_new_to_it(server, runs, run):
    run = trained(runs, run, 4)
    branched = runs.branched(run, 0, run.branches[0][2])
    status = server.commands.status
    assert set(status(branched)["curves"]) == {0, 1}
    assert set(status(branched, run)["curves"]) == {1}
    assert status(branched, branched)["curves"] == {}
    assert status(run)["curves"][0][2] == (2, *run.branches[0][2].figures)


def test_training_stops_when_the_loss_is_not_finite(server, runs):
    run = runs.start(DIGITS, runs.Settings(widths=(16, 8)))
    run = runs.grown(run, [attrs.evolve(run.head, step=1, params=1e38 * run.head.params)])
    run, _ = asked(server, run, "train")
    run = runs.grown(run, next(runs.training(run, seconds=60)))
    assert not run.is_training
    assert run.head.step == 2
    x = DIGITS.test_images[0].tolist()
    for value in (server.commands.status(run), asked(server, run, "look", x=x, target=1, unit=[0, 0])[1]):
        text = server.pydantic_core.to_json(value, inf_nan_mode="null")
        json.loads(text, parse_constant=pytest.fail)
    back, reply = asked(server, run, "branch_off", when=[0, 0], settings={"widths": [16, 8]})
    assert "error" not in reply
    assert np.isfinite(trained(runs, back, 3).head.figures).all()


# Messages


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "Invalid JSON"),
        ("[" * 60_000, "recursion limit"),
        ("7", "object"),
        ('{"command": "train"}', "id: Field required"),
        ('{"id": 1, "command": "nothing"}', "command: Input should be 'train', 'pause'"),
        ('{"id": 1, "command": "train", "more": 1}', "more: Extra inputs are not permitted"),
        ('{"id": 1, "command": "train", "arguments": {"run": 1}}', "multiple values"),
        ('{"id": 1, "command": "train", "arguments": {"lr": 1}}', "lr: Unexpected keyword argument"),
        ('{"id": 1, "command": "start_over", "arguments": {"settings": {"lr": NaN}}}', "lr: Input should be a finite"),
        (
            '{"id": 1, "command": "start_over", "arguments": {"settings": {"lr": 0}}}',
            "lr: Input should be greater than 0",
        ),
        (
            '{"id": 1, "command": "start_over", "arguments": {"settings": {"widths": [1, 257]}}}',
            "widths: 1: Input should",
        ),
        ('{"id": 1, "command": "start_over", "arguments": {"settings": {"widths": [1]}}}', "widths: 1: Field required"),
        ('{"id": 1, "command": "start_over", "arguments": {"settings": {"data": "faces"}}}', "data: Input should be"),
        ('{"id": 1, "command": "change", "arguments": {"settings": {"widths": [9, 9]}}}', "'Start over'"),
        ('{"id": 1, "command": "branch_off", "arguments": {"settings": {}, "when": [3, 0]}}', "there is no branch 3"),
        ('{"id": 1, "command": "look", "arguments": {"x": [0, 1], "unit": [0, 0]}}', "x has 2 features"),
        ('{"id": 1, "command": "look", "arguments": {"x": [1e9], "unit": [0, 0]}}', "x: 0: Input should be less"),
        (json.dumps({"id": 1, "command": "look", "arguments": {"x": [0] * 64, "unit": [0, 16]}}), "out of bounds"),
        (json.dumps({"id": 1, "command": "look", "arguments": {"x": [0] * 64, "unit": [3, 0]}}), "unit: 0: Input"),
        (json.dumps({"id": 1, "command": "learn", "arguments": {"x": [0] * 64, "target": 10}}), "must be from 0 to 9"),
        ('{"id": 1, "command": "train"' + " " * 65_536 + "}", "must have at most 65,536"),
    ],
)  # fmt: skip
def test_an_invalid_message_gets_an_error_and_changes_nothing(server, run, text, error):
    after, reply = server.answer(run, text)
    assert after is run
    assert error in reply["error"]
    assert reply["id"] in (None, 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x, max_size=4)
)
NAMES = ("x", "unit", "target", "when", "settings", "number", "wrong", "weight", "point", "lr")


@given(data=st.data())
def test_any_message_gets_an_answer(server, runs, data):
    command = data.draw(st.sampled_from([*server.commands.COMMANDS]))
    plausible = st.sampled_from([[0.0] * 64, [0, 1], 3, True, {}, {"lr": 1}, [0, 0, 1]])
    arguments = data.draw(st.dictionaries(st.sampled_from(NAMES), plausible | JSON))
    run = runs.start(DIGITS, runs.Settings(widths=(2, 2)))
    _, reply = server.answer(run, json.dumps({"id": 1, "command": command, "arguments": arguments}))
    assert reply["id"] == 1 or "error" in reply
    assert isinstance(reply.get("error", ""), str)


# The server


@pytest.fixture
def client(server):
    with testclient.TestClient(server.application(DIGITS), base_url="http://127.0.0.1:8000") as client:
        yield client


@contextlib.contextmanager
def page_of(client, **headers):
    with client.websocket_connect("ws://127.0.0.1:8000/talk", headers=headers) as websocket:
        yield websocket


def reply_to(websocket, command, **arguments):
    websocket.send_text(json.dumps({"id": 9, "command": command, "arguments": arguments}))
    while (message := websocket.receive_json()).get("id") != 9:
        pass
    return message


def next_status(websocket, is_wanted):
    while not is_wanted(status := websocket.receive_json().get("run", {})):
        pass
    return status


def test_the_server_gives_the_page_and_lets_nothing_in_from_elsewhere(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert "connect-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"https?://", answer.text)


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example:8000"}, {"host": ""}, {"host": "127.0.0.1.evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "null"}, {"origin": "http://127.0.0.1:8001"}, {"origin": "https://127.0.0.1:8000"},
    ],
)  # fmt: skip
def test_another_host_or_origin_is_refused(client, headers):
    answer = client.get("/", headers=headers)
    assert answer.status_code == 403
    assert "must be the address of this server" in answer.json()["error"]
    with pytest.raises(testclient.WebSocketDenialResponse), page_of(client, **headers):
        pass


def test_its_own_origin_is_accepted(client):
    for host in ("127.0.0.1:8000", "localhost:8000"):
        assert client.get("/", headers={"host": host, "origin": f"http://{host}"}).status_code == 200


def test_all_pages_share_one_run(client):
    with page_of(client) as first, page_of(client) as second:
        for page in (first, second):
            assert not page.receive_json()["run"]["training"]
        assert "error" not in reply_to(first, "train")
        later = next_status(second, lambda status: status.get("curves") and status["curves"]["0"][-1][0] > 50)
        assert later["training"]
        reply_to(second, "pause")
        assert not next_status(first, lambda status: status and not status["training"])["training"]
        assert "error" in reply_to(first, "start_over", settings={"lr": "fast"})
        reply_to(first, "start_over", settings={"widths": [5, 4], "data": "xor"})
        assert next_status(second, lambda status: status and status["settings"].get("0", {}).get("widths") == [5, 4])


@pytest.mark.parametrize("is_replaced", [False, True])
def test_training_never_undoes_a_command(server, runs, run, monkeypatch, is_replaced):
    paused, other = asked(server, run, "pause")[0], runs.start(DIGITS, runs.Settings(widths=(5, 4)))
    state = types.SimpleNamespace(run=asked(server, run, "train")[0])
    slices = []

    async def to_thread(function, *arguments):  # the second slice is interrupted by a command
        assert len(slices) < 2, "training undid the command"
        slices.append(function(*arguments))
        if len(slices) == 2:
            state.run = other if is_replaced else paused
        return slices[-1]

    async def sleep(seconds):  # what the server does when there is nothing to train
        raise EOFError

    monkeypatch.setattr(server.asyncio, "to_thread", to_thread)
    monkeypatch.setattr(server.asyncio, "sleep", sleep)
    with pytest.raises(EOFError):
        asyncio.run(server.keep_training(state))
    assert state.run is (other if is_replaced else paused)
    assert slices[0][-1].step < slices[1][0].step  # the first slice was kept


def test_a_message_of_bytes_is_read_as_text(client):
    with page_of(client) as page:
        page.send_bytes(b'{"id": 9, "command": "pause"}')
        while "id" not in (message := page.receive_json()):
            pass
        assert message == {"id": 9}
        page.send_bytes(b"\xff")
        while "id" not in (message := page.receive_json()):
            pass
        assert "error" in message


@contextlib.contextmanager
def started(*arguments):
    command = [sys.executable, PLAYGROUND, "--no-browser", "--data", "digits", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def address_of(process):
    return re.search(r"http://127.0.0.1:\d+", process.stdout.readline())[0]


def test_the_server_outlives_dropped_connections_and_ends_quietly():
    with started("--port", 0) as process:
        port = int(address_of(process).rpartition(":")[2])
        upgrade = f"GET /talk HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        upgrade += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        for request in ("GET / HT", upgrade, upgrade[:80]):
            for cut in range(3):
                connection = socket.create_connection(("127.0.0.1", port), timeout=10)
                connection.sendall(request.encode())
                if cut:  # after the answer, if there is one
                    connection.settimeout(cut / 10)
                    with contextlib.suppress(OSError):
                        connection.recv(10)
                linger = (1).to_bytes(4, sys.byteorder) + bytes(4)  # closes with a reset
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.close()
        with started("--port", port) as second:
            _, errors = second.communicate()
            assert second.returncode == 1
            assert re.fullmatch(r"error: .*[Aa]ddress already in use.*; --port 0 picks a free one\n", errors)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(upgrade.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 101")
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=30)
        assert (process.returncode, output, errors) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--data", "nowhere"), "error: nowhere has neither"), (("--port", 70_000), "port must be 0-65535")],
)
def test_invalid_options_end_in_an_error_without_a_traceback(arguments, message):
    with started(*arguments) as process:
        _, errors = process.communicate()
        assert process.returncode == 1
        assert message in errors
        assert "Traceback" not in errors


# The page, in Chromium


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra 'dev'")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(browser):
    with started("--port", 0) as process:
        yield address_of(process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
        assert (output, errors) == ("", "")


@pytest.fixture
def page(browser, address):
    """Return the page of a new run; at the end, the test fails if the page reported an error."""
    page, errors = browser.new_page(viewport={"width": 1280, "height": 800}), []
    page.set_default_timeout(30_000)
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    wait(page, "look")
    start_over(page)
    yield page
    assert page.inner_text("#note") == ""
    page.close()
    assert errors == []


def wait(page, expression, arg=None):
    """Wait until an expression is true, for 30 seconds at most."""
    # Playwright's own wait_for_function evaluates strings in the page, which its policy forbids.
    end = time.monotonic() + 30
    while not page.evaluate(expression, arg):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(30)


def start_over(page, **settings):
    for name, value in ({"data": "digits"} | settings).items():
        control = page.locator(f"#settings [name={name}]")
        if control.evaluate("control => control.tagName") == "SELECT":
            control.select_option(value)
        else:
            control.fill(str(value))
            control.blur()
    page.get_by_role("button", name="Start over").click()
    wait(page, "document.querySelector('#now').textContent.startsWith('step 0 ·') && look?.when[1] === 0")
    wait(page, "name => look.settings.data === name", arg=settings.get("data", "digits"))


def click(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def train_until(page, step):
    click(page, "Train")
    wait(page, "step => run.curves[present()].at(-1)[0] >= step", arg=step)
    click(page, "Pause")
    wait(page, "!run.training && look.when[1] === run.curves[present()].at(-1)[0]")


def stroke(page, points):
    """Draw a line with the mouse; coordinates are fractions of the paper's width and height."""
    box = page.locator("#paper").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def circle(points=16):
    turns = np.linspace(0, 2 * np.pi, points)
    return [(0.5 + 0.22 * np.sin(turn), 0.5 - 0.33 * np.cos(turn)) for turn in turns]


def best(page):
    wait(page, "!isLooking && !mustLookAgain")
    return page.inner_text("#bars .best span")


def test_page_trains_pauses_and_takes_single_steps(page):
    assert "step 0 ·" in page.inner_text("#now")
    for step in (1, 2):
        click(page, "One step")
        wait(page, "step => document.querySelector('#now').textContent.includes(`step ${step} ·`)", arg=step)
    train_until(page, 300)
    assert float(re.search(r"accuracy ([\d.]+) %", page.inner_text("#now"))[1]) > 80
    before = page.inner_text("#now")
    page.wait_for_timeout(300)
    assert page.inner_text("#now") == before
    assert page.locator("#losses path").count() > 4


def test_page_recognizes_a_drawing(page):
    train_until(page, 1000)
    click(page, "Clear")
    stroke(page, circle())
    assert best(page) == "0"
    click(page, "Clear")
    stroke(page, [(0.5, 0.15), (0.5, 0.85)])
    assert best(page) == "1"
    assert sum(page.evaluate("look.layers[2].values")) == pytest.approx(1, abs=1e-3)


def test_page_answers_a_stroke_at_once(page):
    train_until(page, 100)
    click(page, "Clear")
    page.evaluate("answers = 0; const old = showLook; showLook = () => { answers += 1; old(); }")
    stroke(page, circle())
    wait(page, "!isLooking && !mustLookAgain")
    assert page.evaluate("answers") > 3  # while the pen moved


def test_page_scales_and_centres_a_drawing_as_mnist_does(page):
    page.evaluate("shape = [28, 28]")
    click(page, "Clear")
    page.evaluate("view.x = null")  # the bundled digits have 64 pixels
    stroke(page, [(0.1, 0.1), (0.1, 0.3), (0.2, 0.3)])
    image = np.reshape(page.evaluate("seenInk()"), (28, 28))
    rows, columns = np.nonzero(image.sum(axis=1))[0], np.nonzero(image.sum(axis=0))[0]
    assert max(np.ptp(rows), np.ptp(columns)) + 1 in (20, 21)
    centre = [np.average(np.arange(28) + 0.5, weights=image.sum(axis=axis)) for axis in (0, 1)]
    np.testing.assert_allclose(centre, 14, atol=0.6)
    assert 0.9 < image.max() <= 1
    page.evaluate("shape = [8, 8]")
    click(page, "Test digit")


def test_page_goes_back_in_time_and_branches(page):
    train_until(page, 200)
    now = page.evaluate("look.layers[2].values")
    page.get_by_label("Moment", exact=True).fill("5")
    wait(page, "look.when[1] === 5")
    assert "after step 5" in page.inner_text("#when")
    assert page.evaluate("look.layers[2].values") != now
    page.get_by_label("Learning rate").fill("0.5")
    page.get_by_label("Learning rate").blur()
    assert "Branch from here" in page.inner_text("#hint")
    click(page, "Branch from here")
    wait(page, "run.curves[1]?.at(-1)[0] > 20")
    click(page, "Pause")
    wait(page, "!run.training && look.when[0] === 1")
    assert page.input_value("[name=lr]") == "0.5"
    assert page.evaluate("run.curves[0][5]") == page.evaluate("run.curves[1][5]")
    assert page.evaluate("run.curves[0][6]") != page.evaluate("run.curves[1][6]")
    page.get_by_label("Branch", exact=True).select_option("0")
    wait(page, "look.when[0] === 0")
    assert page.input_value("[name=lr]") == "0.1"
    assert page.evaluate("look.layers[2].values") == now
    click(page, "Now")
    wait(page, "look.when[0] === 1")


def test_page_shows_the_unit_one_points_at_and_pins_it(page):
    train_until(page, 20)
    unit = page.get_by_role("button", name="Layer 2, unit 7", exact=True)
    unit.hover()
    wait(page, "look.unit[0] === 1 && look.unit[1] === 7")
    assert "Hidden layer 2, unit 7 (click to pin)" in page.inner_text("#unit")
    unit.click()
    wait(page, "view.pinned[1] === 7")
    page.mouse.move(10, 10)
    wait(page, "!isLooking && !mustLookAgain")
    assert "Hidden layer 2, unit 7 (pinned)" in page.inner_text("#unit")
    value = page.evaluate("look.layers[1].values[7]")
    assert f"relu(z) = {page.evaluate('v => show(v)', value)}" in page.inner_text("#unit")
    unit.focus()
    page.keyboard.press("ArrowRight")
    wait(page, "look.unit[1] === 8")
    page.keyboard.press("Enter")
    wait(page, "view.pinned[1] === 8")


def test_page_goes_backwards_checks_a_weight_and_learns_from_the_drawing(page):
    train_until(page, 50)
    click(page, "Clear")
    stroke(page, circle())
    page.get_by_label("Correct answer").select_option("8")
    wait(page, "look.backwards && !isLooking")
    errors = np.asarray(page.evaluate("look.backwards.sums[2]"))
    np.testing.assert_allclose(errors, np.asarray(page.evaluate("look.layers[2].values")) - np.eye(10)[8], atol=1e-3)
    assert page.locator("#errors tr").count() == 4
    click(page, "Check this weight")
    wait(page, "document.querySelectorAll('#checked mark').length === 2")
    derivative, quotient = (float(text) for text in page.locator("#checked code").all_inner_texts())
    assert derivative == pytest.approx(quotient, rel=1e-5, abs=1e-9)
    before = page.evaluate("look.layers[2].values[8]")
    click(page, "Learn from this drawing")
    wait(page, "before => look.layers[2].values[8] > before", arg=before)


def test_page_adds_points_to_a_plane(page):
    start_over(page, data="circles")
    train_until(page, 1000)
    assert float(re.search(r"accuracy ([\d.]+) %", page.inner_text("#now"))[1]) > 90
    assert page.locator("#layers canvas").count() == 16
    box = page.locator("#field").bounding_box()
    page.get_by_role("radio", name="orange").check()
    for part in (0.48, 0.5, 0.52):
        page.mouse.click(box["x"] + part * box["width"], box["y"] + 0.5 * box["height"])
    wait(page, "look.plane.points.length === 203 && look.settings.points.length === 3")
    before = page.evaluate("look.layers[2].values[1]")
    train_until(page, 3000)
    assert page.evaluate("look.layers[2].values[1]") > before
    page.locator("#field").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    wait(page, "look.settings.points.length === 4")
    click(page, "Remove points")
    wait(page, "look.plane.points.length === 200")
    start_over(page)
    assert page.inner_text("#input-title") == "Draw"


def test_page_survives_a_reload_and_a_second_page_while_it_trains(page, browser, address):
    click(page, "Train")
    wait(page, "run.curves[present()].at(-1)[0] > 50")
    page.reload()
    wait(page, "run.training && look && run.curves[present()].at(-1)[0] > 100")
    second = browser.new_page()
    second.goto(address)
    wait(second, "look && run.training")
    second.get_by_role("button", name="Pause", exact=True).click()
    wait(page, "!run.training")
    second.close()


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_the_screen_and_names_every_control(browser, address, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(address)
    wait(page, "look")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    unnamed = """[...document.querySelectorAll("button, input, select, [tabindex='0']")].filter((control) =>
        !(control.ariaLabel || control.getAttribute("aria-label") || control.labels?.length
          || control.innerText.trim()))
        .map((control) => control.outerHTML)"""
    assert page.evaluate(unnamed) == []
    page.close()


def test_page_says_that_the_server_has_stopped(browser):
    with started("--port", 0) as process:
        page = browser.new_page()
        page.goto(address_of(process))
        wait(page, "look")
        process.send_signal(signal.SIGINT)
        wait(page, "document.querySelector('#note').textContent.startsWith('The server has stopped')")
        assert process.communicate(timeout=30) == ("", "")
        page.close()


def test_page_follows_when_another_page_starts_over_with_fewer_units(page, browser, address):
    train_until(page, 20)
    page.get_by_role("button", name="Layer 1, unit 100", exact=True).click()
    page.mouse.move(10, 10)
    page.get_by_label("Moment", exact=True).fill("5")
    wait(page, "look.when[1] === 5 && isSame(look.unit, [0, 100])")
    second = browser.new_page()
    second.goto(address)
    wait(second, "look")
    start_over(second, width1=30, width2=20)
    wait(page, "look.layers[0].values.length === 30 && isSame(look.unit, [0, 0]) && !view.when")
    start_over(second, data="xor")
    wait(page, "look.plane && document.querySelector('#input-title').textContent === 'Plane'")
    second.close()


def test_page_says_that_the_loss_is_not_finite_until_one_branches_off(page):
    page.locator("[name=optimizer]").select_option("momentum")
    wait(page, "look.settings.optimizer === 'momentum'")
    page.get_by_label("Learning rate", exact=True).fill("100")
    page.get_by_label("L2", exact=True).fill("1")  # the weights grow by a factor
    page.get_by_label("L2", exact=True).blur()
    wait(page, "look.settings.lr === 100 && look.settings.l2 === 1")
    click(page, "Train")
    wait(page, "document.querySelector('#note').textContent.startsWith('The loss is no longer finite')")
    page.get_by_label("Moment", exact=True).fill("0")
    wait(page, "look.when[1] === 0")
    page.get_by_label("Learning rate", exact=True).fill("0.1")
    page.get_by_label("L2", exact=True).fill("0")
    page.get_by_label("L2", exact=True).blur()
    click(page, "Branch from here")
    wait(page, "run.curves[1]?.at(-1)[0] > 50")
    click(page, "Pause")
    wait(page, "!run.training && document.querySelector('#note').textContent === ''")
