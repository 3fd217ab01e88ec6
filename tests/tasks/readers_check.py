"""A reader who believes nothing recomputes the numbers in report.html: `python readers_check.py STUDY`."""

import html
import json
import math
import re
import statistics
import sys
from pathlib import Path

import numpy as np
from scipy import stats


def leaves(value, path=""):
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    own = {path: float(value)} if isinstance(value, int | float) or value in ("Infinity", "NaN") else {}
    return own | {key: number for name, part in pairs for key, number in leaves(part, f"{path}.{name}").items()}


def of_run(folder):
    run, found, trained = (json.loads((folder / f"{of}.json").read_text()) for of in ("run", "statistics", "trained"))
    last = json.loads((folder / "history.jsonl").read_text().splitlines()[-1])
    steps = math.ceil(run["data"]["num_train"] / run["arm"]["train"]["batch_size"])
    derived = [steps, 1000 * trained["seconds_per_epoch"] / steps, last["kl_loss"] / last["reconstruction_loss"]]
    best = max((probe["auc"] for probe in (found["probes"] or {}).values()), default=math.nan)
    derived += [last["total_loss"] / run["data"]["image_size"] ** 2, best]
    finite = trained["nonfinite_step"] is None and not found["num_nonfinite"]
    log_radius = np.log(np.median(np.load(folder / "statistics" / "radius_mu.npy"))) if finite else math.nan
    return leaves([found, trained, last, derived]) | {"R": float(np.exp(log_radius)), "log_radius": float(log_radius)}


def of_arm(runs, num_runs, control):
    columns = {key: [run[key] for run in runs if not math.isnan(run.get(key, math.nan))] for run in runs for key in run}
    found = [of(column) for column in columns.values() if column for of in (statistics.median, min, max)]
    logs, n = [run["log_radius"] for run in control if not math.isnan(run["log_radius"])], len(runs)
    limit = max(0.14, 3 * max(1.4826 * stats.median_abs_deviation(logs), 0.05))
    shifts = [run["log_radius"] - statistics.median(logs) for run in runs if not math.isnan(run["log_radius"])]
    up, down = (sum(sign * shift > math.log(2) for shift in shifts) for sign in (1, -1))
    away, lost = sum(limit < abs(shift) <= math.log(2) for shift in shifts), n - len(shifts)
    counts = [up, down, away, n, num_runs, num_runs - n, lost, up + lost, n - up - down - away - lost]
    beta = stats.beta(up + 0.5, n - up + 0.5)
    counts += [up / n, up / num_runs, (up + num_runs - n) / num_runs]
    counts += [beta.ppf(0.025) if up else 0, beta.ppf(0.975) if up < n else 1]
    counts += [end for kind in ("exact", "wilson") for end in stats.binomtest(up, n).proportion_ci(0.95, kind)]
    return found, counts


def unexplained(study):
    config, summary = (json.loads((study / f"{of}.json").read_text()) for of in ("study", "summary"))
    measured = {arm: sorted(study.glob(f"{arm}-seed*/statistics.json")) for arm in config["arms"]}
    runs = {arm: [of_run(path.parent) for path in paths] for arm, paths in measured.items()}
    pools = {arm: of_arm(runs[arm], len(config["seeds"][arm]), runs[summary["control"][arm]]) for arm in runs}
    tests = leaves([summary[key] for key in ("contrasts", "likeness", "sensitivity")] + [config]).values()
    limits, wrong = config["plan"]["sensitivity"]["diverged_factors"], []
    for row in re.findall(r"<tr>(<th scope=\"row\".*?)</tr>", (study / "report.html").read_text(), re.S):
        head, *cells = [re.sub("<[^>]*>", " ", cell) for cell in re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", row, re.S)]
        name, folder = head.strip(), study / head.split()[0]
        known = [*(value for columns, counts in pools.values() for value in (*columns, *counts)), *tests]
        if name in pools:
            known = [*pools[name][1], *limits, *leaves(summary["sensitivity"][name]).values()]
        elif (folder / "run.json").exists():
            known = [*leaves(summary["runs"][name]).values(), len(list(folder.glob("attempts/*")))]
            known += of_run(folder).values() if (folder / "statistics.json").exists() else ()
        text = html.unescape(" | ".join(cells[1:] if 'class="article"' in row else cells))
        text = text.replace(",", "").replace("≥\xa035", "inf").replace("\xa0×\xa010", "e")
        text = text.translate(str.maketrans("−⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "--0123456789"))
        for token, percent in re.findall(r"(?<![\w.-])(-?\d+(?:\.\d+)?(?:e-?\d+)?)(?!\.?\w)(\xa0%)?", text):
            unit = 10.0 ** (int(token.partition("e")[2] or 0) - len(token.partition("e")[0].partition(".")[2]))
            if not any(abs(value * (100 if percent else 1) - float(token)) <= 0.51 * unit for value in known):
                wrong.append((name, token, text.strip()))
    return wrong


if __name__ == "__main__":
    sys.exit("\n".join(map(str, unexplained(Path(sys.argv[1])))) or 0)
