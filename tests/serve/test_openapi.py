"""Bodies that fit the endpoint's own OpenAPI document, and bodies that do not: never a 5xx."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from tests.waiting import PATIENCE_S

pytestmark = pytest.mark.cluster


def statuses_of(operation) -> set[int]:
    """Sends what schemathesis makes up for one operation, and returns the statuses that came back."""
    seen = set()

    @given(case=operation.as_strategy())
    @settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def send(case):
        response = case.call(timeout=PATIENCE_S)  # schemathesis gives up after 10 s by itself
        seen.add(response.status_code)
        assert response.status_code < 500, response.text

    send()
    return seen


def test_no_request_breaks_the_endpoint(endpoint):
    document = schemathesis.openapi.from_url(f"{endpoint}/openapi.json")
    statuses = {operation.path: statuses_of(operation) for operation in (o.ok() for o in document.get_all_operations())}
    assert {"/v1/refine", "/info", "/v2/models/{name}/infer"} <= set(statuses)
    assert 422 in statuses["/v1/refine"]
