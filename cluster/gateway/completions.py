"""POST /v1/completions."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from easel.cluster.gateway.bodies import CompletionBody, Prompt
from easel.cluster.gateway.gateway import Gateway
from easel.cluster.gateway.params import Tokens
from easel.cluster.gateway.shapes import CompletionShape


def completions_router(gateway: Gateway) -> APIRouter:
    """The route, bound to a gateway."""
    router = APIRouter(tags=["generation"])

    @router.post("/v1/completions", response_model=None)
    async def completions(body: CompletionBody, http: Request) -> Response:
        """Continue texts or token ids, without a chat template."""
        gateway.require_model(body.model)
        gateway.require_few_choices(len(body.prompt), body)
        gateway.require_room(http, body)
        prompts = [await tokens_of(prompt) for prompt in body.prompt]
        return await gateway.answer(http, body, prompts, CompletionShape())

    async def tokens_of(prompt: Prompt) -> Tokens:
        return await gateway.tokenizer.encode_text(prompt) if isinstance(prompt, str) else tuple(prompt)

    return router
