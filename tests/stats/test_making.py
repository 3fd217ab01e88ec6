"""What runs were made with: by whose code, which packages, on which device."""

from dataclasses import replace

import pytest

from tests.examples import VAE, measured_run, run_config
from vaehpc.schema.config import Provenance
from vaehpc.schema.results import Made
from vaehpc.stats.making import facets, mixed, otherwise, spans, usual

OLD = Provenance(code_version="0.2.0", sources="a" * 64, image_digest=None, packages={"keras": "3.15.0"})
NEW = OLD.model_copy(update={"code_version": "0.2.1+g123", "sources": "b" * 64})


def made(provenance: Provenance = OLD, device: str | None = "A100", **more: str | bool) -> Made:
    return Made(stage="train", provenance=provenance, device=device, **more)


def study(plan, *starts: list[Made], arm: str = "vae-tiny"):
    of_arm = VAE.model_copy(update={"name": arm})
    return [
        replace(measured_run(run_config(arm=of_arm, seed=seed, plan=plan)), starts=of) for seed, of in enumerate(starts)
    ]


def test_runs_made_alike_are_not_told(plan):
    assert mixed(study(plan, *[[made()]] * 3)) == []


def test_later_seeds_by_another_code_are_named(plan):
    runs = study(plan, *[[made()]] * 8, *[[made(NEW)]] * 8)
    assert mixed(runs) == ["seeds 8-15 of vae-tiny by 0.2.1+g123, of 16"]


def test_all_that_differs_of_a_run_is_told_at_once(plan):
    other = NEW.model_copy(update={"packages": {"keras": "3.16.0"}, "image_digest": "sha256:12"})
    runs = study(plan, [made()], [made()], [made(other, "H200", driver="550")])
    assert mixed(runs) == ["seed 2 of vae-tiny by 0.2.1+g123, in sha256:12, with keras 3.16.0, on H200, of 3"]


def test_an_arm_on_another_device_is_told_beside_its_control(plan):
    runs = study(plan, [made()], [made()], arm="ae") + study(plan, [made(device="H200")])
    assert mixed(runs) == ["seed 0 of vae-tiny on H200, of 1"]


def test_runs_whose_float32_was_another_are_told_but_not_where_that_is_the_arms_precision(plan):
    with_it, without = made(tensor_float_32=True), made(tensor_float_32=False)
    runs = study(plan, [without], [without], [with_it])
    assert mixed(runs) == ["seed 2 of vae-tiny with TF32, of 3"]
    asked = VAE.model_copy(update={"name": "tf32", "train": VAE.train.model_copy(update={"precision": "tf32"})})
    tf32 = replace(measured_run(run_config(arm=asked, plan=plan)), starts=[with_it])
    assert mixed([*runs[:2], tf32]) == []


def test_a_resumed_run_has_two_codes(plan):
    runs = study(plan, [made()], [made(), made(NEW)])
    assert mixed(runs) == ["seed 1 of vae-tiny by 0.2.0 (sources aaaaaaaa) and by 0.2.1+g123, of 2"]


def test_statistics_by_another_code_are_told(plan):
    of_new = Made(stage="statistics", provenance=NEW)
    of_old = of_new.model_copy(update={"provenance": OLD})
    runs = study(plan, [made(), of_old], [made(), of_old], [made(), of_new])
    assert mixed(runs) == ["seed 2 of vae-tiny measured by 0.2.1+g123, of 3"]
    both = study(plan, [made(), of_old], [made(NEW), of_new])
    assert mixed(both) == ["seed 1 of vae-tiny by 0.2.1+g123, of 2"]


def test_the_same_sources_are_the_same_code_after_another_commit(plan):
    renamed = NEW.model_copy(update={"sources": OLD.sources})
    assert mixed(study(plan, [made()], [made(renamed)])) == []


def test_what_is_not_known_is_not_compared(plan):
    unknown = OLD.model_copy(update={"packages": {}})
    assert mixed(study(plan, [made()], [made(unknown, device=None)], [])) == []


def test_what_most_have_is_usual_and_the_difference_has_two_sides():
    runs = [facets([made()]), facets([made(NEW)]), facets([made(NEW)])]
    assert otherwise(runs[0], usual(runs)) == ("by 0.2.0 (sources aaaaaaaa)",)
    assert otherwise(usual(runs), runs[0]) == ("by 0.2.1+g123",)
    assert otherwise(runs[1], usual(runs[:2])) == ("by 0.2.1+g123",)  # of as many, the first


@pytest.mark.parametrize(
    ("seeds", "words"), [((3,), "seed 3"), ((8, 9, 10), "seeds 8-10"), ((0, 2, 3, 7), "seeds 0, 2-3, 7")]
)
def test_seeds_in_words(seeds, words):
    assert spans(seeds) == words
