"""What the Responses API does with a gateway's answers."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse
from starlette.responses import Response

from easel.cluster.gateway.answer_content import AnswerContent
from easel.cluster.gateway.answer_errors import NotCancellable, UnknownAnswer
from easel.cluster.gateway.answer_ids import fingerprint_of, last_number_of
from easel.cluster.gateway.answer_log import Reader
from easel.cluster.gateway.answer_run import AnswerRun
from easel.cluster.gateway.answers import Snapshot
from easel.cluster.gateway.choice import Choice, TextDelta
from easel.cluster.gateway.disconnect import unless_disconnected
from easel.cluster.gateway.errors import ContextLengthExceeded, InvalidField
from easel.cluster.gateway.gateway import Asked, Gateway, exhaust
from easel.cluster.gateway.params import Origin, Tokens, requests_of, seed_of
from easel.cluster.gateway.response_bodies import ResponseBody, Turn
from easel.cluster.gateway.response_events import stream_of
from easel.cluster.gateway.response_objects import ID_PREFIX, ResponseStatus, ResponseView
from easel.cluster.gateway.statistics import Json
from easel.cluster.gateway.streaming import EventStream
from easel.cluster.journal_records import AnswerRecord, AnswerStatus
from easel.cluster.tracing import current_traceparent
from easel.scheduler.errors import InvalidParameter

_STATUS = {
    AnswerStatus.FAILED: ResponseStatus.FAILED,
    AnswerStatus.CANCELLED: ResponseStatus.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class ResponseGateway:
    """Bound to one gateway."""

    gateway: Gateway

    async def create(self, http: HttpRequest, body: ResponseBody) -> Response:
        """Raises what is wrong with the body, or what ended the answer before its first block."""
        self.gateway.require_model(body.model)
        if body.background and not self.gateway.answers.resumable:
            raise InvalidField("background", "cannot be true: this cluster keeps no journal.")
        turns = [*await self._earlier(body, http.state.tenant), *body.turns()]
        instructions = [] if body.instructions is None else [_turn("system", body.instructions)]
        prompt = await self._encoded([*instructions, *turns])
        asked = self._asked(body, prompt, turns)
        run = http.state.run = await self.gateway.begin(http, asked, ID_PREFIX)
        response_id = run.record.answer_id
        headers = {"X-Easel-Request-Id": response_id}
        if run.record.background and not body.stream:
            return JSONResponse(await self.retrieve(response_id, http.state.tenant), headers=headers)
        return await self._deliver(http, run, body, headers)

    async def retrieve(self, response_id: str, tenant: str) -> Json:
        """The response as it is now. Raises UnknownAnswer."""
        snapshot = await self._snapshot(response_id, tenant)
        view = _view(snapshot.record, snapshot.content, snapshot.choices)
        status = _status_of(snapshot, view)
        error: Json = {"code": "server_error", "message": snapshot.detail}
        return view.whole(status, error if status is ResponseStatus.FAILED else None)

    async def follow(self, http: HttpRequest, response_id: str, after: int) -> Response:
        """The response's events after that number; it is taken up if nobody works at it.

        Raises UnknownAnswer.
        """

        def check(record: AnswerRecord) -> None:
            self._check(record, response_id, http.state.tenant)

        run = await self.gateway.answers.join(response_id, check)
        if run is None:
            raise UnknownAnswer(response_id)
        return self._stream(run, run.read(), None, after, {"X-Easel-Request-Id": response_id})

    async def cancel(self, response_id: str, tenant: str) -> Json:
        """Raises UnknownAnswer or NotCancellable."""
        snapshot = await self._snapshot(response_id, tenant)
        if not snapshot.record.background:
            raise NotCancellable(response_id)
        if snapshot.status is AnswerStatus.IN_PROGRESS:
            await self.gateway.answers.cancel(response_id)
        return await self.retrieve(response_id, tenant)

    async def _deliver(
        self, http: HttpRequest, run: AnswerRun, body: ResponseBody, headers: dict[str, str]
    ) -> Response:
        reader = run.read()
        try:
            if not body.stream:
                await unless_disconnected(http.receive, exhaust(reader))
                await reader.aclose()
                view = _view(run.record, run.content, run.log.choices)
                return JSONResponse(view.whole(view.final_status), headers=headers)
            first = None
            if not run.record.background:
                # Until the first block is there an error can still be a status.
                first = await unless_disconnected(http.receive, _first(reader))
            after = last_number_of(http)
            return self._stream(run, reader, first, -1 if after is None else after, headers)
        except BaseException:  # cancelled or not: without a response nobody else closes the reader
            await reader.aclose()
            raise

    def _stream(
        self, run: AnswerRun, reader: Reader, first: TextDelta | None, after: int, headers: dict[str, str]
    ) -> Response:
        view = _view(run.record, run.content, run.log.choices)
        events = stream_of(view, reader, first, after, self.gateway.explain)
        return EventStream(events, reader, self.gateway.answers.parts.times.stall_seconds, headers)

    def _asked(self, body: ResponseBody, prompt: Tokens, turns: list[Turn]) -> Asked:
        wishes = body.generation()

        def content(origin: Origin) -> AnswerContent:
            with _in_this_route_s_words():
                requests = requests_of(wishes, [prompt], "input", self.gateway.model, origin)
            return AnswerContent(
                model=self.gateway.model.name,
                created=self.gateway.sources.wall(),
                seed=seed_of(wishes, origin),
                requests=tuple(requests),
                response=_repeated(body, turns),
                traceparent=current_traceparent(),
            )

        return Asked(fingerprint_of(ID_PREFIX, body), content, bool(body.background))

    async def _earlier(self, body: ResponseBody, tenant: str) -> list[Turn]:
        """The conversation up to the response that this one follows."""
        if body.previous_response_id is None:
            return []
        try:
            snapshot = await self._snapshot(body.previous_response_id, tenant)
        except UnknownAnswer:
            raise UnknownAnswer(body.previous_response_id, "previous_response_id") from None
        (choice,) = snapshot.choices
        if choice.finish is None:
            raise InvalidField("previous_response_id", "names a response that is not finished.")
        return [*_turns_in(snapshot.content), _turn("assistant", choice.text)]

    async def _encoded(self, turns: list[Turn]) -> Tokens:
        try:
            return await self.gateway.tokenizer.encode_chat(turns)
        except InvalidField as error:
            raise InvalidField("input", error.problem) from error

    async def _snapshot(self, response_id: str, tenant: str) -> Snapshot:
        snapshot = await self.gateway.answers.snapshot(response_id)
        if snapshot is None:
            raise UnknownAnswer(response_id)
        self._check(snapshot.record, response_id, tenant)
        return snapshot

    def _check(self, record: AnswerRecord, response_id: str, tenant: str) -> None:
        """Raises UnknownAnswer for what this tenant must not see, or is no stored response."""
        if record.tenant != tenant or not response_id.startswith(ID_PREFIX):
            raise UnknownAnswer(response_id)
        if AnswerContent.from_json(record.content).response["store"] is False:
            raise UnknownAnswer(response_id)


@contextmanager
def _in_this_route_s_words() -> Generator[None]:
    """Errors name `max_tokens`, which is called `max_output_tokens` here."""
    try:
        yield
    except InvalidParameter as error:
        name = "max_output_tokens" if error.name == "max_tokens" else error.name
        raise InvalidParameter(name, error.value, error.expected) from error
    except ContextLengthExceeded as error:
        if error.param != "max_tokens":
            raise
        numbers = error.prompt_tokens, error.output_tokens, error.limit
        raise ContextLengthExceeded("max_output_tokens", *numbers) from error


async def _first(reader: Reader) -> TextDelta | None:
    delta = await anext(reader, None)
    return delta if isinstance(delta, TextDelta) else None


def _view(record: AnswerRecord, content: AnswerContent, choices: list[Choice]) -> ResponseView:
    return ResponseView(record.answer_id, content, choices[0], record.background)


def _status_of(snapshot: Snapshot, view: ResponseView) -> ResponseStatus:
    if view.choice.finish is not None:
        return view.final_status
    if snapshot.status in _STATUS:
        return _STATUS[snapshot.status]
    if not (snapshot.driven or view.background):
        return ResponseStatus.INCOMPLETE  # until somebody asks for the rest
    return ResponseStatus.IN_PROGRESS if view.choice.events else ResponseStatus.QUEUED


def _turn(role: str, content: str) -> Turn:
    return {"role": role, "content": content}


def _turns_in(content: AnswerContent) -> list[Turn]:
    return cast(list[Turn], content.response["turns"])


def _repeated(body: ResponseBody, turns: list[Turn]) -> Json:
    """What the response's objects repeat of the body, and the conversation for those that follow it."""
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "previous_response_id": body.previous_response_id,
        "store": body.store is not False,
        "user": body.user,
        "turns": turns,
    }
