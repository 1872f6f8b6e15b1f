"""Every error that Minerva raises on purpose, in one tree.

::

    MinervaError                      500 internal_error
    ├── RequestError                  400 invalid_request_error   the caller can mend it
    │   ├── ContextLengthError        400 context_length_exceeded
    │   ├── UnsupportedError          400 unsupported
    │   ├── AuthenticationError       401 invalid_api_key
    │   ├── ForbiddenError            403 forbidden
    │   ├── ModelNotFoundError        404 model_not_found
    │   ├── RouteNotFoundError        404 not_found
    │   ├── MethodNotAllowedError     405 method_not_allowed
    │   ├── TimeoutReadingError       408 request_timeout
    │   ├── BodyTooLargeError         413 request_too_large
    │   └── HeadersTooLargeError      431 headers_too_large
    ├── OverloadedError               429 rate_limit_exceeded     a retry helps
    ├── UnavailableError              503 model_unavailable       a retry helps
    │   ├── WorkerDiedError           503 worker_died
    │   └── ShuttingDownError         503 shutting_down
    ├── DeadlineError                 504 deadline_exceeded
    ├── InvalidModelError             500 invalid_model           the file is not a usable model
    ├── ModelLoadError                500 model_load_failed
    ├── EngineError                   500 engine_error            llama.cpp refused a step
    └── ConfigError                   a wrong flag, variable or key; ends the process with status 2

A dialect renders an error from its class alone: `status`, `code`, `openai_type`, `anthropic_type`.
"""

from __future__ import annotations

from typing import ClassVar


class MinervaError(Exception):
    """Base of the tree. `param` names the offending field, `retry_after` is in seconds."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    openai_type: ClassVar[str] = "server_error"
    anthropic_type: ClassVar[str] = "api_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after


class RequestError(MinervaError):
    status = 400
    code = "invalid_request_error"
    openai_type = "invalid_request_error"
    anthropic_type = "invalid_request_error"


class ContextLengthError(RequestError):
    code = "context_length_exceeded"


class UnsupportedError(RequestError):
    code = "unsupported"


class AuthenticationError(RequestError):
    status = 401
    code = "invalid_api_key"
    openai_type = "authentication_error"
    anthropic_type = "authentication_error"


class ForbiddenError(RequestError):
    status = 403
    code = "forbidden"
    openai_type = "permission_error"
    anthropic_type = "permission_error"


class ModelNotFoundError(RequestError):
    status = 404
    code = "model_not_found"
    anthropic_type = "not_found_error"


class RouteNotFoundError(RequestError):
    status = 404
    code = "not_found"
    anthropic_type = "not_found_error"


class MethodNotAllowedError(RequestError):
    status = 405
    code = "method_not_allowed"


class TimeoutReadingError(RequestError):
    status = 408
    code = "request_timeout"


class BodyTooLargeError(RequestError):
    status = 413
    code = "request_too_large"
    anthropic_type = "request_too_large"


class HeadersTooLargeError(RequestError):
    status = 431
    code = "headers_too_large"


class OverloadedError(MinervaError):
    status = 429
    code = "rate_limit_exceeded"
    openai_type = "rate_limit_error"
    anthropic_type = "rate_limit_error"
    retryable = True


class UnavailableError(MinervaError):
    status = 503
    code = "model_unavailable"
    anthropic_type = "overloaded_error"
    retryable = True


class WorkerDiedError(UnavailableError):
    code = "worker_died"


class ShuttingDownError(UnavailableError):
    code = "shutting_down"


class DeadlineError(MinervaError):
    status = 504
    code = "deadline_exceeded"
    openai_type = "timeout_error"
    anthropic_type = "timeout_error"
    retryable = True


class InvalidModelError(MinervaError):
    code = "invalid_model"


class ModelLoadError(MinervaError):
    code = "model_load_failed"


class EngineError(MinervaError):
    code = "engine_error"


class ConfigError(MinervaError):
    code = "config_error"


def _tree(cls: type[MinervaError]) -> dict[str, type[MinervaError]]:
    found = {cls.__name__: cls}
    for child in cls.__subclasses__():
        found |= _tree(child)
    return found


BY_NAME: dict[str, type[MinervaError]] = _tree(MinervaError)
"""Class name → class: how an error crosses from a worker to the gateway."""
