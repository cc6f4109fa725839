"""What every test shares: with OVERLAYD_REQUIRE=all a skip is a failure, so that nothing goes untested unseen."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("overlayd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("overlayd")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and os.environ.get("OVERLAYD_REQUIRE") == "all":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"OVERLAYD_REQUIRE=all allows no skip, but {item.nodeid} was skipped: {reason}"
    return report
