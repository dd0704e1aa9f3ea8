"""Bodies that fit the endpoint's own OpenAPI document, and bodies that do not: never a 5xx."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

pytestmark = pytest.mark.cluster


def test_no_request_breaks_the_endpoint(endpoint):
    document = schemathesis.openapi.from_url(f"{endpoint}/openapi.json")
    statuses = {}
    for operation in (found.ok() for found in document.get_all_operations()):

        @given(case=operation.as_strategy())
        @settings(
            max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        def check(case, path=operation.path):
            response = case.call()
            statuses.setdefault(path, set()).add(response.status_code)
            assert response.status_code < 500, response.text

        check()
    assert {"/v1/refine", "/info", "/v2/models/{name}/infer"} <= set(statuses)
    assert 422 in statuses["/v1/refine"]
