"""One function for each question asked of a provisioner."""

import asyncio

from penstock_common.contracts.questions import FieldProblem, InspectSource, SourceInspection
from penstock_provisioner.source.inspection import Inspector
from penstock_provisioner.source.problems import URI

_MARGIN_S = 10.0
"""The answer has to be back before whoever asked gives up."""


async def inspect_source(question: InspectSource, inspector: Inspector) -> SourceInspection:
    """Pin a source and say everything that is wrong with it."""
    limit_s = question.deadline_s - _MARGIN_S
    try:
        async with asyncio.timeout(limit_s):
            return await inspector.inspect(question.source, question.routes)
    except TimeoutError:
        message = f"looking at the source took longer than {limit_s:g} s: try again, or use a smaller repository"
        return SourceInspection(problems=(FieldProblem(field=URI, message=message),))
