"""What every route needs, and the path that chat and plain completions share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse
from starlette.responses import Response

from easel.cluster.errors import JournalUnavailable
from easel.cluster.gateway.answer_content import AnswerContent
from easel.cluster.gateway.answer_errors import AnswerMismatch, KeyReused, UnknownAnswer
from easel.cluster.gateway.answer_ids import EventId, fingerprint_of, ids_wanted, key_of, last_event_of
from easel.cluster.gateway.answer_log import Reader
from easel.cluster.gateway.answer_run import AnswerRun
from easel.cluster.gateway.answers import Answers
from easel.cluster.gateway.backend import Backend
from easel.cluster.gateway.bodies import GenerationBody
from easel.cluster.gateway.disconnect import unless_disconnected
from easel.cluster.gateway.error_answers import api_error_of
from easel.cluster.gateway.errors import ApiError, InvalidField, UnknownModel
from easel.cluster.gateway.generation import Generation
from easel.cluster.gateway.metrics import GatewayMetrics
from easel.cluster.gateway.params import Origin, Tokens, requests_of, seed_of
from easel.cluster.gateway.recent_refusals import RecentRefusals
from easel.cluster.gateway.settings import GatewaySettings, Sources
from easel.cluster.gateway.shapes import Shape
from easel.cluster.gateway.streaming import ChunkStream, EventStream
from easel.cluster.gateway.tenancy import terms_of
from easel.cluster.gateway.tokenizer import ChatTokenizer
from easel.cluster.journal_records import AnswerRecord
from easel.cluster.tracing import current_traceparent
from easel.scheduler.errors import Refused
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
    answers: Answers
    refusals: RecentRefusals

    def require_model(self, name: str) -> None:
        """Raises UnknownModel unless this gateway serves a model of that name."""
        if name != self.model.name:
            raise UnknownModel(name, [self.model.name])

    def require_room(self, http: HttpRequest, body: GenerationBody) -> None:
        """Raises what the scheduler told somebody a moment ago who asked for no more than this body does.

        Whoever comes back for an answer is let through: it may be there already.
        """
        if last_event_of(http) is not None:
            return
        terms = terms_of(http, self.settings)
        if key_of(http, terms.tenant, "") is not None:
            return
        try:
            self.refusals.check(terms, body.output_tokens)
        except Refused as error:
            self.metrics.refuse(error)
            raise

    def explain(self, error: BaseException) -> ApiError:
        """What a client is told about an error."""
        return api_error_of(error, self.settings.retry_after_seconds)

    async def answer(
        self, http: HttpRequest, body: GenerationBody, prompts: Sequence[Tokens], shape: Shape
    ) -> Response:
        """Run the choices, or go on with them, and answer with one JSON object or a stream of events."""
        last = last_event_of(http)
        run = http.state.run = await self._run(http, body, prompts, shape, last)
        reader = run.read(last.seen if last is not None else (), canvases=body.canvas_wanted)
        try:
            return await self._respond(http, body, shape, run, reader)
        except Refused as error:
            await reader.aclose()
            self.refusals.note(error, terms_of(http, self.settings), body.output_tokens)
            raise
        except BaseException:  # cancelled or not: without a response nobody else closes the reader
            await reader.aclose()
            raise

    async def begin(self, http: HttpRequest, asked: "Asked", route: str) -> AnswerRun:
        """The answer that an idempotency key stands for, or a new one. Raises KeyReused."""
        origin, key = self.origin(http, route)
        if key:
            run = await self._joined(origin.completion_id, asked.fingerprint)
            if run is not None:
                return run
        content = asked.content(origin)
        record = content.record(origin.completion_id, origin.tenant, asked.fingerprint, asked.background)
        return await self.answers.begin(record, content)

    def origin(self, http: HttpRequest, id_prefix: str) -> tuple[Origin, bool]:
        """Who asks, on which terms, and whether an idempotency key names the answer."""
        terms = terms_of(http, self.settings)
        key = key_of(http, terms.tenant, id_prefix)
        deadline = terms.deadline_seconds
        if deadline is not None:  # what has passed of it, waiting for this process to come to it
            deadline = max(0.0, deadline - (self.sources.clock() - http.state.received))
        origin = Origin(
            completion_id=id_prefix + (key.answer_id if key is not None else self.sources.new_id()),
            tenant=terms.tenant,
            fresh_seed=key.seed if key is not None else self.sources.new_seed(),
            priority=terms.priority,
            deadline_seconds=deadline,
        )
        return origin, key is not None

    async def _run(
        self,
        http: HttpRequest,
        body: GenerationBody,
        prompts: Sequence[Tokens],
        shape: Shape,
        last: EventId | None,
    ) -> AnswerRun:
        self.require_few_choices(len(prompts), body)

        def content(origin: Origin) -> AnswerContent:
            return AnswerContent(
                model=self.model.name,
                created=self.sources.wall(),
                seed=seed_of(body, origin),
                requests=tuple(requests_of(body, prompts, shape.prompt_field, self.model, origin)),
                stops=tuple(body.stop or ()),
                choices_per_prompt=body.n or 1,
                traceparent=current_traceparent(),
            )

        asked = Asked(fingerprint_of(shape.id_prefix, body), content)
        if last is not None:
            return await self._resumed(http, last, asked, shape.id_prefix)
        return await self.begin(http, asked, shape.id_prefix)

    async def _joined(self, answer_id: str, fingerprint: str) -> AnswerRun | None:
        def check(record: AnswerRecord) -> None:
            if record.fingerprint != fingerprint:
                raise KeyReused

        try:
            return await self.answers.join(answer_id, check)
        except JournalUnavailable:
            # A new run draws the same seed from the key, so a repetition says the same.
            return None

    async def _resumed(self, http: HttpRequest, last: EventId, asked: "Asked", id_prefix: str) -> AnswerRun:
        tenant: str = http.state.tenant

        def check(record: AnswerRecord) -> None:
            if record.tenant != tenant:
                raise UnknownAnswer(last.answer_id, "Last-Event-ID")
            if record.fingerprint != asked.fingerprint:
                raise AnswerMismatch(last.answer_id)
            _check_choices(len(record.request_ids), last)

        run = await self.answers.join(last.answer_id, check)
        if run is not None:
            return run
        if not last.answer_id.startswith(id_prefix):
            raise UnknownAnswer(last.answer_id, "Last-Event-ID")
        # Forgotten: made again, from the first block on, and shown from where the client stopped.
        origin, _ = self.origin(http, id_prefix)
        origin = replace(origin, completion_id=last.answer_id, fresh_seed=last.seed)
        content = asked.content(origin)
        _check_choices(len(content.requests), last)
        return await self.answers.begin(
            content.record(last.answer_id, tenant, asked.fingerprint, False), content
        )

    async def _respond(
        self, http: HttpRequest, body: GenerationBody, shape: Shape, run: AnswerRun, reader: Reader
    ) -> Response:
        generation = self._generation(run, shape)
        headers = {"X-Easel-Request-Id": generation.completion_id}
        if not body.stream:
            await unless_disconnected(http.receive, exhaust(reader))
            await reader.aclose()
            return JSONResponse(generation.whole(), headers=headers)
        numbered = self.answers.resumable and ids_wanted(http)
        chunks = ChunkStream(generation, reader, body.usage_wanted, numbered, self.explain)
        first = await unless_disconnected(http.receive, chunks.first())
        return EventStream(chunks.events(first), reader, self.answers.parts.times.stall_seconds, headers)

    def _generation(self, run: AnswerRun, shape: Shape) -> Generation:
        content = run.content
        return Generation(
            completion_id=run.record.answer_id,
            model=content.model,
            created=int(content.created),
            seed=content.seed,
            choices=run.log.choices,
            choices_per_prompt=content.choices_per_prompt,
            shape=shape,
            tokenizer=self.tokenizer,
        )

    def require_few_choices(self, prompts: int, body: GenerationBody) -> None:
        """Raises InvalidField where a body makes more choices than an answer may have."""
        count, limit = prompts * (body.n or 1), self.settings.max_choices
        if count > limit:
            problem = f"makes {count} choices of {prompts} prompt(s); the limit is {limit}."
            raise InvalidField("n", problem)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a body asks for, before it has an id. `content` raises what is wrong with the body."""

    fingerprint: str
    content: Callable[[Origin], AnswerContent]
    background: bool = False


def _check_choices(count: int, last: EventId) -> None:
    if count != len(last.seen):
        raise InvalidField("Last-Event-ID", f"counts blocks of {len(last.seen)} choices; there are {count}.")


async def exhaust(reader: Reader) -> None:
    """Read an answer to its end. Raises what ends it otherwise."""
    async for _ in reader:
        pass
