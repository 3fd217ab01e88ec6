"""A reader who believes nothing recomputes summary.json and report.html: `python readers_check.py STUDY`.

Everything is written anew from analysis/README.md, with SciPy's tests and nothing of the suite's own.
"""

import hashlib
import itertools
import json
import re
import sys
import tomllib
from collections import Counter, defaultdict
from fnmatch import fnmatch
from math import ceil, comb, exp, inf, isclose, isnan, log, nan, sqrt
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
from scipy import stats

NOT_RECOMPUTED = {
    "schema": "the number of the format",
    "crc32": "the checksum of all else",
    "comparison/*": "words and the article's numbers; what is measured must stand in the files of its run",
    "deviations/*": "words",
    "reclassed/*": "words on the rules of earlier releases",
    "runs/*/verdict": "of replays, which are other studies",
    "sweeps": "empty but where a setting is swept, which tests/stats/test_sweeps.py counts",
    "crossed": "empty but where streams are crossed, which tests/stats/test_crossed.py counts",
    "runs/*/edge": "of states that are measured when asked for, which tests/stats/test_edge.py counts",
    "modes/*/dip": "an algorithm of its own, which tests/stats/test_modes.py holds against another",
    "modes/*/p": "drawn at random",
    "likeness/*/effects/*/bootstrap_*": "drawn at random",
    "look/least_diverged": "enumerated over paths, as tests/stats/test_planning.py does otherwise",
}
"""Of summary.json, and why."""
MARKS = str.maketrans("−⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "--0123456789", ",")
TIE = 1e-9
EVENTS = ("jump", "growth", "nonfinite")
PAIRED = ("median_shift", "reconstruction_gap", "kolmogorov_smirnov", "wasserstein", "procrustes", "cka_distance")


class Near(float):
    """A number that was drawn at random around this one."""

    tolerance = 0.0


# The files


def read(study):
    config = json.loads((study / "study.json").read_text())
    runs = [
        read_run(study / f"{arm}-seed{seed:03d}", config, arm, seed)
        for arm in config["arms"]
        for seed in seeds(config, arm)
    ]
    return config, runs


def seeds(config, arm):
    return config["seeds"][arm]


def read_run(folder, config, arm, seed):
    run = SimpleNamespace(name=folder.name, folder=folder, arm=arm, seed=seed, trained=None, found=None)
    for kind, file in (("trained", "trained.json"), ("found", "statistics.json")):
        if (folder / file).exists() and (kind == "trained" or run.trained):
            setattr(run, kind, json.loads((folder / file).read_text()))
    run.ended = run.found is not None
    run.nonfinite = run.ended and (run.trained["nonfinite_step"] is not None or run.found["num_nonfinite"] > 0)
    run.finite = run.ended and not run.nonfinite
    run.radius = run.found["radius_mu"]["median"] if run.finite else None
    settings, probe = config["arms"][arm]["train"], config["plan"]["probe"]
    run.epoch_steps = ceil(config["data"]["num_train"] / settings["batch_size"])
    run.burn_in = max(probe["burn_in_steps"], ceil(probe["burn_in_epochs"] * run.epoch_steps))
    rows = stream(folder / "recorder" / "probe.arrow")
    probes = list(zip(rows["step"].to_pylist(), rows["radius_median"].to_pylist(), strict=True)) if rows else []
    run.last_probe = probes[-1][0] if probes else 0
    run.curve = list(itertools.takewhile(lambda probe: 0 < probe[1] < inf, probes))
    run.start = next((probe for probe in run.curve if probe[0] > run.burn_in), None)
    return run


def stream(path):
    """The batches that are whole; None if there is none."""
    batches = []
    try:
        with pa.ipc.open_stream(path.read_bytes()) as found:
            batches.extend(found)
    except (FileNotFoundError, pa.ArrowInvalid, OSError):
        pass
    return pa.Table.from_batches(batches) if batches else None


def array(run, name):
    path = run.folder / f"{name}.npy"
    return np.load(path).astype(float) if path.exists() else None


def radii_of(run):
    """R of every image; None where there are no latents any more."""
    mu = array(run, "latents/mu")
    return None if mu is None else np.sqrt((mu**2).sum(axis=1))


# Course and class


def control_of(config, arm):
    """The AE arm that is equal otherwise: the plan's, or the first that clips no gradients or as the arm does."""

    def trained(name):
        return config["arms"][name]["model"], config["arms"][name]["train"] | {"clipnorm": None}

    arms, named = config["arms"], config["plan"]["classes"]["control"]
    may = [n for n in arms if arms[n]["vae"] is None and arms[n]["spike"] is None and trained(n) == trained(arm)]
    clips = [name for name in may if arms[name]["train"]["clipnorm"] in (None, arms[arm]["train"]["clipnorm"])]
    return named if named in may else next(iter(clips), None)


def scale_of(radii, classes):
    """exp(m) and s; None without a radius."""
    logs = np.log([radius for radius in radii if radius > 0])
    if not len(logs):
        return None
    scatter = 1.4826 * np.median(abs(logs - np.median(logs)))
    return SimpleNamespace(m=float(np.median(logs)), s=max(float(scatter), classes["min_scatter"]))


def shared(runs):
    """m_t as a function of t; None without any probe."""
    known = defaultdict(list)
    for step, radius in (probe for run in runs for probe in run.curve):
        known[step].append(log(radius))
    medians = {step: float(np.median(known[step])) for step in sorted(known)}
    return (lambda t: medians[max((at for at in medians if at <= t), default=min(medians))]) if medians else None


def is_far(run, scale, m, of_arm, classes):
    if run.start is None or scale is None:
        return None
    step, log_radius = run.start[0], log(run.start[1])
    d = log_radius - (m(step) if m else scale.m)
    near_arm = abs(log_radius - of_arm) <= log(classes["displaced_factor"])
    return d > log(classes["diverged_factor"]) + TIE or (d > log(classes["far_factor"]) + TIE and near_arm)


def course_of(run, scale, m, far, plan):
    """`m` is None where nothing is taken away."""
    rules, every = plan["course"], plan["probe"]["every_steps"]
    steps = [step for step, _ in run.curve]
    d = [log(radius) - (m(step) if m else 0) for step, radius in run.curve]
    marks, is_open = [], None

    def mark(kind, at, factor):
        gap = steps[at] - steps[at - 1] > every
        return {
            "kind": kind,
            "step": steps[at],
            "after": steps[max(at - 1, 0)],
            "factor": factor,
            "gap": gap and at > 0,
        }

    for at, step in enumerate(steps):
        earlier = range(max(at - rules["base_probes"], 0), at)
        near = sorted((d[i] for i in earlier if step - steps[i] <= rules["base_intervals"] * every), reverse=True)
        base = near[rules["base_rank"] - 1] if len(near) >= rules["min_base_probes"] else inf
        limit = base + log(rules["jump_factor"]) + TIE
        if step <= run.burn_in or d[at] <= limit:
            is_open = None
            continue
        after = d[at : at + rules["lasting_probes"]]
        lasts = sum(value > limit for value in after) > len(after) / 2
        if is_open is None or (lasts and is_open["kind"] == "excursion"):
            kind = "excursion" if not lasts else "unconfirmed" if at == len(d) - 1 else "jump"
            if is_open is not None:
                marks.remove(is_open)
            is_open = mark(kind, at, exp(d[at] - base))
            marks.append(is_open)
    jump = min((found["step"] for found in marks if found["kind"] == "jump"), default=inf)
    leaps = min((found["step"] for found in marks if found["kind"] in ("jump", "unconfirmed")), default=inf)
    if scale is not None and not far:
        ratios = [
            radius / (plan["classes"]["diverged_factor"] * exp(max(scale.m, m(step)) if m else scale.m))
            for step, radius in run.curve
        ]
        for at, step in enumerate(steps):
            running = ratios[at : at + rules["growth_probes"]]
            if run.burn_in < step < leaps and min(running) > 1 + TIE:
                marks.append(mark("growth", at, ratios[at]))
                break
    if run.start and jump == run.start[0] and far is not None:
        far = False
    end = 0
    if run.ended:
        end = run.trained["step"] if run.trained["nonfinite_step"] is None else run.trained["nonfinite_step"]
    return {
        "first_step": run.start and run.start[0],
        "far": far,
        "marks": sorted(marks, key=lambda found: found["step"]),
        "unknown_after": run.last_probe if run.ended and end - run.last_probe >= every else None,
    }


def departed(course):
    return next((mark for mark in course["marks"] if mark["kind"] in ("jump", "growth")), None)


def has(course, kind):
    return any(mark["kind"] == kind for mark in course["marks"])


def courses_of(runs, control, m, plan):
    """Of the runs of an arm."""
    starts = [log(run.start[1]) for run in runs if run.start]
    of_arm = float(np.median(starts)) if starts else nan
    return {
        run.name: course_of(run, control.scale, m, is_far(run, control.scale, control.m, of_arm, plan["classes"]), plan)
        for run in runs
    }


def class_of(run, course, runs, courses, scale, classes):
    if not run.ended:
        return None
    if run.nonfinite:
        return "nonfinite"
    if scale is None:
        return "unclassified"
    d, limit = log(run.radius) - scale.m, log(classes["diverged_factor"])
    if d > limit + TIE:
        finite = [each for each in runs if each.finite and each.radius > 0]
        from_arm = abs(log(run.radius) - np.median([log(each.radius) for each in finite]))
        elsewhere = (
            len(finite) >= classes["min_arm_runs"]
            and np.mean([courses[each.name]["far"] is True for each in finite]) >= classes["displaced_share"]
        )
        stays = course["far"] and departed(course) is None and from_arm <= log(classes["displaced_factor"]) + TIE
        return "displaced" if stays and elsewhere else "diverged"
    if d < -limit - TIE:
        return "collapsed"
    return "shifted" if abs(d) > max(classes["shifted_limit"], classes["shifted_scatter"] * scale.s) else "regular"


def as_control(runs, plan):
    """An AE arm, and the runs for which it is not sound."""
    classes = plan["classes"]
    scale = scale_of([run.radius for run in runs if run.finite], classes)
    control = SimpleNamespace(scale=scale, m=shared(runs), size=sum(run.finite for run in runs), faults={})
    if scale is None:
        return control
    many = sum(bool(run.curve) for run in runs) >= classes["min_arm_runs"]
    courses = courses_of(runs, control, control.m if many else None, plan)
    few = {}
    for run in runs:
        ended, left = (
            class_of(run, {"far": False, "marks": []}, [], {}, scale, classes) if not run.finite else None,
            None,
        )
        if run.finite:
            d, limit = log(run.radius) - scale.m, log(classes["diverged_factor"])
            ended = "diverged" if d > limit + TIE else "collapsed" if d < -limit - TIE else None
        left = departed(courses[run.name])
        if ended in ("diverged", "collapsed"):
            control.faults[run.name] = ended
        elif ended == "nonfinite":
            few[run.name] = ended
        elif left is not None and left["kind"] == "growth":
            control.faults[run.name] = "grew"
        elif left is not None:
            few[run.name] = "jumped"
    most = classes["most_departed"] * sum(run.ended for run in runs)
    control.faults |= {name: what for name, what in few.items() if Counter(few.values())[what] > most}
    return control


def judge(config, runs, plan):
    """Controls by arm, courses and classes by run."""
    controls, courses, classes = {}, {}, {}
    for arm in config["arms"]:
        of_arm, name = [run for run in runs if run.arm == arm], control_of(config, arm)
        control = SimpleNamespace(scale=None, m=None, size=0, faults={})
        if name is not None:
            control = as_control([run for run in runs if run.arm == name], plan)
        assert name or config["data"]["synthetic"], "the article's radius as a control is not read here"
        control.name = name
        sound = control.scale is not None and not control.faults
        found = courses_of(of_arm, control, control.m if sound else None, plan)
        controls[arm], courses = control, courses | found
        classes |= {
            run.name: class_of(run, found[run.name], of_arm, found, control.scale, plan["classes"]) for run in of_arm
        }
    return controls, courses, classes


# summary.json


def of_run(run, course, run_class, may_have_diverged, config):
    left = departed(course)
    own = {
        "arm": run.arm,
        "seed": run.seed,
        "class": run_class,
        "course": course,
        "onset_step": left and left["step"],
        "onset_kind": left and left["kind"],
        "ever_diverged": None,
        "followed_steps": run.last_probe,
        "triggers": [],
        "limits_acted": {},
        "num_recorded": 0,
        "cloud": {},
        "missing_stage": None if run.ended else "statistics" if run.trained else "train",
        "last_words": None,
    }
    nothing = ("radius_median", "radius_mode", "state_sha256", "losses_sha256", "reconstruction_loss", "kl_loss")
    own |= dict.fromkeys((*nothing, "nonfinite_step"))
    if not run.ended:
        logs = sorted(run.folder.glob("attempts/*/log"))
        return own | {"last_words": "\n".join(logs[-1].read_text().splitlines()[-15:]) or None if logs else None}
    lost, rows = run.trained["nonfinite_step"], stream(run.folder / "recorder" / "steps.arrow")
    triggers = [json.loads(path.read_text()) for path in run.folder.glob("triggers/*/trigger.json")]
    own |= {
        "state_sha256": run.trained["state_sha256"],
        "nonfinite_step": lost,
        "ever_diverged": (left is not None or run_class == "diverged") if may_have_diverged else None,
        "followed_steps": max(run.trained["step"], run.last_probe) if lost is None else lost,
        "triggers": sorted(
            ({"step": of["step"], "signal": of["signal"]} for of in triggers), key=lambda of: of["step"]
        ),
        "cloud": cloud(run),
    }
    if rows is not None:
        signals = {name: rows[name].to_numpy().astype(float) for name in rows.column_names if name != "noise_key"}
        arm = config["arms"][run.arm]
        limits = [("train.clipnorm", "gradient_norm", arm["train"]["clipnorm"], 1.0)]
        if arm["vae"]:
            limits += [("vae.epsilon_limit", "epsilon_max", arm["vae"]["epsilon_limit"], 1 - 1e-6)]
            limits += [("vae.log_var_limit", "log_var_max", arm["vae"]["log_var_limit"], 1 - 1e-6)]
        own |= {
            "num_recorded": rows.num_rows,
            "losses_sha256": hashlib.sha256(signals["total_loss"].tobytes()).hexdigest(),
            "limits_acted": {
                setting: int((signals[signal] >= factor * limit).sum())
                for setting, signal, limit, factor in limits
                if limit is not None
            },
        }
    if run.finite:
        last, radii = history(run)[-1], radii_of(run)
        counts = None if radii is None else np.histogram(np.minimum(radii, 35.25), np.arange(0, 36, 0.5))[0]
        mode = run.found["radius_mu"]["mode"] if radii is None else np.argmax(counts) / 2 + 0.25
        own |= {
            "radius_median": run.radius if radii is None else float(np.median(radii)),
            "radius_mode": inf if mode == 35.25 else mode,
            "reconstruction_loss": last["reconstruction_loss"],
            "kl_loss": last["kl_loss"],
        }
    return own


def history(run):
    return [json.loads(line) for line in (run.folder / "history.jsonl").read_text().splitlines()]


def cloud(run):
    found = run.found
    aucs = [probe["auc"] for probe in (found["probes"] or {}).values() if not isnan(float(probe["auc"]))]
    parts = {
        "gaussian": ("participation_ratio", "num_active", "mahalanobis_ks", "radius_sd", "radius_sd_expected"),
        "dimension": ("two_nn", "two_nn_surrogate", "distance_ratio"),
        "inertia": ("elbow",),
    }
    own = {name: (found[part] or {}).get(name) for part, names in parts.items() for name in names}
    first = next(iter(found["tsne"]), {})
    own |= {"tsne_kl": first.get("kl_divergence"), "tsne_recall": first.get("neighbour_recall")}
    own |= {"best_auc": max(aucs, default=None)}
    if run.nonfinite:
        return dict.fromkeys(own)
    mu = array(run, "latents/mu")
    if mu is not None and found["gaussian"]:
        v = np.linalg.eigvalsh(np.cov(mu.T, ddof=0))
        own |= {"participation_ratio": v.sum() ** 2 / (v**2).sum(), "radius_sd": radii_of(run).std()}
        own |= {"num_active": int((mu.var(axis=0) > 0.01).sum())}
    return own


def clopper_pearson(k, n, level):
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, k, n - k + 1) if k else 0.0
    high = stats.beta.ppf(1 - tail, k + 1, n - k) if k < n else 1.0
    return {"low": low, "high": high, "level": level, "method": "Clopper-Pearson"}


def others(k, n, level):
    z, tail = stats.norm.ppf((1 + level) / 2), (1 - level) / 2
    centre, half = (k + z**2 / 2) / (n + z**2), z / (n + z**2) * sqrt(k * (n - k) / n + z**2 / 4)
    low, high = stats.beta.ppf((tail, 1 - tail), k + 0.5, n - k + 0.5)
    yield {"low": max(centre - half, 0), "high": min(centre + half, 1), "level": level, "method": "Wilson"}
    yield {"low": low if k else 0.0, "high": high if k < n else 1.0, "level": level, "method": "Jeffreys"}


def counts_for(endpoint, run):
    what, _, or_nonfinite = endpoint.partition(" or ")
    is_it = run["class"] == "diverged" if what == "diverged" else has(run["course"], "jump")
    return is_it or (bool(or_nonfinite) and run["class"] == "nonfinite")


def is_known(endpoint, run):
    """Behind a cut probe there may be a jump."""
    return endpoint.startswith("diverged") or run["course"]["unknown_after"] is None or counts_for(endpoint, run)


def how(run):
    if (left := departed(run["course"])) is not None:
        return "jumped" if left["kind"] == "jump" else "grew"
    return "early" if run["course"]["far"] else "unconfirmed" if has(run["course"], "unconfirmed") else "unseen"


def of_arm(runs, control, plan):
    """From the runs as they stand in the summary."""
    ended, classes, level = [run for run in runs if run["class"]], plan["classes"], plan["level"]
    n, scale = len(ended), control.scale
    kinds = Counter(run["class"] for run in ended)
    early = any(run["class"] == "diverged" and how(run) == "early" for run in ended)
    reasons = {
        "unclassed": scale is None,
        "unsound control": bool(control.faults),
        "displaced": bool(kinds["displaced"]),
        "too few": early and n - kinds["nonfinite"] < classes["min_arm_runs"],
    }
    unjudged = next((reason for reason, holds in reasons.items() if holds), None)
    endpoints = {}
    for endpoint in ("diverged", "diverged or nonfinite", "jumped", "jumped or nonfinite"):
        known = [run for run in ended if is_known(endpoint, run)]
        if known and not (endpoint.startswith("diverged") and unjudged):
            k, of = sum(counts_for(endpoint, run) for run in known), len(known)
            endpoints[endpoint] = {
                "count": k,
                "num_ended": of,
                "interval": clopper_pearson(k, of, level),
                "other_intervals": list(others(k, of, level)),
                "if_none_missing": k / len(runs),
                "if_all_missing": (k + len(runs) - of) / len(runs),
            }
    own = scale_of([run["radius_median"] for run in ended if run["radius_median"]], classes)
    has_radius = kinds["displaced"] and own.s <= classes["exploratory_scatter"]
    headline = endpoints.get("diverged")
    back = [run for run in ended if departed(run["course"]) and run["class"] in ("collapsed", "shifted", "regular")]
    return {
        "num_runs": len(runs),
        "num_missing": len(runs) - n,
        **{f"num_{kind}": kinds[kind] for kind in ("diverged", "nonfinite", "shifted", "collapsed", "displaced")},
        "num_unclassified": kinds["unclassified"],
        "num_ever_diverged": sum(run["ever_diverged"] is True for run in ended),
        "num_diverged_or_nonfinite": kinds["diverged"] + kinds["nonfinite"],
        "diverged_how": dict(Counter(how(run) for run in ended if run["class"] == "diverged")),
        "returned_how": dict(Counter(map(how, back))),
        "num_nonfinite_after": sum(
            run["class"] == "nonfinite" and departed(run["course"]) is not None for run in ended
        ),
        "num_jumped": sum(has(run["course"], "jump") for run in ended),
        "num_excursions": sum(has(run["course"], "excursion") for run in ended),
        "num_far": sum(run["course"]["far"] is True for run in ended),
        "first_step": min((first for run in runs if (first := run["course"]["first_step"]) is not None), default=None),
        "endpoints": endpoints,
        "unjudged": unjudged,
        "regular_factor": exp(own.m - scale.m) if has_radius else None,
        "rate": headline and headline["count"] / n,
        "low": headline and headline["interval"]["low"],
        "high": headline and headline["interval"]["high"],
        "level": level,
        "method": "Clopper-Pearson",
        "control": control.name,
        "control_faults": control.faults,
        "provisional": control.size < classes["min_control_runs"],
        "exploratory": scale is not None and scale.s > classes["exploratory_scatter"],
        "control_radius": scale and exp(scale.m),
        "control_scatter": scale and scale.s,
    }


# Contrasts

P = {}


def boschloo(x, n, y, m, alternative):
    if x + y in (0, n + m):
        return 1.0
    key = (x, n, y, m, alternative)
    if key not in P and alternative == "two-sided":
        P[key] = min(1.0, 2 * min(boschloo(x, n, y, m, "greater"), boschloo(x, n, y, m, "less")))
    elif key not in P:
        P[key] = float(min(1.0, stats.boschloo_exact([[x, y], [n - x, m - y]], alternative=alternative).pvalue))
    return P[key]


def holm(p):
    """Of values by name."""
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.get)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = largest
    return adjusted


def power(n, m, rate, versus, alpha):
    tables = itertools.product(range(n + 1), range(m + 1))
    found = [(x, y) for x, y in tables if x * m > y * n and boschloo(x, n, y, m, "greater") <= alpha]
    return sum(stats.binom.pmf(x, n, rate) * stats.binom.pmf(y, m, versus) for x, y in found)


def of_contrasts(config, arms, runs, look, as_planned):
    plan = config["plan"]["contrasts"]
    tested = [arm for arm, of in config["arms"].items() if of["spike"] is None and of["fork"] is None]
    pairs = [(arm, control_of(config, arm), True) for arm in tested]
    if plan["reference"] in tested:
        vaes = [arm for arm in tested if config["arms"][arm]["vae"] and arm != plan["reference"]]
        pairs += [(arm, plan["reference"], False) for arm in vaes]
    pairs = [pair for pair in pairs if pair[1] not in (None, pair[0]) and all(arms[of]["endpoints"] for of in pair[:2])]
    contrasts = [of_contrast(config, arms, runs, *pair) for pair in pairs]
    family = {}
    for number, contrast in enumerate(contrasts):
        for endpoint, test in contrast["tests"].items():
            of_look = look and (contrast["arm"], contrast["reference"]) == (look["arm"], look["reference"])
            is_open = as_planned and (not plan["looks"] or (look and look["stops"]))
            if is_open and not contrast["exploratory"] and not (of_look and endpoint == plan["primary_endpoint"]):
                family[number, endpoint] = test
    for field, p in (
        ("holm", holm({key: test["boschloo"] for key, test in family.items()})),
        ("holm_if_missing", holm({key: test["boschloo_if_missing"][1] for key, test in family.items()})),
    ):
        for key, adjusted in p.items():
            family[key][field] = adjusted
    for contrast in contrasts:
        n, m = (arms[contrast[of]]["num_runs"] - arms[contrast[of]]["num_missing"] for of in ("arm", "reference"))
        alternative, size = contrast["alternative"], max(len(family), 1)
        alpha = (1 - config["plan"]["level"]) / size / (2 if alternative == "two-sided" else 1)
        contrast["family"] = size
        contrast["power"] = power(*((m, n) if alternative == "less" else (n, m)), plan["rate"], plan["versus"], alpha)
        contrast["least_p"] = boschloo(*((0, n, m, m) if alternative == "less" else (n, n, 0, m)), alternative)
    return contrasts


def of_contrast(config, arms, runs, arm, reference, is_control):
    plan = config["plan"]["contrasts"]
    alternative = plan["against_control" if is_control else "against_reference"]
    ended = [
        {run["seed"]: run for run in runs.values() if run["arm"] == of and run["class"]} for of in (arm, reference)
    ]
    pairs = [(ended[0][seed], ended[1][seed]) for seed in ended[0] if seed in ended[1]]
    equal = 0
    for pair in pairs:
        bits = "losses_sha256" if "nonfinite" in (run["class"] for run in pair) else "state_sha256"
        equal += pair[0][bits] is not None and pair[0][bits] == pair[1][bits]
    sizes = [arms[of]["num_runs"] for of in (arm, reference)]
    judged = all("diverged" in arms[of]["endpoints"] for of in (arm, reference))
    endpoints = ("diverged", "diverged or nonfinite") if judged else ("jumped", "jumped or nonfinite")
    all_equal = pairs and equal == len(pairs) == sizes[0] == sizes[1]
    tests = {}
    for endpoint in () if all_equal else endpoints:
        if any(endpoint not in arms[of]["endpoints"] for of in (arm, reference)):
            continue
        (x, n), (y, m) = (
            [arms[of]["endpoints"][endpoint][k] for k in ("count", "num_ended")] for of in (arm, reference)
        )
        worst = [
            boschloo(at, sizes[0], of, sizes[1], alternative)
            for at in range(x, x + sizes[0] - n + 1)
            for of in range(y, y + sizes[1] - m + 1)
        ]
        known = [pair for pair in pairs if all(is_known(endpoint, run) for run in pair)]
        counted = [tuple(counts_for(endpoint, run) for run in pair) for pair in known]
        only = counted.count((True, False)), counted.count((False, True))
        tests[endpoint] = {
            "count": x,
            "num_ended": n,
            "reference_count": y,
            "reference_ended": m,
            "boschloo": boschloo(x, n, y, m, alternative),
            "two_sided": boschloo(x, n, y, m, "two-sided"),
            "holm": None,
            "holm_if_missing": None,
            "boschloo_if_missing": [min(worst), max(worst)],
            "fisher": stats.fisher_exact([[x, y], [n - x, m - y]], alternative=alternative).pvalue,
            "only_arm": only[0],
            "only_reference": only[1],
            "mcnemar": stats.binomtest(only[0], sum(only), alternative=alternative).pvalue if sum(only) else None,
        }
    exploratory = ["the plan does not name it"] * bool(plan["primary"] and f"{arm}, {reference}" not in plan["primary"])
    if config["arms"][arm]["start_from"] is not None:
        exploratory.append("it starts from a trained AE, and its control has only half its training")
    followed = [
        [first_event(run) for run in runs.values() if run["arm"] == of and seen(run)] for of in (arm, reference)
    ]
    return {
        "arm": arm,
        "reference": reference,
        "is_control": is_control,
        "alternative": alternative,
        "tests": tests,
        "exploratory": exploratory,
        "num_pairs": len(pairs),
        "num_equal": equal,
        **logrank(*followed, plan["num_permutations"]),
    }


def logrank(first, second, num_drawn):
    both = first + second
    times = sorted({step for step, event in both if event})
    observed = expected = variance = 0.0
    hazard = {}
    for time in times:
        n, n_1 = (sum(step >= time for step, _ in of) for of in (both, first))
        d, d_1 = (sum(step == time and event is not None for step, event in of) for of in (both, first))
        observed, expected, hazard[time] = observed + d_1, expected + d * n_1 / n, d / n
        variance += d * n_1 * (n - n_1) * (n - d) / (n**2 * (n - 1)) if n > 1 else 0
    if min(len(first), len(second)) < 2 or variance <= 0:
        return {"logrank": None, "logrank_p": None, "num_permutations": 0}
    scores = np.array([(event is not None) - sum(hazard[t] for t in times if t <= step) for step, event in both])
    ways = comb(len(both), len(first))
    if ways > 200_000:
        p = Near(nan)
    else:
        sums = np.array([scores[list(of)].sum() for of in itertools.combinations(range(len(both)), len(first))])
        own = scores[: len(first)].sum()
        p = Near(min(1.0, 2 * min(np.mean(sums >= own - TIE), np.mean(sums <= own + TIE))))
    if ways > num_drawn:
        p.tolerance = 10 * sqrt(max(p / 2 * (1 - p / 2), 0) / num_drawn) + 2 / num_drawn
    drawn = num_drawn if ways > num_drawn else 0
    return {"logrank": (observed - expected) / sqrt(variance), "logrank_p": p, "num_permutations": drawn}


def of_look(config, arms, told):
    """`told` is for the boundary alone."""
    plan = config["plan"]["contrasts"]
    arm, endpoint, looks = plan["reference"], plan["primary_endpoint"], plan["looks"]
    control = control_of(config, arm) if arm in config["arms"] else None
    if control in (None, arm):
        return None
    both = [arms[arm], arms[control]]
    whole = all(endpoint in of["endpoints"] and not of["num_missing"] for of in both)
    if not whole or both[0]["num_runs"] != both[1]["num_runs"] or both[0]["num_runs"] not in looks:
        return None
    count, of_reference = (of["endpoints"][endpoint]["count"] for of in both)
    z, least = stats.norm.ppf(1 - (1 - config["plan"]["level"]) / 2), (told or {}).get("least_diverged")
    return {
        "arm": arm,
        "reference": control,
        "looks": looks,
        "number": looks.index(both[0]["num_runs"]) + 1,
        "spent": 2 - 2 * stats.norm.cdf(z / sqrt(both[0]["num_runs"] / looks[-1])),
        "num_diverged": count,
        "reference_diverged": of_reference,
        "stops": least is not None and count >= least,
    }


# Events


def first_event(run):
    """Step and kind, or the step at which the run was last seen and None."""
    if (left := departed(run["course"])) is not None:
        return left["step"], left["kind"]
    unknown = run["course"]["unknown_after"]
    if unknown is not None:
        return unknown, None
    return run["followed_steps"], "nonfinite" if run["class"] == "nonfinite" else None


def seen(run):
    return run["course"]["far"] is not True and first_event(run)[0] > 0


def of_events(runs, level):
    followed = [(run, *first_event(run)) for run in runs if seen(run)]
    if not followed:
        return None
    times = sorted({step for _, step, _ in followed})
    at_risk = [sum(step >= time for _, step, _ in followed) for time in times]
    missing = sum(run["class"] is None and event is None for run, _, event in followed)
    events = sum(event is not None for *_, event in followed)
    hazards = {
        kind: np.array([sum(found[1:] == (time, kind) for found in followed) for time in times]) / at_risk
        for kind in EVENTS
    }
    return {
        "num_runs": len(followed),
        "num_far": sum(run["course"]["far"] is True for run in runs),
        "num_missing": missing,
        "num_unknown": sum(
            event is None and run["class"] is not None and run["course"]["unknown_after"] is not None
            for run, _, event in followed
        ),
        "steps": times,
        "at_risk": at_risk,
        "censored": [sum(found[1:] == (time, None) for found in followed) for time in times],
        "events": {kind: incidence(kind, hazards, at_risk, level) for kind in EVENTS if hazards[kind].any()},
        "if_none_missing": events / len(followed),
        "if_all_missing": (events + missing) / len(followed),
        "level": level,
        "method": "log-log, delta method",
    }


def incidence(kind, hazards, at_risk, level):
    """The delta method on the multinomial hazards h_kj of each time j, which are independent of each other."""
    every, own, n = sum(hazards.values()), hazards[kind], np.array(at_risk)
    before = np.concatenate([[1], np.cumprod(1 - every)[:-1]])
    share, low, high = np.cumsum(before * own), [], []
    for t, f in enumerate(share):
        if not 0 < f < 1:
            low, high = [*low, None], [*high, None]
            continue
        variance = 0.0
        for j in range(t + 1):
            later = (f - share[j]) / (1 - every[j]) if every[j] < 1 else 0.0
            slopes = {of: before[j] * (of == kind) - later for of in hazards}
            mean = sum(hazards[of][j] * slopes[of] for of in hazards)
            variance += (sum(hazards[of][j] * slopes[of] ** 2 for of in hazards) - mean**2) / n[j]
        width = stats.norm.ppf((1 + level) / 2) * sqrt(variance) / (f * abs(log(f)))
        low, high = [*low, f ** exp(width)], [*high, f ** exp(-width)]
    return {"count": round(float((own * n).sum())), "share": share.tolist(), "low": low, "high": high}


# Other limits, and pairs


def of_sensitivity(config, runs):
    plan, rows = config["plan"], defaultdict(list)
    other = plan["sensitivity"]
    changes = [
        {"classes": {"diverged_factor": factor, "shifted_limit": limit}}
        for factor, limit in itertools.product(other["diverged_factors"], other["shifted_limits"])
    ]
    changes += [{"course": {"jump_factor": factor}} for factor in other["jump_factors"]]
    changes += [{"course": {"lasting_probes": number}} for number in other["lasting_probes"]]
    for change in changes:
        changed = plan | {of: plan[of] | values for of, values in change.items()}
        controls, courses, classes = judge(config, runs, changed)
        for arm in config["arms"]:
            names = [run.name for run in runs if run.arm == arm and run.ended]
            if controls[arm].scale is None or not names:
                continue
            kinds = Counter(classes[name] for name in names)
            rows[arm].append(
                {
                    **{key: changed["classes"][key] for key in ("diverged_factor", "shifted_limit")},
                    **{key: changed["course"][key] for key in ("jump_factor", "lasting_probes")},
                    "is_planned": changed == plan,
                    **{f"num_{of}": kinds[of] for of in ("diverged", "collapsed", "displaced", "shifted", "regular")},
                    "num_jumped": sum(has(courses[name], "jump") for name in names),
                    "interval": clopper_pearson(kinds["diverged"], len(names), plan["level"]),
                }
            )
    return dict(rows)


def of_likeness(config, runs, classes):
    plan, found = config["plan"]["pairs"], {}
    runs = {run.name: run for run in runs if run.finite and run.radius > 0}
    for arm, of in config["arms"].items():
        control = control_of(config, arm)
        if of["vae"] is None or of["spike"] is not None or of["fork"] is not None or control is None:
            continue
        same = [(f"{arm}-seed{seed:03d}", f"{control}-seed{seed:03d}") for seed in seeds(config, arm)]
        aes = [name for name in runs if runs[name].arm == control]
        around = aes[1:] + aes[:1] if len(aes) > 2 else aes[1:]
        pairs, null = (
            [pair for first, second in names if (pair := distances(runs[first], runs[second], plan, config))]
            for names in ([of for of in same if set(of) <= runs.keys()], zip(aes, around, strict=False))
        )
        if not pairs:
            continue
        effects = {name: effect for name in PAIRED if (effect := of_effect(name, pairs, null, config["plan"]["level"]))}
        low, high, margin = effects["median_shift"]["low"], effects["median_shift"]["high"], plan["radius_margin"]
        inside, beyond = (
            low is not None and holds
            for holds in (
                low is not None and -margin < low and high < margin,
                low is not None and (low > margin or high < -margin),
            )
        )
        found[arm] = {
            "control": control,
            "num_images": plan["num_images"],
            "num_regular": sum(classes[of["first"]] == classes[of["second"]] == "regular" for of in pairs),
            "level": config["plan"]["level"],
            "radius_margin": margin,
            "radii": "alike" if inside else "different" if beyond else "undecided",
            "effects": effects,
            "pairs": pairs,
            "null": null,
        }
    return found


def distances(first, second, plan, config):
    radii = [array(run, "statistics/radius_mu") for run in (first, second)]
    if any(of is None for of in radii):
        return None
    both = np.isfinite(radii).all(axis=0)
    radii = [of[both] for of in radii]
    shifts = [float(log(np.quantile(radii[0], q) / np.quantile(radii[1], q))) for q in (*plan["quantiles"], 0.5)]
    points = [array(run, "latents/mu") for run in (first, second)]
    apart = {"procrustes": None, "cka": None}
    if all(of is not None for of in points):
        assert config["data"]["num_train"] <= plan["num_images"], "which images were drawn is not read here"
        x, y = (of - of.mean(axis=0) for of in points)
        cross = y.T @ x
        apart["procrustes"] = 1 - (np.linalg.norm(cross, "nuc") / (np.linalg.norm(x) * np.linalg.norm(y))) ** 2
        apart["cka"] = np.linalg.norm(cross) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    every = np.sort(np.concatenate(radii))
    below = [np.searchsorted(np.sort(of), every, side="right") / len(of) for of in radii]
    losses = [history(run)[-1]["reconstruction_loss"] for run in (first, second)]
    return {
        "first": first.name,
        "second": second.name,
        "seed": first.seed,
        "log_radius_shifts": shifts[:-1],
        "median_shift": shifts[-1],
        "kolmogorov_smirnov": float(abs(below[0] - below[1]).max()),
        "wasserstein": float(abs(np.sort(radii[0]) - np.sort(radii[1])).mean()),
        "reconstruction_gap": losses[0] - losses[1],
        **apart,
    }


def of_effect(name, pairs, null, level):
    def value(pair):
        return (None if pair["cka"] is None else 1 - pair["cka"]) if name == "cka_distance" else pair[name]

    def student(values):
        if len(values) < 2:
            return None, None
        half = stats.t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) / sqrt(len(values))
        return np.mean(values) - half, np.mean(values) + half

    own = {pair["second"]: value(pair) for pair in pairs if value(pair) is not None}
    around = [(pair, value(pair)) for pair in null if value(pair) is not None and name not in PAIRED[:2]]
    excess = []
    for ae, distance in own.items():
        of_ae = [other for pair, other in around if ae in (pair["first"], pair["second"])]
        excess += [distance - np.mean(of_ae)] if of_ae else []
    values = list(own.values())
    return values and {
        "num_pairs": len(values),
        "mean": np.mean(values),
        **dict(zip(("low", "high"), student(values), strict=True)),
        "null_mean": np.mean([other for _, other in around]) if around else None,
        "excess": np.mean(excess) if excess else None,
        **dict(zip(("excess_low", "excess_high"), student(excess), strict=True)),
    }


# All together


def recompute(study, told):
    """summary.json anew; `told` is for what is not recomputed but enters other numbers."""
    config, runs = read(study)
    plan = config["plan"]
    controls, courses, classes = judge(config, runs, plan)
    displaced = {run.arm for run in runs if classes[run.name] == "displaced"}
    own = {
        run.name: of_run(
            run,
            courses[run.name],
            classes[run.name],
            controls[run.arm].scale is not None and run.arm not in displaced,
            config,
        )
        for run in runs
    }
    of_arms = {arm: [run for run in own.values() if run["arm"] == arm] for arm in config["arms"]}
    arms = {arm: of_arm(of, controls[arm], plan) for arm, of in of_arms.items()}
    look = of_look(config, arms, told["look"])
    said = config["plan_text"]
    said = json.loads(said) if said.startswith("{") else tomllib.loads(said)
    finite = {arm: sum(run.finite for run in runs if run.arm == arm) for arm in config["arms"]}
    events = {arm: curves for arm, of in of_arms.items() if (curves := of_events(of, plan["level"]))}
    return {
        "study": config["name"],
        "data": {key: config["data"][key] for key in ("name", "sha256", "synthetic", "image_size", "num_train")},
        "arms": arms,
        "runs": own,
        "provisional": any(arm["provisional"] for arm in arms.values()),
        "control": {arm: control.name for arm, control in controls.items()},
        "plan_sha256": hashlib.sha256(config["plan_text"].encode()).hexdigest(),
        "provenance": config["provenance"],
        "contrasts": of_contrasts(config, arms, own, look, not told["deviations"]),
        "look": look,
        "events": events,
        "sensitivity": of_sensitivity(config, runs),
        "modes": {arm: {"num_runs": n} for arm, n in finite.items() if n >= plan["modes"]["min_runs"]},
        "likeness": of_likeness(config, runs, classes),
        "plan_defaults": list(unsaid(plan, said)),
        **({"reclassed": None} if "course" in said else {}),
    }


def unsaid(plan, said, before=""):
    for key, value in plan.items():
        if isinstance(value, dict):
            yield from unsaid(value, said.get(key, {}), f"{before}{key}.")
        elif key not in said and value not in (None, ""):
            yield f"{before}{key} = {tuple(value) if isinstance(value, list) else value}"


def flat(value, path=""):
    """Leaves by path; an empty list or dict is one."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    found = {key: leaf for name, part in pairs for key, leaf in flat(part, f"{path}/{name}").items()}
    number = {"Infinity": inf, "NaN": nan}.get(value, value) if isinstance(value, str) else value
    return found or {path[1:]: (number if isinstance(number, str | int | float) else None)}


def agree(told, own):
    if isinstance(told, bool | str | None) or isinstance(own, bool | str | None):
        return type(told) is type(own) and told == own
    if isnan(own):
        return isinstance(own, Near) or isnan(told)
    return isclose(told, own, rel_tol=1e-6, abs_tol=max(1e-8, getattr(own, "tolerance", 0)))


def untrue(study):
    """Path, value and recomputed value of whatever in summary.json does not follow from the files."""
    told = json.loads((study / "summary.json").read_text())
    yield from differences(told, recompute(study, told))


def differences(told, own):
    own, said = flat(own), flat(told)
    for path in sorted(said.keys() | own.keys()):
        unknown = path not in own and any(fnmatch(path, of) or path == of.removesuffix("/*") for of in NOT_RECOMPUTED)
        if not unknown and not (path in own and path in said and agree(said[path], own[path])):
            yield path, said.get(path, "nothing"), own.get(path, "nothing")


# Numbers that stand in files


def leaves(value):
    return {path: float(leaf) for path, leaf in flat(value).items() if isinstance(leaf, int | float)}


def in_files(run):
    """Every number of a run's files, and the few that are made of two."""
    history_of = history(run)
    last, settings = history_of[-1], json.loads((run.folder / "run.json").read_text())
    derived = [run.epoch_steps, 1000 * run.trained["seconds_per_epoch"] / run.epoch_steps]
    derived += [last["kl_loss"] / last["reconstruction_loss"], last["total_loss"] / settings["data"]["image_size"] ** 2]
    derived += [epoch["kl_loss"] for epoch in history_of]
    aucs = [probe["auc"] for probe in (run.found["probes"] or {}).values()]
    norms = [head["kernel_norm"] for head in (run.found["heads"] or {}).values()]
    derived += [max(aucs, default=nan), norms[-1] / norms[0] if norms else nan]
    return leaves([run.found, run.trained, last, derived])


def unfounded(study):
    """Row, run and value of what `comparison` in summary.json calls measured and no file has."""
    files = {run.name: [*in_files(run).values(), inf, nan] for run in read(study)[1] if run.ended}
    summary = json.loads((study / "summary.json").read_text())
    rates = {arm: [of["rate"]] for arm, of in summary["arms"].items()}
    for row in summary["comparison"]["rows"]:
        for name, value in row["measured"].items():
            if not any(agree(float(value), known) for known in (files | rates).get(name, [])):
                yield row["quantity"], name, value


# report.html


def pooled(runs, own):
    """Median, least and largest of each number over runs with an end, and of R over those that lie elsewhere."""
    finite = [in_files(run) | {"R": run.radius} for run in runs if run.finite]
    columns = [[run[key] for run in finite if not isnan(run.get(key, nan))] for key in sorted(set().union(*finite))]
    columns += [[run.radius for run in runs if run.finite and own[run.name]["class"] in ("diverged", "shifted")]]
    return [of(column) for column in columns if column for of in (np.median, min, max)]


def of_counts(arm):
    """Of an arm in a table, with the rates of its endpoints and the runs that are regular."""
    rest = arm["num_runs"] - arm["num_missing"] - sum(arm[f"num_{of}"] for of in NOT_REGULAR)
    rates = [share["count"] / share["num_ended"] for share in arm["endpoints"].values()]
    return [*leaves(arm).values(), arm["num_runs"] - arm["num_missing"], rest, *rates]


def decisive(page, config, own):
    """What the page says a decision takes, as far as it does.

    Holm's first threshold; counts that meet it where one run less does not; seeds per arm that have the plan's power
    where one seed less has not.
    """
    contrasts, plan = [of for of in own["contrasts"] if not of["exploratory"]], config["plan"]["contrasts"]
    if not contrasts:
        return
    two_sided = any(of["alternative"] == "two-sided" for of in contrasts)
    threshold = (1 - config["plan"]["level"]) / max(of["family"] for of in contrasts)
    yield threshold
    alpha = threshold / (2 if two_sided else 1)
    for x, n, m in re.findall(r"\((\d+) of (\d+) against 0 of (\d+) would do\)", page):
        tables = [[[int(x) - one, 0], [int(n) - int(x) + one, int(m)]] for one in (0, 1)]
        enough, less = (stats.boschloo_exact(table, alternative="greater", n=64).pvalue for table in tables)
        if enough <= alpha < less:
            yield int(x)
    for said in re.findall(r"takes (\d+).seeds per arm", page):
        enough, less = (power_of_equals(int(said) - one, plan["rate"], plan["versus"], alpha) for one in (0, 1))
        if less < plan["power"] <= enough:
            yield int(said)


def power_of_equals(n, rate, versus, alpha):
    """The same as `power` for arms of n runs each, over all tables at once."""
    x, y = (grid.ravel() for grid in np.mgrid[: n + 1, : n + 1])
    fisher = stats.hypergeom.sf(x - 1, 2 * n, n, x + y).round(12)
    order = np.argsort(fisher, kind="stable")
    of_counts = stats.binom.pmf(np.arange(n + 1)[:, None], n, np.linspace(0, 1, 401))
    levels = np.cumsum(of_counts[x[order]] * of_counts[y[order]], axis=0).max(axis=1)
    last_of_ties = np.searchsorted(fisher[order], fisher[order], side="right") - 1
    found = order[levels[last_of_ties] <= alpha]
    return float((stats.binom.pmf(x[found], n, rate) * stats.binom.pmf(y[found], n, versus)).sum())


NOT_REGULAR = ("diverged", "nonfinite", "shifted", "collapsed", "displaced", "unclassified")


def unexplained(study):
    """Row, number and text of what in report.html does not follow from the files."""
    config, found = read(study)
    told = json.loads((study / "summary.json").read_text())
    own = recompute(study, told)
    runs = {run.name: leaves([own["runs"][run.name], in_files(run) if run.ended else {}]) for run in found}
    of_arms = {arm: [run for run in found if run.arm == arm] for arm in config["arms"]}
    counts = {arm: of_counts(own["arms"][arm]) for arm in of_arms}
    pools = [number for of in of_arms.values() for number in pooled(of, own["runs"])]
    of_steps = [
        [run["num_recorded"], *(run["limits_acted"].get(of, 0) for of in ("vae.epsilon_limit", "train.clipnorm"))]
        for run in own["runs"].values()
    ]
    pools += [
        sum(n)
        for arm in of_arms
        for n in zip(*(of for of, run in zip(of_steps, found, strict=True) if run.arm == arm), strict=True)
    ]
    told_alone = [told["modes"], told["look"], [of["effects"] for of in told["likeness"].values()]]
    told_alone += [of["logrank_p"] for of in told["contrasts"]]
    tests = [config, own["contrasts"], own["likeness"], own["sensitivity"], own["events"], told_alone]
    tests = [*leaves(tests).values(), *pools, *(number for of in counts.values() for number in of)]
    quoted = re.findall(r"-?\d+(?:\.\d+)?", json.dumps([told["comparison"], told["deviations"]]).replace(",", ""))
    ratios = np.exp(np.clip([*leaves(own["likeness"]).values()], -9, 9))
    of_classes = Counter(run["class"] or "missing" for run in own["runs"].values()).values()
    page = re.sub(r"<(svg|style|script)\b.*?</\1>", "", (study / "report.html").read_text(), flags=re.S)
    tests += [*of_classes, *decisive(page, config, own)]
    said = [*tests, *leaves(own).values(), *map(float, quoted), *ratios, len(runs), 95]
    known = {name: [*of.values()] for name, of in runs.items()}
    known |= {arm: [*counts[arm], *leaves(own["sensitivity"].get(arm, [])).values()] for arm in of_arms}
    for tag, text in re.findall(r"<(tr|p|li|caption|figcaption)\b[^>]*>(.*?)</\1>", page.translate(MARKS), re.S):
        head, _, cells = re.sub('<td class="article".*?</td>', "", text, flags=re.S).rpartition("</th>")
        name, body = (re.sub("<[^>]*>|&[^;]*;", " ", part).strip() for part in (head, cells))
        values = [*known.get(name, tests), len([*study.glob(f"{name}/attempts/*")])] if tag == "tr" else said
        body = body.replace("≥\xa035", "inf").replace("\xa0×\xa010", "e")
        for token, percent in re.findall(r"(?<![\w.-])(-?\d+(?:\.\d+)?(?:e-?\d+)?)(?!\.?\w)(\xa0%)?", body):
            unit = 10.0 ** (int(token.partition("e")[2] or 0) - len(token.partition("e")[0].partition(".")[2]))
            if not any(abs((100 if percent else 1) * value - float(token)) <= 0.51 * unit for value in values):
                yield name, token, body


if __name__ == "__main__":
    study = Path(sys.argv[1])
    sys.exit("\n".join(map(str, [*untrue(study), *unfounded(study), *unexplained(study)])) or 0)
