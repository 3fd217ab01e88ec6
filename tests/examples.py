"""Small configurations that tests share."""

from pathlib import Path
from typing import Any

from vaehpc.schema.config import ArmConfig, DataConfig, ModelConfig, RunConfig, TrainConfig, VaeConfig
from vaehpc.study.presets import analysis_plan
from vaehpc.study.provenance import provenance

SMALL_MODEL: dict[str, Any] = {"z_dim": 8, "filters": (4, 4, 8, 8)}
SMALL_TRAIN: dict[str, Any] = {"epochs": 2, "batch_size": 16, "eval_images": 32}


def arm_config(
    kind: str, name: str | None = None, model: dict[str, Any] | None = None, train: dict[str, Any] | None = None
) -> ArmConfig:
    """A small AE or VAE arm."""
    return ArmConfig(
        name=name or kind,
        model=ModelConfig(**SMALL_MODEL | (model or {})),
        vae=None if kind == "ae" else VaeConfig(),
        train=TrainConfig(**SMALL_TRAIN | (train or {})),
    )


def data_config(path: Path = Path("/nowhere"), num_train: int = 40, image_size: int = 16) -> DataConfig:
    """A data set that need not exist."""
    return DataConfig(
        path=str(path),
        name="faces",
        sha256="0" * 64,
        synthetic=True,
        image_size=image_size,
        num_train=num_train,
        entropy_floor=100.0,
    )


def run_config(
    kind: str = "vae",
    seed: int = 3,
    image_size: int = 16,
    num_train: int = 40,
    data: DataConfig | None = None,
    model: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
) -> RunConfig:
    """A run of a small arm."""
    return RunConfig(
        study="small",
        arm=arm_config(kind, model=model, train=train),
        seed=seed,
        root_seed=1,
        data=data or data_config(num_train=num_train, image_size=image_size),
        plan=analysis_plan(),
        provenance=provenance(),
    )
