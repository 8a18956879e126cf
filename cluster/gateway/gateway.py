"""What every route needs, and the path that chat and plain completions share."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse
from starlette.responses import Response

from easel.cluster.gateway.backend import Backend
from easel.cluster.gateway.bodies import GenerationBody
from easel.cluster.gateway.choice import Delta, choices_of
from easel.cluster.gateway.disconnect import unless_disconnected
from easel.cluster.gateway.error_answers import api_error_of
from easel.cluster.gateway.errors import ApiError, InvalidField, UnknownModel
from easel.cluster.gateway.generation import Generation
from easel.cluster.gateway.metrics import GatewayMetrics
from easel.cluster.gateway.params import Origin, Tokens, requests_of, seed_of
from easel.cluster.gateway.settings import GatewaySettings, Sources
from easel.cluster.gateway.shapes import Shape
from easel.cluster.gateway.streaming import stream_response
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.worker.model_info import ModelInfo


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts of one gateway process."""

    backend: Backend
    model: ModelInfo
    tokenizer: ChatTokenizer
    settings: GatewaySettings
    sources: Sources
    metrics: GatewayMetrics

    def require_model(self, name: str) -> None:
        """Raises UnknownModel unless this gateway serves a model of that name."""
        if name != self.model.name:
            raise UnknownModel(name, [self.model.name])

    def explain(self, error: BaseException) -> ApiError:
        """What a client is told about an error."""
        return api_error_of(error, self.settings.retry_after_seconds)

    async def answer(
        self, http: HttpRequest, body: GenerationBody, prompts: Sequence[Tokens], shape: Shape
    ) -> Response:
        """Run the choices and answer with one JSON object or a stream of events."""
        generation = self._generation(http, body, prompts, shape)
        headers = {"X-Easel-Request-Id": generation.completion_id}
        deltas = generation.run(self.backend, self.metrics)
        if body.stream:
            opening = stream_response(generation, deltas, body.usage_wanted, self.explain, headers)
            return await unless_disconnected(http.receive, opening)
        await unless_disconnected(http.receive, _exhaust(deltas))
        return JSONResponse(generation.whole(), headers=headers)

    def _generation(
        self, http: HttpRequest, body: GenerationBody, prompts: Sequence[Tokens], shape: Shape
    ) -> Generation:
        self._check_count(len(prompts), body)
        origin = Origin(
            completion_id=shape.id_prefix + self.sources.new_id(),
            tenant=http.state.tenant,
            fresh_seed=self.sources.new_seed(),
        )
        requests = requests_of(body, prompts, shape.prompt_field, self.model, origin)
        return Generation(
            completion_id=origin.completion_id,
            model=self.model.name,
            created=int(self.sources.wall()),
            seed=seed_of(body, origin),
            choices=choices_of(requests, body.stop or (), self.tokenizer, self.metrics.watch),
            choices_per_prompt=body.n or 1,
            shape=shape,
            tokenizer=self.tokenizer,
        )

    def _check_count(self, prompts: int, body: GenerationBody) -> None:
        count, limit = prompts * (body.n or 1), self.settings.max_choices
        if count > limit:
            problem = f"makes {count} choices of {prompts} prompt(s); the limit is {limit}."
            raise InvalidField("n", problem)


async def _exhaust(deltas: AsyncGenerator[Delta, None]) -> None:
    async for _ in deltas:
        pass
