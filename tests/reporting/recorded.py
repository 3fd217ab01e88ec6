"""Planted rows of a flight recorder, with the noise of a training and a spike of the gradient."""

from typing import Any

import numpy as np

from tests.examples import run_config
from vaehpc.reporting.explanation import Explained
from vaehpc.schema.config import RunConfig, SpikeConfig
from vaehpc.schema.results import TriggerRecord
from vaehpc.stats.departures import StepRecord, event
from vaehpc.stats.divergence import ProbeCurve

NUM_STEPS = 1500
SPIKE = 1234
LAYERS = ("conv_1", "conv_2", "mu", "log_var", "decoder")
VAE_ONLY = ("kl_loss", "log_var_min", "log_var_mean", "log_var_max", "epsilon_max", "noise_max")


def planted_run(kind: str = "vae", with_spike: bool = False) -> RunConfig:
    """60 epochs of 25 steps."""
    run = run_config(kind, num_train=400, train={"epochs": 60})
    spike = SpikeConfig(kind="gradient", strength=1000.0, steps_before_end=NUM_STEPS - SPIKE)
    return run.model_copy(update={"arm": run.arm.model_copy(update={"spike": spike})}) if with_spike else run


def planted_record(kind: str = "vae", jumps: bool = True) -> StepRecord:
    """At SPIKE the gradient x 1000 and, one step later, the update; two steps later R begins to rise from 16 to 68."""
    numbers = np.random.default_rng(7)
    steps = np.arange(NUM_STEPS)
    later = np.clip((steps - SPIKE - 1) / 12, 0, 1) * jumps

    def noisy(level: Any, scatter: float) -> np.ndarray:
        return np.asarray(level * np.exp(scatter * numbers.standard_normal(NUM_STEPS)))

    signals = {
        "total_loss": noisy(150 + 300 * np.exp(-steps / 200) + 60 * later, 0.03),
        "reconstruction_loss": noisy(150 + 300 * np.exp(-steps / 200) + 60 * later, 0.03),
        "kl_loss": noisy(0.018 * (1 + 4 * later), 0.02),
        "log_var_min": noisy(-20 * np.ones(NUM_STEPS), 0.02),
        "log_var_mean": noisy(-13 * np.ones(NUM_STEPS), 0.01),
        "log_var_max": -5 + numbers.standard_normal(NUM_STEPS) + 4 * later,
        "epsilon_max": np.sqrt(2 * (np.log(4096) + numbers.gumbel(size=NUM_STEPS))),
        "noise_max": noisy(0.01, 0.3),
        "radius_mean": noisy(16 * (68 / 16) ** later, 0.01),
        "radius_max": noisy(30 * (68 / 16) ** later, 0.05),
        "image_loss_max": noisy(260 + 80 * later, 0.1),
    }
    for layer in ("", *(f"/{layer}" for layer in LAYERS)):
        signals |= {
            f"gradient_norm{layer}": noisy(30, 0.25),
            f"gradient_rms{layer}": noisy(1, 0.2),
            f"gradient_peak{layer}": 1 + np.minimum(numbers.pareto(1.0, NUM_STEPS) * 30, 999),
            f"update_norm{layer}": noisy(0.05, 0.1),
            f"weight_norm{layer}": 20 + steps / 500,
        }
        if jumps:
            signals[f"gradient_norm{layer}"][SPIKE] *= 1000
            signals[f"gradient_rms{layer}"][SPIKE] = 31.6
            signals[f"gradient_peak{layer}"][SPIKE] = 1000
            signals[f"update_norm{layer}"][SPIKE + 1 : SPIKE + 40] *= 30 * np.exp(-np.arange(39) / 10)
    return StepRecord(
        steps, {name: values for name, values in signals.items() if kind == "vae" or name not in VAE_ONLY}
    )


def planted_trigger(**changes: Any) -> TriggerRecord:
    """At SPIKE, by the gradient's norm."""
    trigger = TriggerRecord(
        step=SPIKE,
        signal="gradient_norm",
        value=31_000.0,
        limit=300.0,
        snapshot_step=1100,
        images=(311, 4, 71, 12),
        largest_loss_image=71,
        largest_log_var_image=12,
    )
    return trigger.model_copy(update=changes)


def planted_probe(jumps: bool = True) -> ProbeCurve:
    """Every 50 steps; R goes from 16.2 to 68 between 1,200 and 1,250."""
    steps = np.arange(50, NUM_STEPS + 1, 50)
    return ProbeCurve(steps, np.where((steps > SPIKE) & jumps, 68.0, 16.2))


def planted(kind: str = "vae", num_triggers: int = 1, with_spike: bool = False, **changes: Any) -> Explained:
    """A run with one trigger at SPIKE, or with more of them 100 steps apart, or with none."""
    run = planted_run(kind, with_spike)
    record = planted_record(kind, jumps=num_triggers > 0)
    if kind == "ae":
        changes |= {"largest_log_var_image": None}
    triggers = [planted_trigger(step=SPIKE + 100 * number, **changes) for number in range(num_triggers)]
    events = [event(number, trigger, record, run.plan) for number, trigger in enumerate(triggers, start=1)]
    return Explained(run, record, planted_probe(jumps=num_triggers > 0), events)
