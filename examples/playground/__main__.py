"""Watch a network think and learn, in a browser.

    python examples/playground                  # MNIST, downloaded once; offline, the bundled digits
    python examples/playground --data DIR       # the four files of MNIST in DIR
    python examples/playground --data digits    # the bundled digits

The server holds one variable: the run, an immutable value. A command replaces it with another; training replaces it
with one that has more moments. The server then sends every page what is new.
"""

import argparse
import asyncio
import contextlib
import errno
import os
import socket
import sys
import webbrowser
from pathlib import Path
from typing import Literal

import commands
import numpy as np
import pydantic
import pydantic_core
import runs
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.endpoints import WebSocketEndpoint
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect, WebSocketState
from threadpoolctl import threadpool_limits

import purenn as nn

LONGEST = 64 * 1024  # characters
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'"
HEADERS = {"Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'", "Cache-Control": "no-store"}


def guarded(app):
    """Refuse what another site's page sends: the Host and the Origin must be this server's (against DNS rebinding)."""

    async def guard(scope, receive, send):
        if scope["type"] != "lifespan":
            host, origin = (Headers(scope=scope).get(name, "") for name in ("host", "origin"))
            if host.partition(":")[0] not in ("127.0.0.1", "localhost") or origin not in ("", f"http://{host}"):
                error = f"Host is {host!r} and Origin {origin!r}, but they must be the address of this server"
                return await JSONResponse({"error": error}, status_code=403)(scope, receive, send)
        return await app(scope, receive, send)

    return guard


async def page(request):
    """Answer with the page."""
    return FileResponse(Path(__file__).with_name("page.html"), headers=HEADERS)


class Talk(WebSocketEndpoint):
    """Answer a page's messages, and tell it when there is a new run."""

    async def on_connect(self, websocket):
        """Begin to push."""
        await websocket.accept()
        self.pushing = asyncio.create_task(push(websocket))

    async def on_receive(self, websocket, text):
        """Answer a message."""
        websocket.app.state.run, reply = answer(websocket.app.state.run, text)
        await send(websocket, reply)

    async def on_disconnect(self, websocket, close_code):
        """Stop pushing."""
        self.pushing.cancel()


class Request(pydantic.BaseModel, extra="forbid"):
    """A message: a command, its arguments, and the number that the reply repeats."""

    id: int
    command: Literal[*commands.COMMANDS]
    arguments: dict[str, pydantic.JsonValue] = {}


def answer(run, text):
    """Return the run after a message, and the reply."""
    request = None
    try:
        if len(text) > LONGEST:
            raise ValueError(f"the message has {len(text):,} characters, but must have at most {LONGEST:,}")
        request = Request.model_validate_json(text)
        with np.errstate(all="ignore"):  # parameters that are not finite are shown
            run, reply = commands.COMMANDS[request.command](run, **request.arguments)
    except (ValueError, IndexError) as error:
        first = error.errors()[0] if isinstance(error, pydantic.ValidationError) else {"loc": (), "msg": error}
        reply = {"error": ": ".join(map(str, (*first["loc"], first["msg"])))}
    return run, {"id": request and request.id} | reply


async def push(websocket):
    """Send what is new."""
    seen = None
    while websocket.application_state == WebSocketState.CONNECTED:
        run = websocket.app.state.run
        if run is not seen:
            await send(websocket, {"run": commands.status(run, seen)})
            seen = run
        await asyncio.sleep(0.03)


async def send(websocket, value):
    """Send JSON, if the page still listens; numbers that are not finite become null."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the latter if it was known to be gone
        await websocket.send_text(pydantic_core.to_json(value, inf_nan_mode="null").decode())


async def keep_training(state):
    """While a run is training, replace it with one that has more moments."""
    head = None
    while True:
        run = state.run
        if not run.is_training:
            await asyncio.sleep(0.02)
            continue
        if run.head is not head:
            following = runs.training(run, seconds=0.2)
        new, head = await asyncio.to_thread(next, following), None
        if state.run is run:  # no command came in between
            state.run = runs.grown(run, new)
            head = state.run.head


@contextlib.asynccontextmanager
async def lifespan(app):
    """Train while the server runs."""
    training = asyncio.create_task(keep_training(app.state))
    yield
    training.cancel()


def application(digits):
    """Return the server, with a new run on the digits."""
    app = Starlette(routes=[Route("/", page), WebSocketRoute("/talk", Talk)], lifespan=lifespan)
    app.state.run = runs.start(digits, runs.Settings())
    return guarded(app)


def load_data(source):
    """Return the digits that ``--data`` names; without it MNIST, or offline the bundled digits."""
    try:
        return nn.mnist.digits() if source == "digits" else nn.mnist.load(source)
    except (ConnectionError, ImportError) as error:
        print(f"{str(error).partition(';')[0]}. Using the bundled digits instead")
        return nn.mnist.digits()


def main():
    """Serve the page until Ctrl-C."""
    parser = argparse.ArgumentParser(description="See a network think and learn.")
    parser.add_argument("--data", metavar="DIR", help="directory with MNIST's files, or 'digits' for the bundled ones")
    parser.add_argument("--port", type=int, default=8000, help="0 picks a free one")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    options = parser.parse_args()
    if "OPENBLAS_NUM_THREADS" not in os.environ:  # a core is left for the browser
        threadpool_limits(max(1, (os.cpu_count() or 1) - 1))
    try:
        app, listener = application(load_data(options.data)), socket.create_server(("127.0.0.1", options.port))
    except (OSError, ValueError, OverflowError) as error:
        sys.exit(f"error: {error}{'; --port 0 picks a free one' * (getattr(error, 'errno', 0) == errno.EADDRINUSE)}")
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    print(f"playground at {address}; press Ctrl-C to stop", flush=True)
    if not options.no_browser:
        webbrowser.open(address)
    config = uvicorn.Config(app, log_level="warning", ws_max_size=2**20, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
