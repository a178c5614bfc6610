"""Asks a chat completions endpoint: many requests at once, with retries, pauses and a rate limit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import queue
import random
import textwrap
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from time import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from raysandbox.core.errors import JobFailed
from raysandbox.core.keys import package_version
from raysandbox.core.redact import REDACTED, redact_text
from raysandbox.executors.infer._answers import Answer, Fault, count_of

if TYPE_CHECKING:
    import aiohttp

__all__ = ["ChatClient", "value_at"]

logger = logging.getLogger(__name__)

_FIRST_WAIT_S = 1.0  # doubles with every try
_LONGEST_WAIT_S = 60.0
_LONGEST_PAUSE_S = 600.0  # that a server may ask for
_POLL_S = 0.5
_END_S = 10.0  # for connections to close
_MANY = frozenset({408, 425, 429})  # and all above 500: another time it may work
_HOPELESS = frozenset({401, 404, 405})  # wrong for every row alike
_MIN_SECRET = 8  # "EMPTY" and the like, which servers without keys are given, are words


class _Again(Exception):
    """A try failed in a way that another one need not; `wait` is what the server asks for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Pace:
    """Says when the next request may start: not before its turn, and not while the server wants a pause."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._not_before = 0.0
        self._lock = asyncio.Lock()

    async def turn(self) -> None:
        """Waits for it."""
        now = asyncio.get_running_loop().time
        async with self._lock:
            # waits: pauses are capped (_LONGEST_PAUSE_S), turns come by the rate limit
            while (left := self._not_before - now()) > 0:  # a pause may begin meanwhile
                await asyncio.sleep(left)
            self._not_before = now() + self._interval

    def pause(self, seconds: float) -> bool:
        """Lets nobody start for some time; returns whether that is news, by more than half a second."""
        end = asyncio.get_running_loop().time() + seconds
        news = end > self._not_before + 0.5
        self._not_before = max(self._not_before, end)
        return news


@dataclass
class ChatClient:
    """Sends requests to one endpoint.

    Attributes:
        url: of the chat completions.
        key: sent as a bearer token; None for none.
        response_path: where in an answer its text is.
        concurrency: requests that wait for their answers at the same time.
        requests_per_minute: limit of requests started; None for none.
        timeout_s: after which a request counts as failed.
        retries: how often a failed one is sent again.
        requests: sent so far, every try counted.
        retried: those among them that were sent before.
    """

    url: str
    key: str | None = field(repr=False)
    response_path: Sequence[str]
    concurrency: int
    requests_per_minute: float | None
    timeout_s: float
    retries: int
    requests: int = 0
    retried: int = 0

    def ask(self, bodies: Sequence[Mapping[str, Any]]) -> Generator[tuple[int, Answer | Fault], None, None]:
        """Sends every body once; yields (index, outcome) as the answers come. Closing it ends the requests.

        A request leaves only when the caller has come back for more: never more than `concurrency`
        are on their way or in the caller's hands, and lost if the process dies.

        The event loop runs in a thread of its own, since a notebook's thread has one already.

        Raises:
            JobFailed: the endpoint refuses whatever it is sent.
        """
        found: queue.SimpleQueue[tuple[int, Answer | Fault] | None] = queue.SimpleQueue()
        loop = asyncio.new_event_loop()
        room = asyncio.Semaphore(self.concurrency)
        asking = loop.create_task(self._ask_all(bodies, room, found.put))
        asking.add_done_callback(lambda _: (loop.stop(), found.put(None)))
        thread = threading.Thread(target=loop.run_forever, name="inference", daemon=True)
        thread.start()
        try:
            while (item := _next(found)) is not None:
                yield item
                loop.call_soon_threadsafe(room.release)
            asking.result()  # waits: no more, None says that it is done
        finally:
            loop.call_soon_threadsafe(asking.cancel)
            thread.join(_END_S)
            if thread.is_alive():
                logger.warning("%s: connections do not close within %.0f s and are left", self.url, _END_S)
            else:
                loop.close()

    async def _ask_all(
        self,
        bodies: Sequence[Mapping[str, Any]],
        room: asyncio.Semaphore,
        put: Callable[[tuple[int, Answer | Fault]], None],
    ) -> None:
        import aiohttp

        pace = _Pace(60.0 / self.requests_per_minute if self.requests_per_minute else 0.0)
        headers = {"User-Agent": f"raysandbox/{package_version()}"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        waiting = iter(enumerate(bodies))

        async def work(session: aiohttp.ClientSession) -> None:
            for index, body in waiting:  # shared: each takes the next one
                await room.acquire()  # waits: for whoever takes the answers; cancelled when nobody does
                put((index, await self._answer(session, pace, body)))

        async with aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=self.concurrency),
            timeout=aiohttp.ClientTimeout(total=self.timeout_s),
            proxy=_proxy(self.url),
        ) as session:
            workers = [asyncio.create_task(work(session)) for _ in range(min(self.concurrency, len(bodies)))]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _answer(self, session: aiohttp.ClientSession, pace: _Pace, body: Mapping[str, Any]) -> Answer | Fault:
        """One row's outcome, after as many tries as it takes or may take."""
        attempt = 0
        while True:
            await pace.turn()
            self.requests += 1
            try:
                return await self._once(session, body)
            except _Again as error:
                if attempt == self.retries:
                    tries = f" ({attempt + 1} tries)" if attempt else ""
                    return Fault(f"{error}{tries}")
                if error.wait and pace.pause(error.wait):
                    logger.warning("%s asks for a pause of %.0f s", self.url, error.wait)
                # Jitter, so that requests that failed together do not come back together.
                wait = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(attempt, 16))
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            attempt += 1
            self.retried += 1

    async def _once(self, session: aiohttp.ClientSession, body: Mapping[str, Any]) -> Answer | Fault:
        import aiohttp

        try:
            # A redirect would take the key elsewhere.
            async with session.post(self.url, json=body, allow_redirects=False) as response:
                content = await response.read()
                status, wait = response.status, _retry_after(response.headers.get("Retry-After", ""))
        except TimeoutError as error:
            raise _Again(f"no answer within {self.timeout_s:g} s") from error
        except aiohttp.InvalidURL as error:
            raise JobFailed(f"api_endpoint: {self.url} is no address") from error
        except aiohttp.ClientError as error:
            raise _Again(redact_text(f"{type(error).__name__}: {error}")) from error
        text = self._without_key(content.decode("utf-8", "replace"))
        if 200 <= status < 300:
            return _read(text, self.response_path)
        reason = f"the server answers {status}: {_excerpt(text)}"
        if status in _MANY or status >= 500:
            raise _Again(reason, wait)
        if status in _HOPELESS or status < 400:
            raise JobFailed(f"{self.url}: {reason} (correct api_endpoint, model or the key in api_key_env)")
        return Fault(reason)

    def _without_key(self, text: str) -> str:
        """An answer without the key, which servers like to quote."""
        return text.replace(self.key, REDACTED) if self.key and len(self.key) >= _MIN_SECRET else text


def _next(found: queue.SimpleQueue[tuple[int, Answer | Fault] | None]) -> tuple[int, Answer | Fault] | None:
    """The next outcome, None at the end: every request has its timeout and its tries."""
    while True:  # waits: in short ones, since a longer one can only be interrupted in the main thread
        with contextlib.suppress(queue.Empty):
            return found.get(timeout=_POLL_S)


def value_at(value: Any, path: Sequence[str]) -> Any:
    """The value at a path of keys and list indices.

    Raises:
        KeyError: there is none.
    """
    for part in path:
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (IndexError, ValueError, TypeError, KeyError):
            raise KeyError(part) from None
    return value


def _read(text: str, path: Sequence[str]) -> Answer:
    """The answer that a body holds; everything else is tried again."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise _Again(f"the answer is not JSON: {_excerpt(text)}") from None
    try:
        found = value_at(body, path)
    except KeyError:
        raise _Again(f"the answer has no {'.'.join(path)}: {_excerpt(text)}") from None
    if not isinstance(found, str):
        raise _Again(f"{'.'.join(path)} of the answer is no text: {_excerpt(text)}")
    if not found.strip():
        raise _Again(f"{'.'.join(path)} of the answer is empty: {_excerpt(text)}")
    usage = body.get("usage") if isinstance(body, dict) else None
    counts = usage if isinstance(usage, dict) else {}
    try:
        cut = value_at(body, ("choices", "0", "finish_reason")) == "length"
    except KeyError:
        cut = False
    return Answer(found, count_of(counts.get("prompt_tokens")), count_of(counts.get("completion_tokens")), cut)


def _excerpt(text: str) -> str:
    return textwrap.shorten(redact_text(text[:2000]), 200) or "nothing"


def _retry_after(header: str) -> float:
    """Seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3); 0 when it says nothing."""
    try:
        seconds = float(header) if header.isdigit() else parsedate_to_datetime(header).timestamp() - time()
    except ValueError:
        return 0.0
    return min(max(0.0, seconds), _LONGEST_PAUSE_S)


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for an address. aiohttp's own way reads ~/.netrc as well."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
