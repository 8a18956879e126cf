"""POST /v1/chat/completions."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from easel.cluster.gateway.bodies import ChatBody
from easel.cluster.gateway.gateway import Gateway
from easel.cluster.gateway.shapes import ChatShape


def chat_router(gateway: Gateway) -> APIRouter:
    """The route, bound to a gateway."""
    router = APIRouter(tags=["generation"])

    @router.post("/v1/chat/completions", response_model=None)
    async def chat_completions(body: ChatBody, http: Request) -> Response:
        """Answer a conversation; the model's chat template makes the prompt."""
        gateway.require_model(body.model)
        gateway.require_room(http, body)
        turns = [message.for_template() for message in body.messages]
        prompt = await gateway.tokenizer.encode_chat(turns)
        return await gateway.answer(http, body, [prompt], ChatShape())

    return router
