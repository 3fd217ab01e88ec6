"""Every setting of an arm acts: changed alone, it changes what a short run leaves."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import run_config
from vaehpc.schema.config import ArmConfig, DataConfig, ModelConfig, SpikeConfig, TrainConfig, VaeConfig
from vaehpc.study.files import RunDir, write_model
from vaehpc.tasks.train import run as train
from vaehpc.training.fit import build_optimizer
from vaehpc.training.models import build_net, layer_seeds
from vaehpc.training.steps import OneProgram, training_block

# The loader of images is a compiled function all the same, which TensorFlow says.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`")

SECTIONS = {"model": ModelConfig, "vae": VaeConfig, "train": TrainConfig, "spike": SpikeConfig}
SETTINGS = {f"{section}.{name}" for section, config in SECTIONS.items() for name in config.model_fields}

Settings = Mapping[str, Any]
"""Settings of an arm, named as on the command line."""
Left = Mapping[str, object]
"""What a run left, thing by thing."""
Trained = Callable[..., Left]
SMALL: Settings = {"model.z_dim": 4, "model.filters": (4, 4, 4, 4), "train.epochs": 1, "train.batch_size": 20}
SPIKE: Settings = {"spike.kind": "gradient", "spike.strength": 1000.0, "spike.steps_before_end": 2}

CHANGES: list[tuple[str, Any, Settings]] = [
    ("model.z_dim", 5, {}),
    ("model.filters", (4, 4, 4, 5), {}),
    ("model.batch_norm", False, {}),
    ("model.batch_norm", "inference", {}),
    ("model.leaky_slope", 0.2, {}),
    ("model.initializer", "he", {}),
    ("model.mu_scale", 2.0, {}),
    ("vae.kl_weight", 1e-2, {}),
    ("vae.epsilon_limit", 1.0, {}),
    ("vae.epsilon_factor", 2.0, {}),
    ("vae.epsilon_limit_on", "tensor", {"vae.epsilon_limit": 1.0}),
    ("vae.log_var_limit", 0.01, {}),
    ("train.epochs", 2, {}),
    ("train.batch_size", 16, {}),
    ("train.learning_rate", 1e-3, {}),
    ("train.beta_1", 0.5, {}),
    ("train.beta_2", 0.9, {}),
    ("train.adam_epsilon", 1e-2, {}),
    ("train.weight_decay", 0.1, {}),
    ("train.clipnorm", 0.5, {}),
    ("train.precision", "mixed_bfloat16", {}),
    ("spike.kind", "log_var", SPIKE),
    ("spike.strength", 10.0, SPIKE),
    ("spike.steps_before_end", 1, SPIKE),
    ("start_from", "ae", {}),
]
"""A setting, another value than the default or that of SMALL, and the settings beside which it acts."""

CHANGES_OF_NO_BIT: list[tuple[str, Any, Settings, str]] = [
    ("train.eval_images", 20, {}, "history"),
    ("train.checkpoint_seconds", 1e-6, {}, "checkpoints"),
    ("train.keep_every_epochs", 1, {"train.epochs": 3, "train.batch_size": 40}, "checkpoints"),
    ("train.tensorboard", True, {}, "files"),
]
"""Settings that leave every weight as it is; and the one thing that they change."""

ASKED_OF_TENSORFLOW = {"train.threads", "train.jit_compile"}
"""What they change can't be seen in what a run leaves."""


def arm(settings: Settings) -> ArmConfig:
    sections: dict[str, Any] = {"name": "vae", "model": {}, "vae": {}, "train": {}}
    for name, value in {**SMALL, **settings}.items():
        section, _, field = name.rpartition(".")
        (sections.setdefault(section, {}) if section else sections)[field] = value
    return ArmConfig.model_validate(sections)


def left(run: RunDir) -> Left:
    files = {path.relative_to(run.path) for path in run.path.rglob("*") if path.is_file()}
    return {
        "state": run.trained().state_sha256,
        "latents": run.trained().latents_sha256,
        "history": run.history(),
        "checkpoints": [path.name for path in run.checkpoint_dirs()],
        "files": {str(path) for path in files if path.parts[0] not in ("attempts", "checkpoints")},
    }


@pytest.fixture(autouse=True, scope="module")
def _short_runs() -> Iterator[None]:
    """Settings are read where a step is traced, and tracing takes most of a short run's time; then images do."""
    tf.config.run_functions_eagerly(True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vaehpc.training.encode._write_images", lambda *_: None)
        yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def trained(faces: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """What a run of two steps with some settings leaves; of each only one is trained."""
    base = run_config("vae", data=faces)
    known: dict[str, Left] = {}

    def trained_run(settings: Settings, again: bool = False) -> Left:
        config = base.model_copy(update={"arm": arm(settings)})
        key = config.arm.model_dump_json()
        if again or key not in known:
            study = tmp_path_factory.mktemp("study")
            runs = [config]
            if config.arm.start_from is not None:
                ae = config.arm.model_copy(update={"name": config.arm.start_from, "vae": None, "start_from": None})
                runs.insert(0, config.model_copy(update={"arm": ae}))
            for one in runs:
                folder = RunDir(study / one.name)
                folder.path.mkdir()
                write_model(folder.config_path, one)
                train(str(folder.path))
            known[key] = left(folder)
        return known[key]

    return trained_run


def changed(one: Left, other: Left) -> set[str]:
    return {name for name, value in one.items() if value != other[name]}


def test_every_setting_stands_here() -> None:
    found = [name for name, *_ in (*CHANGES, *CHANGES_OF_NO_BIT)] + sorted(ASKED_OF_TENSORFLOW)
    assert set(found) == {*SETTINGS, "start_from"}
    # Forks have tests of their own, in tests/tasks/test_forks.py; `swept` only says where an arm comes from.
    assert ArmConfig.model_fields.keys() == {*SECTIONS, "name", "start_from", "fork", "swept"}


def test_the_same_settings_leave_the_same(trained: Trained) -> None:
    assert not changed(trained({}), trained({}, again=True))


@pytest.mark.parametrize(("setting", "value", "beside"), CHANGES)
def test_a_setting_changes_the_training(trained: Trained, setting: str, value: object, beside: Settings) -> None:
    other = trained({**beside, setting: value})
    for one in (trained(beside), trained({})):
        assert {"state", "latents", "history"} <= changed(one, other)


@pytest.mark.parametrize(("setting", "value", "beside", "what"), CHANGES_OF_NO_BIT)
def test_a_setting_of_no_bit_changes_one_other_thing(
    trained: Trained, setting: str, value: object, beside: Settings, what: str
) -> None:
    assert changed(trained(beside), trained({**beside, setting: value})) == {what}


def test_threads_are_asked_of_tensorflow(trained: Trained) -> None:
    with pytest.raises(RuntimeError, match="cannot be modified after initialization"):
        trained({"train.threads": 2})


@pytest.mark.parametrize("asked", [True, False])
def test_xla_is_asked_of_tensorflow(asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_config("vae").model_copy(update={"arm": arm({"train.jit_compile": asked, **SPIKE})})
    net = build_net(run.arm, 16, layer_seeds(run.key("initialisation")))
    optimizer = build_optimizer(run.arm.train, net)
    found: list[bool | None] = []
    function = tf.function

    def noted(*args: Any, **options: Any) -> Any:
        found.append(options.get("jit_compile"))
        return function(*args, **options)

    monkeypatch.setattr(tf, "function", noted)
    block = training_block(run, np.zeros((20, 16, 16, 3), np.uint8), net, optimizer)
    if isinstance(block, OneProgram):
        block.calls(2, 20, False)
    # The noise of a block and its program; or the plain step, the spiked one, and the block around them.
    assert found == ([None, True] if asked else [False, False, None])
