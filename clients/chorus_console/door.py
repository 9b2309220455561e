"""What every request to the console goes through: its cookie, its CSRF token, the headers of its answer."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol
from urllib.parse import quote, urlsplit

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Message

from chorus import ApiError, AsyncClient, ChorusError, Me, UnauthenticatedError
from chorus_console.pages import page

LOG = logging.getLogger("chorus.console")

COOKIE = "chorus_console"
SIGN_IN = "/console/sign-in"
MOST_BYTES = 17 << 20
"""Of a body: a data file of 16 MiB in a form. Larger ones go by `chorus files push`."""

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Vary": "Cookie, HX-Request",
}
_SESSION = "cs_"
_CSRF_HEADER = "x-csrf-token"
_CSRF_FIELD = "csrf"


class Sessions(Protocol):
    """Who is signed in."""

    async def open(self, key: str, address: str) -> tuple[str, int]:
        """A new session's token, and for how many seconds it is good."""

    async def end(self, token: str) -> None:
        """Sign out."""


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
        token: the cookie's value: a session's token, or that of somebody who has not signed in.
        lasts: for how many seconds the browser is to keep it; None for as long as it is open.
    """

    def __init__(self, request: Request, clients: Clients, sessions: Sessions) -> None:
        self.request = request
        self.sessions = sessions
        self._clients = clients
        self._came_with = request.cookies.get(COOKIE)
        self.token = self._came_with or self.fresh()
        self.lasts: int | None = None
        self._opened: list[AsyncClient] = []
        self._form: FormData | None = None
        self._me: Me | None = None

    @staticmethod
    def fresh() -> str:
        """A token of somebody who has not signed in."""
        return f"cv_{secrets.token_urlsafe(32)}"

    @property
    def address(self) -> str:
        """Where the request comes from."""
        return self.request.client.host if self.request.client else ""

    @property
    def signed_in(self) -> bool:
        """Whether the browser has a session's token, good or not."""
        return self.token.startswith(_SESSION)

    @property
    def csrf(self) -> str:
        """What every change must bring. It says nothing of the token that it is made from."""
        return hmac.new(self.token.encode(), b"csrf", hashlib.sha256).hexdigest()

    @property
    def is_fragment(self) -> bool:
        """Whether a page asks for a part of itself."""
        return "hx-request" in self.request.headers and "hx-boosted" not in self.request.headers

    @property
    def client(self) -> AsyncClient:
        """A client that asks as whoever signed in."""
        if not self._opened:
            self.client_of(self.token if self.signed_in else None)
        return self._opened[0]

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

    async def form(self) -> FormData:
        """The fields and files of a form.

        Raises:
            HTTPException: 413, it is too large; 400, it is no form.
        """
        if self._form is None:
            counted, receive = 0, self.request.receive

            async def limited() -> Message:
                nonlocal counted
                message = await receive()
                counted += len(message.get("body", b""))
                if counted > MOST_BYTES:
                    raise HTTPException(413, "That is more than 16 MiB: send it with `chorus files push`.")
                return message

            self._form = await Request(self.request.scope, limited).form(max_files=4, max_fields=500)
        return self._form

    async def text(self, name: str, default: str = "") -> str:
        """A text field of the form, without white space around it."""
        value = (await self.form()).get(name, default)
        return value.strip() if isinstance(value, str) else default

    async def check_csrf(self) -> None:
        """Raise HTTPException 403 unless a page that this browser was given asks for the change."""
        given = self.request.headers.get(_CSRF_HEADER)
        if given is None:
            given = await self.text(_CSRF_FIELD)
        if self._came_with is None or not hmac.compare_digest(given.encode(), self.csrf.encode()):
            raise HTTPException(403, "This page is out of date: load it again, and repeat what you did.")

    async def show(self, template: str, status: int = 200, /, **values: object) -> Response:
        """A page, with what surrounds it, or a part of one."""
        me = None if self.is_fragment else await self.me()
        return page(template, status, me=me, csrf=self.csrf, here=self.request.url.path, **values)

    def open_page(self, template: str, status: int = 200, /, **values: object) -> Response:
        """A page for anybody."""
        return page(template, status, me=None, csrf=self.csrf, here=self.request.url.path, **values)

    def go(self, path: str) -> Response:
        """Send the browser to another page of the console."""
        if self.is_fragment:
            return Response(headers={"HX-Redirect": path})
        return RedirectResponse(path, 303)

    def finish(self, response: Response) -> Response:
        """The answer with its headers and, where it is new, its cookie."""
        response.headers.update(HEADERS)
        if self.token != self._came_with:
            secure = self.request.headers.get("origin", "").startswith("https:")  # whatever proxy ended TLS
            response.set_cookie(
                COOKIE,
                self.token,
                self.lasts,
                path="/console",
                httponly=True,
                samesite="strict",
                secure=secure,
            )
        return response

    async def close(self) -> None:
        """Close what was opened."""
        if self._form is not None:
            await self._form.close()
        for client in self._opened:
            await client.close()


Handler = Callable[[Visit], Awaitable[Response]]


class Door:
    """Makes routes' endpoints of handlers.

    Args:
        clients: see `Clients`.
        sessions: who is signed in.
    """

    def __init__(self, clients: Clients, sessions: Sessions) -> None:
        self._clients = clients
        self._sessions = sessions

    def endpoint(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint: checks a change's token, runs the handler, and makes a page of what goes wrong."""

        async def answer(request: Request) -> Response:
            visit = Visit(request, self._clients, self._sessions)
            try:
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
                await visit.close()
            return visit.finish(response)

        return answer


def _sign_in_first(visit: Visit, error: UnauthenticatedError) -> Response:
    """A page asks to sign in and goes on; a part of one asks in a dialog, so that no text is lost."""
    why = str(error) if visit.signed_in else ""
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
        response = visit.open_page("problem.html", status, message=message, details=details)
        response.headers.update({"HX-Retarget": "#problems", "HX-Reswap": "innerHTML show:top"})
        return response
    try:
        me = await visit.me()
    except (ChorusError, HTTPException):
        me = None
    return page(
        "failed.html", status, me=me, csrf=visit.csrf, here=visit.request.url.path, message=message,
        details=details,
    )  # fmt: skip


def _details(error: ChorusError | HTTPException) -> Mapping[str, str]:
    given = {name: getattr(error, name, None) for name in ("code", "field", "request_id")}
    return {name.replace("_", " "): str(value) for name, value in given.items() if value}


def own_path(text: str) -> str:
    """A path of the console that somebody was on; its first page for anything else."""
    parts = urlsplit(text)
    here = text == "/console" or text.startswith(("/console/", "/console?"))
    if parts.scheme or parts.netloc or not here or "\\" in text:
        return "/console"
    return text
