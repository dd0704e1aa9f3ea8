"""The arithmetic of docs/scaling.md, and that the config that ships holds its own in the simulated day."""

import numpy as np
import pytest

from benchmarks import scaling
from cluster.running import CHECKOUT


@pytest.fixture(scope="module")
def afternoon() -> np.ndarray:
    return scaling.requests(scaling.Options())[13 * 3600 : 16 * 3600]


def test_twice_the_time_takes_half_the_cores():
    one, two = (scaling.extraction("", 1000, 1_000_000, hours) for hours in (1, 2))
    assert one.cores == pytest.approx(2 * two.cores) and one.storage_tb == two.storage_tb


def test_the_driver_binds_where_videos_are_many_and_short():
    assert scaling.extraction("", 1_000_000, 10_000_000, 1).binds.startswith("the driver")
    assert scaling.extraction("", 1_000, 10_000_000, 1).binds.startswith("cores")


def test_a_quiet_day_takes_one_replica_and_refuses_nobody():
    config = scaling.candidates()["serve/config.yaml"]
    day = scaling.play(np.full(3600, 100.0), config, 64)
    assert (day.refused, day.most) == (0, 1) and day.replica_hours == pytest.approx(1)


def test_a_load_that_no_replicas_carry_is_refused():
    config = scaling.candidates()["serve/config.yaml"] | {"max_replicas": 2}
    day = scaling.play(np.full(3600, 5000.0), config, 64, dead_node=False)
    assert day.most == 2 and day.refused == pytest.approx(1 - 2 / scaling.SINGLE_S / 5000, abs=0.01)


def test_the_config_that_ships_wins_over_what_it_was_before(afternoon):
    configs = scaling.candidates()
    ours = scaling.play(afternoon, configs["serve/config.yaml"], 64)
    before = scaling.play(afternoon, configs["without downscaling_factor"], 64)
    assert ours.refused < before.refused / 5 and ours.replica_hours < before.replica_hours
    assert ours.refused < 0.002


def test_the_page_has_what_the_script_prints():
    page = (CHECKOUT / "docs/scaling.md").read_text()
    for need in scaling.needs():
        assert f"| {need.load} | {need.cores:,.1f} |" in page
