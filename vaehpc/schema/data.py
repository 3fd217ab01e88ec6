"""What a data set is asked to be: where its images are, and what is made of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from vaehpc.schema.frozen import Frozen

Resize = Literal["area", "distort"]
SplitName = Literal["article", "official", "spread"]

LEAST_TRAINED = 2
"""Training images: one has no covariance."""


class DataRequest(Frozen):
    """Images and what is made of them: one of --celeba, --images and --synthetic."""

    celeba: Path | None = None
    """CelebA's aligned images: a zip or folder of any name, also Kaggle's archive.zip, or the folder around them."""
    images: Path | None = None
    """Other photographs instead: any folder or zip of .jpg, .png and .webp, or a Parquet file; no lists needed."""
    synthetic: Annotated[int, Field(gt=0, le=999_999)] | None = None
    """Draw this many built-in faces instead, 999,999 at most."""
    first: PositiveInt | None = None
    """Take only the first images by name; lists may cover more."""
    only_present: bool = False
    """Take the images that are there, although CelebA's lists cover more."""
    size: int = 96
    """Side of the square images in pixels: a multiple of 16 (the net halves it four times), 1,024 at most."""
    crop: PositiveInt | None = None
    """Side of the square in the centre of each image that is resized; default: the image's shorter side."""
    resize: Resize = "area"
    """'area': that square, then the mean over areas. 'distort': the whole image made square."""
    split: SplitName | None = None
    """'article', default of CelebA: the first images by name are trained on, the rest held out. 'spread', default of
    --images: those held out lie evenly among them. 'official': CelebA's own partition."""
    num_train: PositiveInt | None = None
    """Training images; default: the article's 170,000, or of a smaller set the same share as of 202,599; of --images 5
    in 6."""
    attributes: Path | None = None
    """CelebA's list of attributes, if it does not lie with the images."""
    partition: Path | None = None
    """CelebA's official partition, if it does not lie with the images; only that split needs it."""

    @field_validator("celeba", "images", "attributes", "partition")
    @classmethod
    def _can_be_written(cls, path: Path | None) -> Path | None:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise ValueError("its bytes are no UTF-8: give the path of a link that leads there") from None
        return path

    @property
    def source(self) -> str | None:
        """The option that says which images: 'celeba', 'images' or 'synthetic'; None where none is given."""
        return next((name for name in ("celeba", "images", "synthetic") if getattr(self, name) is not None), None)

    @property
    def paths(self) -> dict[str, Path]:
        """What is named by a path, by option, absolute."""
        named = {name: getattr(self, name) for name in ("celeba", "images", "attributes", "partition")}
        return {name: path.absolute() for name, path in named.items() if path is not None}


class Request(DataRequest):
    """A data set as it is asked for, and how it is to be made."""

    images_per_shard: PositiveInt = 2048
    """Images of each TFRecord file."""
    workers: PositiveInt = Field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Processes that work at once, about 0.7 GB of memory each; the result does not depend on it."""
    seed: NonNegativeInt = 0
    """Seed of the built-in faces."""
