"""The metrics in the form that Prometheus scrapes; needs the packages of the extra `metrics`."""

from collections.abc import Generator
from contextlib import contextmanager

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from segment_tools import telemetry
from segment_tools._version import __version__


class Metrics:
    """What is counted while it runs, whatever SDK the process has for itself."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

    @contextmanager
    def counting(self) -> Generator[None]:
        """Count meanwhile."""
        reader = PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)
        resource = Resource({"service.name": telemetry.SCOPE, "service.version": __version__})
        provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        try:
            with telemetry.measuring(provider):
                yield
        finally:
            provider.shutdown()

    async def answer(self, _: Request) -> Response:
        """Everything that was counted so far."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)
