"""
The description of the resources, in OpenAPI's language: made from their table.

Loaded when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chanproxy import __version__
from chanproxy.manager.http.resources import NAME, OPERATIONS, Operation

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_COUNT_OR_NULL = {"type": ["integer", "null"], "minimum": 0}
_TEXTS = {"type": "array", "items": _TEXT}


def _object(required: Mapping[str, Any], **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **optional},
        "required": sorted(required),
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_FIGURES = (
    *("attempt_count", "success_count", "fail_count", "breath_count"),
    *("last_suspend_time", "total_suspend_time", "breath_time"),
)

_HISTOGRAM = {"type": "array", "items": _COUNT, "minItems": 32, "maxItems": 32}

_HISTOGRAMS = dict.fromkeys(("histogram", "latencies"), _HISTOGRAM)
"""Of times asleep, and of what wakes took."""

_TIMES = ("since", "last_wake", "counted_since", "total_suspend_time", "attempt_count")

_TODAY = ("asleep_time", "awake_time", "wake_count")

_SUMMARY = {
    "name": _TEXT,
    "state": {"enum": ["awake", "suspending", "asleep", "resuming"]},
    "mode": {"enum": ["auto", "manual", "off", "dry_run"]},
}

SCHEMAS: dict[str, Any] = {
    "Error": _object({"error": _TEXT, "parameters": _object({"message": _TEXT})}),
    "Done": {"type": "object", "maxProperties": 0},
    "Details": _object(
        {
            **dict.fromkeys(_TIMES, _COUNT),
            **dict.fromkeys(("why_awake", "last_wake_reason"), _TEXT),
            # Since a Unix time.
            "today": _object(
                {
                    "since": {"type": "number"},
                    **dict.fromkeys(_TODAY, _COUNT),
                    "spared_cpu_time": _COUNT_OR_NULL,
                }
            ),
        }
    ),
    "Pause": _object({"by": _TEXT, "since": _COUNT}),
    "Summary": _object(_SUMMARY, paused=_ref("Pause"), details=_ref("Details")),
    "List": _object({"containers": {"type": "array", "items": _ref("Summary")}}, now=_COUNT),
    "Event": _object(
        {"at": _COUNT, "kind": {"enum": ["attempt", "resume", "fail"]}, "reason": _TEXT},
        latency=_COUNT,
    ),
    "Holder": _object(
        {"lifetime": {"enum": ["connection", "service"]}, "since": _COUNT},
        **dict.fromkeys(("until", "pid", "uid"), _COUNT),
        command=_TEXT,
    ),
    "Source": _object(
        {"name": _TEXT, "kind": _TEXT, "active": {"type": "boolean"}},
        holders={"type": "array", "items": _ref("Holder")},
        holder_count=_COUNT,
    ),
    "Figures": _object(
        {**dict.fromkeys(_FIGURES, _COUNT), "last_failure": _TEXT, "last_resume_reason": _TEXT}
    ),
    "Statistics": _object({"statistics": _ref("Figures"), **_HISTOGRAMS}),
    "Description": _object(
        {
            "description": _object(
                {
                    **_SUMMARY,
                    "now": _COUNT,
                    "since": _COUNT,
                    "why_awake": _TEXT,
                    "freezer": _TEXT,
                    "linger": {"type": "number"},
                    "statistics": _ref("Figures"),
                    **_HISTOGRAMS,
                    "events": {"type": "array", "items": _ref("Event")},
                    "sources": {"type": "array", "items": _ref("Source")},
                },
                paused=_ref("Pause"),
                breathing={"type": "boolean"},
            )
        },
        next_source=_COUNT,
    ),
    "Suspended": _object(
        {"suspend_time": _COUNT, "resume_reason": _TEXT, "resume_reasons": _TEXTS}
    ),
    "Unpaused": _object({"paused": {"type": "boolean"}}),
    "OpenAPI": {"type": "object"},
}
"""What is answered.  There may be more in an object than stands here."""

_LOOK, _ACT = (401, 403, 421, 422, 429), (400, 409, 413, 415)

_WORDS = {
    400: "The body is no JSON object.",
    401: "A token is needed.",
    403: "Who asks may not, or another site has a browser ask.",
    404: "There is no such container.",
    409: "Not in this state.",
    413: "The body is too large.",
    415: "The body does not say that it is JSON.",
    421: "The Host header is a name.",
    422: "A parameter is wrong.",
    429: "A limit of the configuration is reached.",
}


def _parameter(name: str, place: str, schema: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _orNull(schema: Any) -> dict[str, Any]:
    """What may be left out may also be null, as on the control socket."""
    return {**schema, "type": [schema["type"], "null"]}


def _operation(operation: Operation) -> dict[str, Any]:
    acts, one = operation.verb == "POST", "{container}" in operation.path
    schema = _ref(operation.answers) if operation.answers else _TEXT
    good = {"description": operation.summary, "content": {operation.kind: {"schema": schema}}}
    bad = () if operation.public else (*_LOOK, *(_ACT if acts else ()))
    named = one or "container" in operation.fields
    errors = {
        str(status): {
            "description": _WORDS[status],
            "content": {"application/json": {"schema": _ref("Error")}},
        }
        for status in sorted((*bad, *((404,) if named else ())))
    }
    made: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": f"{operation.verb.lower()}{operation.path.replace('/', '_')}".replace(
            "{container}", "one"
        ),
        "responses": {"200": good, **errors},
    }
    parameters = [_parameter("container", "path", NAME)] if one else []
    if acts:
        body = {
            "type": "object",
            "properties": {
                name: schema if name in operation.required else _orNull(schema)
                for name, schema in operation.fields.items()
            },
            "required": list(operation.required),
            "additionalProperties": False,
        }
        made["requestBody"] = {
            "required": bool(operation.required),
            "content": {"application/json": {"schema": body}},
        }
    else:
        parameters += [_parameter(n, "query", schema) for n, schema in operation.fields.items()]
    if parameters:
        made["parameters"] = parameters
    if operation.public:
        made["security"] = []
    return made


def description() -> dict[str, Any]:
    """All of it."""
    paths: dict[str, dict[str, Any]] = {}
    for each in OPERATIONS:
        paths.setdefault(each.path, {})[each.verb.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "chanproxy",
            "version": __version__,
            "description": "Containers that sleep: their states, and who wakes them.",
        },
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }
