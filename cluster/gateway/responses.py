"""The Responses API: answers that may run in the background and be fetched, streamed again and cancelled."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from easel.cluster.gateway.answer_ids import last_number_of
from easel.cluster.gateway.gateway import Gateway
from easel.cluster.gateway.response_bodies import ResponseBody
from easel.cluster.gateway.response_gateway import ResponseGateway


def responses_router(gateway: Gateway) -> APIRouter:
    """The routes, bound to a gateway."""
    router = APIRouter(tags=["generation"])
    responses = ResponseGateway(gateway)

    @router.post("/v1/responses", response_model=None)
    async def create(body: ResponseBody, http: Request) -> Response:
        """Answer an input, at once, as a stream of events, or in the background."""
        return await responses.create(http, body)

    @router.get("/v1/responses/{response_id}", response_model=None)
    async def retrieve(
        response_id: str,
        http: Request,
        stream: bool = False,
        starting_after: Annotated[int | None, Query(ge=-1)] = None,
    ) -> Response:
        """The response as it is now, or its events after the one of that `sequence_number`."""
        if not stream:
            return JSONResponse(await responses.retrieve(response_id, http.state.tenant))
        after = last_number_of(http) if starting_after is None else starting_after
        return await responses.follow(http, response_id, -1 if after is None else after)

    @router.post("/v1/responses/{response_id}/cancel", response_model=None)
    async def cancel(response_id: str, http: Request) -> Response:
        """End a background response; one that has ended already stays as it is."""
        return JSONResponse(await responses.cancel(response_id, http.state.tenant))

    return router
