"""The published documents say what the code says: `make docs` writes them anew."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENTS = {
    "openapi.json": ("penstock_api", "openapi"),
    "asyncapi.json": ("penstock_common.contracts.asyncapi",),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_document_is_current(name: str) -> None:
    done = subprocess.run([sys.executable, "-m", *DOCUMENTS[name]], capture_output=True, text=True, check=True)
    assert json.loads((DOCS / name).read_text()) == json.loads(done.stdout), "run `make docs`"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reference_in_the_document_leads_somewhere(name: str) -> None:
    document = json.loads((DOCS / name).read_text())

    def references(part: object) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
            return own + [found for value in part.values() for found in references(value)]
        if isinstance(part, list):
            return [found for value in part for found in references(value)]
        return []

    found = references(document)
    assert found
    for reference in found:
        target = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step.replace("~1", "/").replace("~0", "~")]
