"""A chat server on loopback that misbehaves as it is told."""

import json
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


def body(text, **more):
    return {"choices": [{"message": {"role": "assistant", "content": text}}], **more}


class ChatServer(ThreadingHTTPServer):
    """Answers "echo: QUESTION"; `behave(question, times)` may return (status, headers, bytes) instead.

    Attributes:
        asked: how often each question came.
        bodies: of the requests.
        headers: of the requests.
        busiest: most requests that were here at the same time.
        delay: seconds before an answer.
    """

    daemon_threads = True
    request_queue_size = 64  # of 5, connections wait for a second

    def __init__(self):
        self.asked, self.bodies, self.headers, self.times = Counter(), [], [], []
        self.behave = lambda question, times: None
        self.delay, self.busy, self.busiest = 0.0, 0, 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1/chat/completions"

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # of a client that was killed
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = request["messages"][-1]["content"]
        with server.lock:
            server.asked[question] += 1
            times = server.asked[question]
            server.bodies.append(request)
            server.headers.append(dict(self.headers))
            server.times.append(time.monotonic())
            server.busy += 1
            server.busiest = max(server.busiest, server.busy)
        time.sleep(server.delay)
        found = server.behave(question, times)
        status, headers, content = found or (200, {}, json.dumps(body(f"echo: {question}", usage=USAGE)).encode())
        with server.lock:
            server.busy -= 1
        try:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            pass  # the client has gone

    def log_message(self, *arguments):
        pass


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]
