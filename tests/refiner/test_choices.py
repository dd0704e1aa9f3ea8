"""What a command's help offers by name is what there is."""

from typing import get_args

import pytest

from refiner.estimators import DEFAULT, ESTIMATORS, EstimatorName
from refiner.formats import FORMATS, Format
from refiner.model.config import EncoderName
from refiner.model.network import ENCODERS


@pytest.mark.parametrize(
    ("offered", "there"), [(EstimatorName, ESTIMATORS), (Format, FORMATS), (EncoderName, ENCODERS)]
)
def test_every_name_has_its_entry_and_no_entry_is_without_a_name(offered, there):
    assert get_args(offered) == tuple(there)
    assert DEFAULT in ESTIMATORS
