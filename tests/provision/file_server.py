"""A server on loopback that can be told to misbehave."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Files:
    """What the server holds, and how it behaves.

    Attributes:
        content: path → bytes.
        cuts: after how many bytes the next answers end early.
        statuses: error statuses of the next answers.
        ranges: whether it answers ranges.
        tag: what it says names the content.
        requests: (path, Range) of what was asked.
    """

    def __init__(self):
        self.content, self.cuts, self.statuses, self.requests = {}, [], [], []
        self.ranges, self.tag, self.url = True, '"one"', ""


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        files = self.server.files
        files.requests.append((self.path, self.headers.get("Range")))
        if files.statuses:
            return self._end(files.statuses.pop(0), {"Retry-After": "0"})
        if self.path not in files.content:
            return self._end(404)
        body, start = files.content[self.path], self._start(files)
        if start and start >= len(body):
            return self._end(416, {"Content-Range": f"bytes */{len(body)}"})
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        if files.tag:
            self.send_header("ETag", files.tag)
        self.end_headers()
        rest = body[start:]
        self.wfile.write(rest[: files.cuts.pop(0)] if files.cuts else rest)
        self.close_connection = True
        return None

    def _start(self, files):
        wanted = self.headers.get("Range")
        honoured = wanted and files.ranges and self.headers.get("If-Range") == files.tag
        return int(wanted.removeprefix("bytes=").rstrip("-")) if honoured else 0

    def _end(self, status, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()


@contextlib.contextmanager
def serving():
    """Serves on loopback; yields what it serves, to be filled."""
    files = Files()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.files = files
        files.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield files
        finally:
            server.shutdown()
            thread.join()
