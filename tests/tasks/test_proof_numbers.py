"""What is reckoned of a GPU's node and of the article's step."""

import pytest

from tests.examples import ARTICLE
from vaehpc.schema.config import ArmConfig
from vaehpc.tasks.proof import bytes_of_step, flop_of_step, nvidia_libraries
from vaehpc.training.models import build_net

MAPS = """
7f00-7f01 r-xp 00000000 08:01 12 /env/nvidia/cudnn/lib/libcudnn.so.9
7f01-7f02 r--p 00001000 08:01 12 /env/nvidia/cudnn/lib/libcudnn.so.9
7f02-7f03 r-xp 00000000 08:01 13 /usr/lib/x86_64-linux-gnu/libcuda.so.560.35.05
7f03-7f04 r-xp 00000000 08:01 14 /env/tensorflow/libtensorflow_cc.so.2
7f04-7f05 rw-p 00000000 00:00 0
"""


def test_libraries_are_found_among_mapped_files() -> None:
    assert nvidia_libraries(MAPS) == {
        "libcudnn.so.9": "/env/nvidia/cudnn/lib",
        "libcuda.so.560.35.05": "/usr/lib/x86_64-linux-gnu",
    }


def test_the_articles_step_in_operations_and_bytes() -> None:
    """445 MFLOP an image, and 0.78 GB a step in bfloat16: 8 x 68.5 MB and 7 x 33 MB, as the benchmarks count them."""
    article = ARTICLE["vae-tiny"]
    train = article.train.model_copy(update={"precision": "mixed_bfloat16"})
    net = build_net(ArmConfig(**dict(article) | {"train": train}), 96, lambda _: 0)
    assert round(flop_of_step(net, 128) / 128 / 1e6) == 445
    assert bytes_of_step(net, 128) == pytest.approx(0.78e9, rel=0.02)
