"""The AsyncAPI document of every message, made from the contracts.

`python -m penstock_common.contracts.asyncapi > docs/asyncapi.json` writes it; a test compares.
"""

import json
from typing import Any

from pydantic.json_schema import models_json_schema

from penstock_common.contracts.base import Event, Message, Record
from penstock_common.contracts.events import MESSAGES, LogBatch
from penstock_common.contracts.examples import MESSAGES as MESSAGE_EXAMPLES
from penstock_common.contracts.examples import RECORDS
from penstock_common.contracts.topology import BUCKETS, CONSUMERS

_REF = "#/components/schemas/{model}"


def document() -> dict[str, Any]:
    """AsyncAPI 3.0: one channel for each fact, for logs, and for each bucket."""
    published: list[type[Message]] = [kind for kind in MESSAGES.values() if issubclass(kind, Event)]
    published.append(LogBatch)
    records = [type(record) for record in RECORDS.values()]
    models: list[type[Message] | type[Record]] = [*published, *records]
    _, schemas = models_json_schema([(model, "serialization") for model in models], ref_template=_REF)
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    for kind in published:
        subject = "logs.{host}" if kind is LogBatch else kind.message_type
        _add(channels, operations, messages, kind.__name__, subject, kind.__doc__, MESSAGE_EXAMPLES[kind.message_type])
        readers = _readers(subject)
        channels[kind.__name__]["x-consumers"] = readers
    for record in RECORDS.values():
        subject = BUCKETS[record.bucket].subject("{key}")
        _add(channels, operations, messages, type(record).__name__, subject, type(record).__doc__, record)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Penstock messages",
            "version": "1",
            "description": "Facts on the JetStream stream EVENTS (CloudEvents 1.0, NATS binary binding), "
            "and desired state in key-value buckets.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas["$defs"]},
    }


def _add(
    channels: dict[str, Any],
    operations: dict[str, Any],
    messages: dict[str, Any],
    name: str,
    subject: str,
    summary: str | None,
    example: Message | Record,
) -> None:
    channels[name] = {"address": subject, "messages": {name: {"$ref": f"#/components/messages/{name}"}}}
    if "{" in subject:
        parameter = subject.partition("{")[2].partition("}")[0]
        channels[name]["parameters"] = {parameter: {}}
    operations[f"publish{name}"] = {"action": "send", "channel": {"$ref": f"#/channels/{name}"}}
    messages[name] = {
        "name": subject,
        "summary": " ".join((summary or name).split()),
        "payload": {"$ref": _REF.format(model=name)},
        "examples": [{"payload": example.model_dump(mode="json")}],
    }


def _readers(subject: str) -> list[str]:
    return [spec.durable for spec in CONSUMERS if any(_matches(pattern, subject) for pattern in spec.filters)]


def _matches(pattern: str, subject: str) -> bool:
    if pattern.endswith(".>"):
        return subject.startswith(pattern[:-1])
    return pattern == subject


if __name__ == "__main__":
    print(json.dumps(document(), indent=2, sort_keys=True))
