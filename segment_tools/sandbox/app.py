"""The sandbox's HTTP face: Segment's paths, and `/_sandbox` to see what became of what they took."""

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

from segment_tools.sandbox import (
    debugger,
    deliveries,
    looking,
    oauth,
    profile_api,
    profile_views,
    stream,
    tracking,
)
from segment_tools.sandbox import faults as faults_module
from segment_tools.sandbox.access import Guard, Local
from segment_tools.sandbox.deliveries import Deliveries
from segment_tools.sandbox.faults import Faults
from segment_tools.sandbox.faulty import Faulty
from segment_tools.sandbox.http import failed, refused
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.profiles import Profiles
from segment_tools.sandbox.same_origin import SameOrigin
from segment_tools.sandbox.store import Store
from segment_tools.sandbox.stream import Streams


def _access(options: Options) -> Middleware:
    return Middleware(Guard, token=options.token) if options.token else Middleware(Local)


_ANY_PAGE: dict[str, Any] = {"allow_origins": ["*"], "allow_methods": ["GET", "POST"], "allow_headers": ["*"]}
"""What Segment's own address answers to browsers: the browser library sends from customers' pages."""


def create_app(store: Store, options: Options, streams: Streams, faults: Faults) -> Starlette:
    """A sandbox on the store. Without a token it answers to this machine's own names alone."""
    profiles = Profiles(store)
    reading = profile_api.routes(profiles, options.spaces.guarded(options.token))
    tokens = oauth.Tokens(options.oauth)
    taking = tracking.Tracking(store, options, tokens, faults)
    sending = Deliveries(store, options.webhooks)
    faulty = Middleware(Faulty, faults)
    app = Starlette(
        routes=[
            *debugger.page_routes(),
            Mount("/v1/spaces", routes=reading, middleware=[faulty]),
            Mount("/v1/namespaces", routes=reading, middleware=[faulty]),
            Mount(
                "/_sandbox",
                routes=[
                    *looking.routes(store),
                    *debugger.routes(store),
                    *profile_views.routes(profiles),
                    *stream.routes(store, streams),
                    *faults_module.routes(faults),
                    *deliveries.routes(sending.rows),
                ],
                middleware=[Middleware(SameOrigin)],
            ),
            oauth.route(tokens, [faulty]),
            Mount(
                "/v1",
                routes=taking.routes(),
                middleware=[Middleware(CORSMiddleware, **_ANY_PAGE), faulty],
            ),
        ],
        middleware=[Middleware(taking.shortcut), _access(options)],
        exception_handlers={HTTPException: refused, Exception: failed},
        lifespan=lambda _: sending.running(),
    )
    app.router.redirect_slashes = False  # Segment does not know the other form either
    return app
