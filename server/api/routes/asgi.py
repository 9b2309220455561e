"""The ASGI application: routers, error handlers and access middleware around one container of services."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.types import Lifespan

from server.api.http.access import AccessLog, AccessMiddleware
from server.api.http.errors import install_error_handlers
from server.api.http.head import HeadMiddleware
from server.api.routes import (
    aliases,
    classify,
    document,
    ensemble,
    ensembles,
    files,
    generate,
    health,
    model,
    neighbors,
    tasks,
    tuning_events,
    tuning_jobs,
    upload,
    versions,
)
from server.api.services import Services
from server.api.version import VERSION

ROUTERS: tuple[APIRouter, ...] = (
    generate.router,
    classify.router,
    ensemble.router,
    tasks.router,
    upload.router,
    versions.router,
    neighbors.router,
    aliases.router,
    ensembles.router,
    files.router,
    tuning_jobs.router,
    tuning_events.router,
    model.router,
    health.router,
    health.guarded,
    document.router,
)


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
    install_error_handlers(app)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(AccessMiddleware, log=access)
    return app
