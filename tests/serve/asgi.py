"""Talk to an application as a server does, to hang up when it suits the test."""

import asyncio
import json
from contextlib import asynccontextmanager


@asynccontextmanager
async def running(app):
    """An application between its start and its end."""
    inbox, outbox = asyncio.Queue(), asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan", "state": {}}, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        await outbox.get()
        await task


class Request:
    """A request, whose client may hang up.

    Args:
        app: the application.
        path: where to.
        body: as JSON; bytes are sent as they are; None for GET.
    """

    def __init__(self, app, path, body=None, headers=()):
        self.status = 0
        self.headers = {}
        self.body = b""
        self._gone = asyncio.Event()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._parts = [{"type": "http.request", "body": data if body is not None else b"", "more_body": False}]
        given = {"content-type": "application/json", "content-length": str(len(data)), **dict(headers)}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET" if body is None else "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("test", 1),
            "server": ("test", 80),
        }
        self._task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self):
        if self._parts:
            return self._parts.pop(0)
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")

    def hang_up(self):
        self._gone.set()

    async def done(self):
        """The answer as a whole."""
        async with asyncio.timeout(60):
            await self._task
        return self

    @property
    def json(self):
        return json.loads(self.body)
