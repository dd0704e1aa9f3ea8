"""What poses.toml and the environment say, and which comes first."""

import pytest

from refiner import UserError, settings
from refiner.registry import model_name, tracking_uri


def test_the_environment_comes_before_the_file(tmp_path):
    (tmp_path / "poses.toml").write_text('storage = "s3://poses"\n')
    assert settings.setting("storage", {}, tmp_path) == "s3://poses"
    assert settings.setting("storage", {"POSE_STORAGE": "/data"}, tmp_path) == "/data"
    assert settings.setting("mlflow", {}, tmp_path) == ""
    assert settings.setting("storage", {}, tmp_path / "elsewhere") == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("storage = ", r"poses\.toml cannot be read"),
        ('stroage = "s3://poses"', r"has 'stroage', which is unknown: it may have storage, mlflow, model"),
        ("model = 3", r"'model' in .*poses\.toml is 3: write it as text"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(text, sentence, tmp_path):
    (tmp_path / "poses.toml").write_text(text)
    with pytest.raises(UserError, match=sentence):
        settings.setting("storage", {}, tmp_path)


def test_the_registry_goes_by_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("POSE_MODEL_NAME", raising=False)
    assert tracking_uri() == f"sqlite:///{tmp_path}/runs/mlflow.db" and model_name() == "pose-depth-refiner"
    (tmp_path / "poses.toml").write_text('mlflow = "http://mlflow:5000"\nmodel = "mine"\n')
    assert (tracking_uri(), model_name()) == ("http://mlflow:5000", "mine")
