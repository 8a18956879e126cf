"""Names of Easel's spans, their events and attributes, with what each says; docs are checked against it.

Names beginning with gen_ai are those of OpenTelemetry's semantic conventions for generative AI;
see https://github.com/open-telemetry/semantic-conventions/tree/main/docs/gen-ai.
"""

from typing import Final

PLACE: Final = "easel.place"
GENERATE: Final = "easel.generate"
MOVED: Final = "easel.moved"
SLOT: Final = "easel.slot"
CANVAS: Final = "easel.canvas"
BLOCK: Final = "easel.block"

SPANS: Final = {
    "{gen_ai.operation.name} {gen_ai.request.model}": "gateway: one HTTP request, to the last byte sent",
    PLACE: "scheduler: from a choice's ticket to its replica and lease; the wait for room is in it",
    GENERATE: "worker: one choice's stay at one replica; a fail-over makes another one",
}
EVENTS: Final = {
    MOVED: "on the gateway's span: a choice had to leave a replica, and goes on at another",
    SLOT: "on easel.generate: a slot was free",
    CANVAS: "on easel.generate: the prompt was prefilled, and the first canvas opened",
    BLOCK: "on easel.generate: a block was committed",
}
ATTRIBUTES: Final = {
    "gen_ai.operation.name": "chat, or text_completion",
    "gen_ai.provider.name": "easel",
    "gen_ai.request.model": "the model's name in the API",
    "gen_ai.response.model": "the same",
    "gen_ai.response.id": "id of the answer",
    "gen_ai.response.time_to_first_chunk": "seconds until the first part of the answer was sent",
    "gen_ai.response.finish_reasons": "one for each choice that has ended",
    "gen_ai.request.max_tokens": "most output tokens of a choice",
    "gen_ai.request.temperature": "as it was asked for, or the model's",
    "gen_ai.request.top_p": "as it was asked for, or the model's; only if it does something",
    "gen_ai.request.top_k": "as it was asked for, or the model's; only if it does something",
    "gen_ai.request.seed": "of the whole answer, drawn if none was asked for",
    "gen_ai.request.choice.count": "choices of all prompts, if there are several",
    "gen_ai.usage.input_tokens": "prompt tokens, each prompt once",
    "gen_ai.usage.output_tokens": "output tokens of all choices",
    "gen_ai.usage.cache_read.input_tokens": "prompt tokens found in a prefix cache",
    "http.route": "the path",
    "http.response.status_code": "none if the client left before there was one",
    "error.type": "what went wrong: a status, or the name of an error",
    "easel.tenant": "who asks, where there are tenants",
    "easel.priority": "its class, if not standard: -1 interactive, 1 batch",
    "easel.answer.background": "there and true if it goes on without its client",
    "easel.answer.resumed_blocks": "blocks that came from the journal, if any",
    "easel.request.id": "one choice: the answer's id and a number",
    "easel.replica": "where it was placed, or runs, or was",
    "easel.lease_epoch": "fencing epoch of the placement",
    "easel.waiting": "requests without a replica when the ticket came",
    "easel.moved.reason": "replica_lost, handed_over or refused",
    "easel.blocks": "blocks committed in the span's course",
    "easel.steps": "denoising steps of these blocks",
    "easel.tokens": "output tokens of these blocks",
    "easel.preemptions": "times it lost its slot to a more urgent request, if it did",
    "easel.finish": "stop, length, handed_over or cancelled; closed: nobody listened any more",
    "easel.queue.seconds": "from submission to the slot",
    "easel.prefill.seconds": "from the slot to the first canvas",
    "easel.cached_tokens": "tokens found in the replica's prefix cache",
    "easel.block.index": "its number among the choice's blocks",
    "easel.block.steps": "denoising steps",
    "easel.block.tokens": "output tokens",
    "easel.block.mean_entropy": "nats, of the last step; none if nothing was undecided",
    "easel.block.seconds": "from the canvas's opening to its last step",
    "easel.block.tightened": "there and true if the load valve made it settle sooner",
}
