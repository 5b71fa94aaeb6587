"""The physical limit: bytes in, bytes out, on asyncio alone; nothing is parsed."""

import asyncio
import os
import sys

import uvloop

HOST, PORT = "127.0.0.1", int(os.environ["UPSTREAM_PORT"])
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Way(asyncio.Protocol):
    """One end of a relay, which writes what it reads to the other end."""

    def __init__(self) -> None:
        self.other: asyncio.Transport | None = None
        self.early = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.other:
            self.other.write(data)
        else:
            self.early += data

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other:
            self.other.close()


class Front(Way):
    """The client's end, with a connection upstream of its own."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.task = asyncio.ensure_future(self.connect())

    async def connect(self) -> None:
        back = Way()
        back.other = self.transport
        loop = asyncio.get_running_loop()
        self.other, _ = await loop.create_connection(lambda: back, HOST, PORT)
        if self.early:
            self.data_received(self.early)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET "):
            self.transport.write(OK)
        else:
            super().data_received(data)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Front, HOST, int(sys.argv[1]), backlog=4096)
    await server.serve_forever()


uvloop.run(main())
