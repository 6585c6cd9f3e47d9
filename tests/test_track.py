"""What experiment trackers get, from clients that stand in for theirs."""

import sys
import types

import pytest

from lsanet_jax import track
from lsanet_jax.errors import ConfigError

RESULT = {"val": {"acc": 0.5, "auc": None}, "test": {"acc": 0.4, "auc": 0.7}}


@pytest.mark.parametrize("name", track.TRACKERS)
def test_a_tracker_gets_config_numbers_and_result(name, monkeypatch, tmp_path):
    calls = []
    record = lambda call: lambda *args, **kwargs: calls.append((call, args, kwargs))
    names = ("set_experiment", "start_run", "log_params", "log_metrics", "end_run")
    names += ("init", "log", "finish")
    client = types.SimpleNamespace(**{call: record(call) for call in names})
    monkeypatch.setitem(sys.modules, name, client)
    with track.Tracker(name, tmp_path / "mine", {"train.epochs": 3}) as tracker:
        tracker.log(4, {"train/loss": 0.5})
        tracker.finish(RESULT)
        tracker.finish(None)
    numbers = [(args[0], kwargs) for call, args, kwargs in calls if call in ("log", "log_metrics")]
    scores = {"result/val_acc": 0.5, "result/test_acc": 0.4, "result/test_auc": 0.7}
    assert numbers == [({"train/loss": 0.5}, {"step": 4}), (scores, {"step": None})]
    assert calls[-1][0] == ("end_run" if name == "mlflow" else "finish")
    assert {"train.epochs": "3"} in [x for _, args, kw in calls for x in (*args, *kw.values())]
    assert "mine" in [x for _, args, kw in calls for x in (*args, *kw.values())]


def test_a_tracker_that_is_missing_or_refuses_is_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"--track=wandb: .*pip install wandb"):
        track.Tracker("wandb", tmp_path, {})
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **_: 1 / 0))
    with pytest.raises(ConfigError, match="--track=wandb cannot start: division by zero"):
        track.Tracker("wandb", tmp_path, {})


@pytest.mark.parametrize("name", track.TRACKERS)
def test_a_tracker_that_fails_later_is_one_warning_and_the_run_goes_on(name, monkeypatch, caplog):
    nothing, fails = (lambda *_, **__: None), (lambda *_, **__: 1 / 0)
    starts = dict.fromkeys(("set_experiment", "start_run", "log_params", "init"), nothing)
    rest = dict.fromkeys(("log_metrics", "log", "end_run", "finish"), fails)
    monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**starts | rest))
    with track.Tracker(name, "mine", {}) as tracker:
        tracker.log(1, {"loss": 0.5})
        tracker.log(2, {"loss": 0.4})
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [f"--track={name}: numbers are missing there: division by zero"]
