"""What a caller is told of a failure, over HTTP as over a WebSocket."""

from __future__ import annotations

import logging

from antiphon.errors import ApiError, ServerError, StoreError, Unavailable

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5


def told(error: Exception) -> ApiError:
    """The error for the caller; what is no fault of the caller's is logged, and told without its inside."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, StoreError) and error.passing:
        logger.error("a call failed by its database: %s", error)
        return Unavailable(
            "The server cannot use its database at the moment. Please try again later.",
            headers={"retry-after": str(RETRY_SECONDS)},
        )
    logger.error("a call failed by a fault of ours", exc_info=error)
    return ServerError("The server had an error while processing your request. Sorry about that!")
