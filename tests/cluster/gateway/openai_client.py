"""OpenAI's own client, connected to a gateway in this process."""

import httpx2
import openai

from tests.cluster.gateway.fake_answers import FakeGateway
from tests.cluster.gateway.fakes import MODEL

RESPONSES = "/v1/responses"
RESPONSE = {"model": MODEL, "input": "hi"}
OPENING = 4  # events before the first block, of a response in the foreground


def client_of(gateway: FakeGateway) -> openai.AsyncOpenAI:
    transport = httpx2.ASGITransport(gateway.app)
    http = httpx2.AsyncClient(transport=transport)
    return openai.AsyncOpenAI(base_url="http://gateway/v1", api_key="-", http_client=http, max_retries=0)
