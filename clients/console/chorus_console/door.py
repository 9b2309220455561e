"""What every request to the console goes through: its cookie, its CSRF token, the headers of its answer."""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import ParamSpec, Protocol, TypeVar
from urllib.parse import quote, urlsplit

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from chorus import ApiError, AsyncClient, ChorusError, Me, UnauthenticatedError
from chorus_console.pages import page

P = ParamSpec("P")
T = TypeVar("T")

LOG = logging.getLogger("chorus.console")

SIGN_IN = "/console/sign-in"
MOST_BYTES = 17 << 20
"""Of a form that brings its CSRF token in a header: a data file of 16 MiB. Larger ones go by `chorus files
push`."""
MOST_PLAIN_BYTES = 64 << 10
"""Of a form that has its CSRF token inside, and so is read before the token is looked at."""

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Vary": "Cookie, HX-Request",
}
_COOKIE_SECONDS = 30 * 24 * 3600
"""Longer than any session: its cookie says whose session is over, and the page's CSRF token stays good."""
_PORT = re.compile(r":([0-9]{1,5})$")
_SESSION = "cs_"
_CSRF_HEADER = "x-csrf-token"
_CSRF_FIELD = "csrf"


class Sessions(Protocol):
    """Who is signed in. Both raise `ChorusError` as a client does."""

    async def open(self, key: str, address: str) -> str:
        """A new session's token."""

    async def end(self, token: str) -> None:
        """Sign out."""


class Work(Protocol):
    """Runs what takes long on one of a few threads. Raises `ChorusError` as a client does if too much
    waits for them."""

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns."""


Clients = Callable[[str, str, str | None], AsyncClient]
"""Makes a client that asks this server in process, given the `Host` and the address of the browser's request,
and a session's token or a key."""


class Visit:
    """One request of a browser.

    Args:
        clients: see `Clients`.

    Attributes:
        request: the request itself.
        sessions: who is signed in.
        work: runs what takes long.
        session: the token of the browser's session, good or not; None without one. What a handler sets goes
            into the cookie.
    """

    def __init__(self, request: Request, clients: Clients, sessions: Sessions, work: Work) -> None:
        self.request = request
        self.sessions = sessions
        self.work = work
        self._clients = clients
        # Browsers send a host's cookies to each of its ports, where another Chorus may be.
        port = _PORT.search(request.headers.get("host", ""))
        self._cookie = "chorus_console" + (f"_{port[1]}" if port else "")
        came = request.cookies.get(self._cookie)
        self._came_with = self.session = came if came is not None and came.startswith(_SESSION) else None
        # A cookie of its own, so that a late answer to somebody without a session overwrites no session.
        self._visitor_came = request.cookies.get(f"{self._cookie}_visitor")
        self._visitor = self._visitor_came or secrets.token_urlsafe(32)
        self._expected = self.csrf if self._came_with or self._visitor_came else None
        self._opened: list[AsyncClient] = []
        self._client: AsyncClient | None = None
        self._form: FormData | None = None
        self._me: Me | None = None
        self._sends = False

    @property
    def address(self) -> str:
        """Where the request comes from."""
        return self.request.client.host if self.request.client else ""

    @property
    def csrf(self) -> str:
        """What every change must bring. It says nothing of the token that it is made from."""
        token = self.session or self._visitor
        return hmac.new(token.encode(), b"csrf", hashlib.sha256).hexdigest()

    @property
    def is_fragment(self) -> bool:
        """Whether a page asks for a part of itself."""
        return "hx-request" in self.request.headers and "hx-boosted" not in self.request.headers

    @property
    def client(self) -> AsyncClient:
        """A client that asks as whoever signed in."""
        if self._client is None:
            self._client = self.client_of(self.session)
        return self._client

    def client_of(self, key: str | None) -> AsyncClient:
        """A client that asks with a key, or without any."""
        made = self._clients(self.request.headers.get("host", ""), self.address, key)
        self._opened.append(made)
        return made

    async def me(self) -> Me:
        """Who asks."""
        if self._me is None:
            self._me = await self.client.me()
        return self._me

    async def needs(self, scope: str) -> None:
        """Raise HTTPException 403 if the key lacks the scope of all that the page is for."""
        if scope not in (await self.me()).scopes:
            raise HTTPException(403, f"This page needs the scope {scope}, which this key lacks.")

    async def admit(self) -> None:
        """Find out who asks, before anything else is done for the request.

        A cookie whose session is over is dropped where no key is needed.

        Raises:
            ChorusError: as of a client; UnauthenticatedError for nobody.
        """
        try:
            await self.me()
        except UnauthenticatedError:
            if self.session is None:
                raise
            anybody = self.client_of(None)
            try:
                self._me = await anybody.me()
            except ChorusError:
                self._me = None
            if self._me is None:
                raise
            self._client, self.session = anybody, None

    async def form(self) -> FormData:
        """The fields and files of a form.

        Raises:
            HTTPException: 413, it is too large; 400, it is no form.
        """
        header = _CSRF_HEADER in self.request.headers
        most, size = (MOST_BYTES, "16 MiB") if header else (MOST_PLAIN_BYTES, "64 KiB")
        if self._form is None:
            counted, receive = 0, self.request.receive

            async def limited() -> Message:
                nonlocal counted
                message = await receive()
                counted += len(message.get("body", b""))
                if counted > most:
                    raise HTTPException(413, f"That is more than {size}: send it with `chorus files push`.")
                return message

            self._form = await Request(self.request.scope, limited).form(max_files=4, max_fields=500)
        return self._form

    async def text(self, name: str, default: str = "") -> str:
        """A text field of the form, without white space around it."""
        value = (await self.form()).get(name, default)
        return value.strip() if isinstance(value, str) else default

    async def check_csrf(self) -> None:
        """Raise HTTPException 403 unless a page that this browser was given asks for the change.

        Without the header, `form` reads no more than a small form.
        """
        given = self.request.headers.get(_CSRF_HEADER)
        if given is None:
            given = await self.text(_CSRF_FIELD)
        if self._expected is None or not hmac.compare_digest(given.encode(), self._expected.encode()):
            raise HTTPException(
                403,
                "This page was out of date: repeat what you did, and load it anew if that is refused too.",
            )

    async def show(self, template: str, status: int = 200, /, **values: object) -> Response:
        """A page, with what surrounds it, or a part of one."""
        return page(
            template, status, me=await self.me(), csrf=self.csrf, here=self.request.url.path, **values
        )

    def open_page(self, template: str, status: int = 200, /, **values: object) -> Response:
        """A page for anybody."""
        return page(template, status, me=None, csrf=self.csrf, here=self.request.url.path, **values)

    def go(self, path: str) -> Response:
        """Send the browser to another page of the console."""
        if self.is_fragment:
            return Response(headers={"HX-Redirect": path})
        return RedirectResponse(path, 303)

    async def send(self, pieces: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> Response:
        """An answer of any size, as it comes. Raises as `pieces` does before its first one."""
        first = await anext(pieces, b"")
        self._sends = True
        return _Sent(self, first, pieces, headers)

    def finish(self, response: Response) -> Response:
        """The answer with its headers and, where it is new, its cookie."""
        response.headers.update(HEADERS)
        if self.session != self._came_with:
            self._set(response, self._cookie, self.session or "", _COOKIE_SECONDS if self.session else 0)
        if self.session is None and self._visitor_came is None:
            self._set(response, f"{self._cookie}_visitor", self._visitor, _COOKIE_SECONDS)
        return response

    def _set(self, response: Response, name: str, value: str, seconds: int) -> None:
        secure = self.request.headers.get("origin", "").startswith("https:")  # whatever proxy ended TLS
        response.set_cookie(
            name, value, seconds, path="/console", httponly=True, samesite="strict", secure=secure
        )

    async def leave(self) -> None:
        """Close what was opened, unless the answer needs it until it is sent."""
        if not self._sends:
            await self.close()

    async def close(self) -> None:
        """Close what was opened."""
        if self._form is not None:
            await self._form.close()
        for client in self._opened:
            await client.close()


class _Sent(StreamingResponse):
    """What comes in pieces. The visit is over when it is sent, or cannot be."""

    def __init__(
        self, visit: Visit, first: bytes, rest: AsyncGenerator[bytes, None], headers: Mapping[str, str]
    ) -> None:
        super().__init__(self._pieces(first), headers=headers)
        self._visit = visit
        self._rest = rest

    async def _pieces(self, first: bytes) -> AsyncGenerator[bytes, None]:
        yield first
        async for piece in self._rest:
            yield piece

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._rest.aclose()
            await self._visit.close()


Handler = Callable[[Visit], Awaitable[Response]]


class Door:
    """Makes routes' endpoints of handlers.

    Args:
        clients: see `Clients`.
        sessions: who is signed in.
        work: runs what takes long.
    """

    def __init__(self, clients: Clients, sessions: Sessions, work: Work) -> None:
        self._clients = clients
        self._sessions = sessions
        self._work = work

    def endpoint(
        self, handler: Handler, *, anybody: bool = False
    ) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint: finds out who asks, checks a change's token, runs the handler, and makes a page of
        what goes wrong.

        Args:
            anybody: whether it is also for those who have not signed in.
        """

        async def answer(request: Request) -> Response:
            visit = Visit(request, self._clients, self._sessions, self._work)
            try:
                if not anybody:
                    await visit.admit()
                if request.method not in ("GET", "HEAD"):
                    await visit.check_csrf()
                response = await handler(visit)
            except UnauthenticatedError as error:
                response = _sign_in_first(visit, error)
            except (ChorusError, HTTPException) as error:
                response = await _failed(visit, error)
            except Exception:
                LOG.exception("a page of the console failed")
                response = await _failed(visit, HTTPException(500, "The console failed; the log says how."))
            finally:
                await visit.leave()
            return visit.finish(response)

        return answer


def _sign_in_first(visit: Visit, error: UnauthenticatedError) -> Response:
    """A page asks to sign in and goes on; a part of one asks in a dialog, so that no text is lost."""
    why = str(error) if visit.session is not None else ""
    if visit.is_fragment:
        response = visit.open_page("sign_in_dialog.html", 401, why=why)
        response.headers.update({"HX-Retarget": "#dialog", "HX-Reswap": "innerHTML"})
        return response
    to = visit.request.url.path
    if visit.request.url.query:
        to += f"?{visit.request.url.query}"
    return RedirectResponse(f"{SIGN_IN}?next={quote(to)}" + ("&over=1" if why else ""), 303)


async def _failed(visit: Visit, error: ChorusError | HTTPException) -> Response:
    if isinstance(error, HTTPException):
        status, message = error.status_code, error.detail
    else:
        status, message = (error.status or 500) if isinstance(error, ApiError) else 400, str(error)
    details = _details(error)
    if visit.is_fragment:
        # With the CSRF token that goes with the cookie: the next attempt succeeds where this one's was old.
        response = visit.open_page("problem.html", status, message=message, details=details, renew=visit.csrf)
        response.headers.update({"HX-Retarget": "#problems", "HX-Reswap": "innerHTML show:top"})
    else:
        try:
            me = await visit.me()
        except (ChorusError, HTTPException):
            me = None
        response = page(
            "failed.html", status, me=me, csrf=visit.csrf, here=visit.request.url.path, message=message,
            details=details,
        )  # fmt: skip
    if isinstance(error, ApiError) and error.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
    return response


def _details(error: ChorusError | HTTPException) -> Mapping[str, str]:
    given = {name: getattr(error, name, None) for name in ("code", "field", "request_id")}
    return {name.replace("_", " "): str(value) for name, value in given.items() if value}


def own_path(text: str) -> str:
    """A path of the console that somebody was on; its first page for anything else."""
    try:
        parts = urlsplit(text)
    except ValueError:  # such as of "//["
        return "/console"
    here = text == "/console" or text.startswith(("/console/", "/console?"))
    if parts.scheme or parts.netloc or not here or "\\" in text:
        return "/console"
    return text
