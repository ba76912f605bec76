"""The sandbox's HTTP face: Segment's paths, and `/_sandbox` to see what became of what they took."""

from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.routing import Mount

from segment_tools.sandbox import deliveries, looking, oauth, tracking
from segment_tools.sandbox import faults as faults_module
from segment_tools.sandbox.deliveries import Deliveries
from segment_tools.sandbox.faults import Faults
from segment_tools.sandbox.faulty import Faulty
from segment_tools.sandbox.http import refused
from segment_tools.sandbox.options import Options
from segment_tools.sandbox.store import Store

_ANY_PAGE: dict[str, Any] = {"allow_origins": ["*"], "allow_methods": ["GET", "POST"], "allow_headers": ["*"]}
"""What Segment's own address answers to browsers: the browser library sends from customers' pages."""


def create_app(store: Store, options: Options, faults: Faults) -> Starlette:
    """A sandbox on the store. It answers to this machine's own names alone."""
    tokens = oauth.Tokens(options.oauth)
    sending = Deliveries(store, options.webhooks)
    faulty = Middleware(Faulty, faults)
    app = Starlette(
        routes=[
            Mount(
                "/_sandbox",
                routes=[*looking.routes(store), *faults_module.routes(faults), *deliveries.routes(sending.rows)],
            ),
            oauth.route(tokens, [faulty]),
            Mount(
                "/v1",
                routes=tracking.routes(store, options.sources, tokens),
                middleware=[Middleware(CORSMiddleware, **_ANY_PAGE), faulty],
            ),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
        exception_handlers={HTTPException: refused},
        lifespan=lambda _: sending.running(),
    )
    app.router.redirect_slashes = False  # Segment does not know the other form either
    return app
