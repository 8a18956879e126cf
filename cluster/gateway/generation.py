"""All choices of one HTTP request, run at once, and the JSON that answers it."""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass

from easel.cluster.gateway.backend import Backend
from easel.cluster.gateway.choice import CanvasDelta, Choice, Delta
from easel.cluster.gateway.merge import merge
from easel.cluster.gateway.metrics import GatewayMetrics
from easel.cluster.gateway.shapes import Shape
from easel.cluster.gateway.statistics import Json, canvas_of, diffusion_of, usage_of
from easel.cluster.gateway.tokenizer import ChatTokenizer


@dataclass(slots=True)
class Generation:
    """One answer in the making. `run` may be used once; closing it cancels what still runs."""

    completion_id: str
    model: str
    created: int  # seconds since the Unix epoch
    seed: int
    choices: list[Choice]
    choices_per_prompt: int
    shape: Shape
    tokenizer: ChatTokenizer

    async def run(self, backend: Backend, metrics: GatewayMetrics) -> AsyncGenerator[Delta, None]:
        """What every choice adds, as it comes. Raises what the backend raises."""
        metrics.prompt_tokens.inc(sum(len(choice.request.prompt) for choice in self.choices))
        deltas = merge([choice.run(backend) for choice in self.choices])
        failed = False
        with metrics.in_flight.track_inprogress():
            try:
                async for delta in deltas:
                    yield delta
            except Exception:  # counted only; who answers the client explains it
                failed = True
                raise
            finally:
                await deltas.aclose()
                if not (failed or self.finished):
                    metrics.cancelled.inc()

    @property
    def finished(self) -> bool:
        """Whether every choice has ended."""
        return all(choice.finish is not None for choice in self.choices)

    def whole(self) -> Json:
        """The answer to a request that does not stream."""
        return self._envelope(self.shape.whole_object, map(self.shape.whole, self.choices)) | self.totals()

    def chunk(self, delta: Delta) -> Json:
        """One chunk of a stream. A canvas has no choices, so that clients who add up text pass it over."""
        if isinstance(delta, CanvasDelta):
            canvas = {"diffusion": {"canvas": canvas_of(delta, self.tokenizer)}}
            return self._envelope(self.shape.chunk_object, ()) | canvas
        return self._envelope(self.shape.chunk_object, (self.shape.chunk(delta),))

    def last_chunk(self) -> Json:
        """The chunk without choices that ends a stream whose client asked for usage."""
        return self._envelope(self.shape.chunk_object, ()) | self.totals()

    def totals(self) -> Json:
        """What only a finished answer carries."""
        usage = usage_of(self.choices, self.choices_per_prompt)
        return {"usage": usage, "diffusion": diffusion_of(self.choices, self.seed)}

    def _envelope(self, kind: str, choices: Iterable[Json]) -> Json:
        return {
            "id": self.completion_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": list(choices),
        }
