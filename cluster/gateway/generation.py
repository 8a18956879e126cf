"""The JSON that answers a request for choices: whole, or chunk by chunk."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from easel.cluster.gateway.choice import CanvasDelta, Choice, Delta
from easel.cluster.gateway.shapes import Shape
from easel.cluster.gateway.statistics import Json, canvas_of, diffusion_of, usage_of
from easel.cluster.gateway.tokenizer import ChatTokenizer


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer as its route writes it. Its choices grow meanwhile."""

    completion_id: str
    model: str
    created: int  # seconds since the Unix epoch
    seed: int
    choices: list[Choice]
    choices_per_prompt: int
    shape: Shape
    tokenizer: ChatTokenizer

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

    def usage(self, seen: Sequence[int] | None = None) -> Json:
        """Tokens of so many blocks of each choice, or of all there are."""
        return usage_of(self.choices, self.choices_per_prompt, seen)

    def totals(self) -> Json:
        """What only a finished answer carries."""
        return {"usage": self.usage(), "diffusion": diffusion_of(self.choices, self.seed)}

    def _envelope(self, kind: str, choices: Iterable[Json]) -> Json:
        return {
            "id": self.completion_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": list(choices),
        }
