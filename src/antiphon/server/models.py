"""listModels, retrieveModel: what can be asked here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp

from antiphon.errors import NotFound
from antiphon.server.call import Api, Call, json_answer


async def list_models(api: Api, call: Call) -> ASGIApp:
    return json_answer({"object": "list", "data": await api.models()})


async def retrieve_model(api: Api, call: Call) -> ASGIApp:
    for model in await api.models():
        if model["id"] == call.parameters["model"]:
            return json_answer(model)
    raise NotFound(f"The model '{call.parameters['model']}' does not exist.", code="model_not_found", param="model")


OPERATIONS: Mapping[str, Any] = {"listModels": list_models, "retrieveModel": retrieve_model}
