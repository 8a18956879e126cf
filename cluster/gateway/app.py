"""Builds the HTTP application: routes, middleware, errors."""

from fastapi import FastAPI

from easel.cluster.gateway.answer_drive import AnswerTimes
from easel.cluster.gateway.answer_run import RunParts
from easel.cluster.gateway.answers import Answers
from easel.cluster.gateway.auth import AuthMiddleware
from easel.cluster.gateway.backend import AnswerStore, Backend
from easel.cluster.gateway.body_limit import BodyLimitMiddleware
from easel.cluster.gateway.chat import chat_router
from easel.cluster.gateway.cluster_view import ClusterView, cluster_router
from easel.cluster.gateway.completions import completions_router
from easel.cluster.gateway.error_answers import api_error_of, install_error_handlers
from easel.cluster.gateway.gateway import Gateway
from easel.cluster.gateway.metrics import GatewayMetrics, MetricsMiddleware
from easel.cluster.gateway.metrics_route import metrics_router
from easel.cluster.gateway.models import models_router
from easel.cluster.gateway.observation import Observation
from easel.cluster.gateway.openapi import install_openapi
from easel.cluster.gateway.operations import operations_router
from easel.cluster.gateway.pages import pages_router
from easel.cluster.gateway.recent_refusals import RecentRefusals
from easel.cluster.gateway.request_spans import RequestSpanMiddleware
from easel.cluster.gateway.responses import responses_router
from easel.cluster.gateway.serve_probes import serve_probes_router
from easel.cluster.gateway.settings import GatewaySettings, Sources, system_sources
from easel.cluster.gateway.timelines import Timelines
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.worker.model_info import ModelInfo


def build_gateway(  # noqa: PLR0913, PLR0917 one parameter per part
    backend: Backend,
    model: ModelInfo,
    tokenizer: ChatTokenizer,
    settings: GatewaySettings | None = None,
    sources: Sources | None = None,
    answers: AnswerStore | None = None,
    times: AnswerTimes | None = None,
    view: ClusterView | None = None,
    observation: Observation | None = None,
) -> FastAPI:
    """The gateway as an ASGI application. It starts nothing and owns no connection but its clients'.

    Without `view` it shows its own requests only. Without `answers` nothing outlives its connection.
    With them, `app.state.answers.start()` begins the search for background answers that nobody
    drives, as the first request does too, and `await app.state.answers.stop()` leaves those that are
    driven here to other gateways.
    """
    settings = settings or GatewaySettings()
    sources = sources or system_sources()
    view = view or ClusterView(Timelines(sources.clock, sources.wall), sources.clock)
    observation = observation or Observation()
    metrics = observation.metrics or GatewayMetrics(sources.clock, model.block_length)
    parts = RunParts(
        backend=backend,
        store=answers,
        metrics=metrics,
        times=times or AnswerTimes(),
        wall=sources.wall,
        explain=lambda error: api_error_of(error, settings.retry_after_seconds),
        timelines=view.timelines,
    )
    kept = Answers(parts, tokenizer, settings.stream_buffer)
    refusals = RecentRefusals(sources.clock)
    gateway = Gateway(backend, model, tokenizer, settings, sources, metrics, kept, refusals)
    app = FastAPI(title="Easel", redoc_url=None)
    app.state.answers = kept
    _add_routes(app, gateway)
    app.include_router(metrics_router(metrics, observation.tallies))
    app.include_router(cluster_router(gateway, view))
    install_openapi(app, settings)
    install_error_handlers(app, settings.retry_after_seconds)
    _add_middleware(app, gateway, observation)
    return app


def _add_routes(app: FastAPI, gateway: Gateway) -> None:
    for build in (
        chat_router,
        completions_router,
        responses_router,
        models_router,
        operations_router,
        pages_router,
        serve_probes_router,
    ):
        app.include_router(build(gateway))


def _add_middleware(app: FastAPI, gateway: Gateway, observation: Observation) -> None:
    """The last added is the outermost: everything is counted, keys come before bodies."""
    settings = gateway.settings
    app.add_middleware(
        BodyLimitMiddleware,
        max_bytes=settings.max_body_bytes,
        max_depth=settings.max_depth,
        seconds=settings.body_seconds,
        max_header_bytes=settings.max_header_bytes,
    )
    app.add_middleware(
        RequestSpanMiddleware,
        telemetry=observation.telemetry,
        clock=gateway.sources.clock,
        tokenizer=gateway.tokenizer,
    )
    app.add_middleware(AuthMiddleware, api_keys=settings.api_keys, tenants=settings.tenants)
    app.add_middleware(MetricsMiddleware, metrics=gateway.metrics)
