"""The ASGI application: routers, error handlers and access middleware around one container of services."""

from __future__ import annotations

import importlib
import pkgutil

from fastapi import APIRouter, FastAPI
from starlette.types import Lifespan

from chorus_server.api import routes
from chorus_server.api.http.access import AccessLog, AccessMiddleware
from chorus_server.api.http.errors import install_error_handlers
from chorus_server.api.http.head import HeadMiddleware
from chorus_server.api.openai.errors import PREFIX, openai_error
from chorus_server.api.services import Services
from chorus_server.api.version import VERSION


def _routers() -> tuple[APIRouter, ...]:
    """The routers of every file in this folder, in the order of the files' names."""
    names = [file.name for file in pkgutil.iter_modules(routes.__path__, f"{routes.__name__}.")]
    modules = [importlib.import_module(name) for name in names if name != __name__]
    return tuple(each for module in modules for each in vars(module).values() if isinstance(each, APIRouter))


ROUTERS = _routers()


def build_api(
    services: Services,
    access: AccessLog,
    lifespan: Lifespan[FastAPI] | None = None,
) -> FastAPI:
    """The application.

    Args:
        services: put on `app.state.services`; routes find everything there.
        access: called for each request.
        lifespan: starts before the first request and ends after the last.
    """
    app = FastAPI(
        title="Chorus",
        version=VERSION,
        description="One frozen T5 answers many tuned tasks in one batch.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would go to the Host that the caller wrote
        lifespan=lifespan,
        # Routes as their routers made them: FastAPI would rebuild each to include its router.
        routes=[route for router in ROUTERS for route in router.routes],
    )
    app.state.services = services
    install_error_handlers(app, {f"{PREFIX}/": openai_error})
    app.add_middleware(HeadMiddleware)
    app.add_middleware(AccessMiddleware, log=access)
    return app
