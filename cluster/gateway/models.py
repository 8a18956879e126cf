"""GET /v1/models: what is served here."""

from fastapi import APIRouter

from easel.cluster.gateway.gateway import Gateway
from easel.cluster.gateway.statistics import Json


def models_router(gateway: Gateway) -> APIRouter:
    """The routes, bound to a gateway."""
    router = APIRouter(tags=["models"])
    model = gateway.model
    card: Json = {
        "id": model.name,
        "object": "model",
        "created": int(gateway.sources.wall()),
        "owned_by": "easel",
        "max_model_len": model.max_model_tokens,
        "family": model.family.name,
        "block_length": model.block_length,
    }

    @router.get("/v1/models")
    async def models() -> Json:
        """The one model of this cluster, as a list."""
        return {"object": "list", "data": [card]}

    @router.get("/v1/models/{name:path}")
    async def model_card(name: str) -> Json:
        """One model by its id."""
        gateway.require_model(name)
        return card

    return router
