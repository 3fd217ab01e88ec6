"""A reader who believes nothing recomputes the numbers in report.html: `python readers_check.py STUDY`."""

import json
import re
import sys
from pathlib import Path

import numpy as np
from scipy import stats

MARKS = str.maketrans("−⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "--0123456789", ",")


def leaves(value, path=""):
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    own = {path: float(value)} if isinstance(value, int | float) or value in ("Infinity", "NaN") else {}
    return own | {key: number for name, part in pairs for key, number in leaves(part, f"{path}.{name}").items()}


def of_run(folder, onset):
    run, found, trained = (json.loads((folder / f"{of}.json").read_text()) for of in ("run", "statistics", "trained"))
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    last, steps = history[-1], -(-run["data"]["num_train"] // run["arm"]["train"]["batch_size"])
    derived = [steps, 1000 * trained["seconds_per_epoch"] / steps, last["kl_loss"] / last["reconstruction_loss"]]
    derived += [max([probe["auc"] for probe in (found["probes"] or {}).values()], default=np.nan)]
    left = [epoch["kl_loss"] for epoch in history if onset is not None and epoch["step"] >= onset]
    derived += [last["total_loss"] / run["data"]["image_size"] ** 2, *left[:1]]
    norms = [head["kernel_norm"] for head in (found["heads"] or {}).values()]
    finite = trained["nonfinite_step"] is None and not found["num_nonfinite"]
    radius = float(np.median(np.load(folder / "statistics" / "radius_mu.npy"))) if finite else np.nan
    return leaves([found, trained, last, derived, norms[-1] / norms[0] if norms else np.nan]) | {"R": radius}


def of_arm(runs, planned, control):
    logs, n = np.log([run["R"] for run in control if not np.isnan(run["R"])]), len(runs)
    limit = max(0.14, 3 * max(1.4826 * stats.median_abs_deviation(logs), 0.05))
    shift = np.array([np.log(run["R"]) - np.median(logs) for run in runs])
    up, down, away = shift > np.log(2), shift < -np.log(2), (np.abs(shift) > limit) & (np.abs(shift) <= np.log(2))
    elsewhere = [run["R"] for run, gone in zip(runs, up | away, strict=True) if gone]
    finite = [run for run in runs if not np.isnan(run["R"])]
    columns = [[run[key] for run in finite if not np.isnan(run.get(key, np.nan))] for key in set().union(*runs)]
    up, down, away, lost = (int(which.sum()) for which in (up, down, away, np.isnan(shift)))
    counts = [up, down, away, n, planned, planned - n, lost, up + lost, n - up - down - away - lost]
    counts += [up / n, up / planned, (up + planned - n) / planned, *stats.beta(up + 0.5, n - up + 0.5).interval(0.95)]
    counts += [end for kind in ("exact", "wilson") for end in stats.binomtest(up, n).proportion_ci(0.95, kind)]
    return [[of(column) for column in (*columns, elsewhere) if column for of in (np.median, min, max)], counts]


def unexplained(study):
    config, summary = (json.loads((study / f"{of}.json").read_text()) for of in ("study", "summary"))
    every = summary["runs"]
    runs = {name: of_run(study / name, run["onset_step"]) for name, run in every.items() if not run["missing_stage"]}
    of = {arm: [runs[name] for name in runs if every[name]["arm"] == arm] for arm in config["arms"]}
    pools = {arm: of_arm(of[arm], len(config["seeds"][arm]), of[summary["control"][arm]]) for arm in of}
    tests = [*leaves([pools, config, *(summary[key] for key in ("contrasts", "likeness", "sensitivity"))]).values()]
    quoted = re.findall(r"-?\d+(?:\.\d+)?", json.dumps([summary["comparison"], summary["deviations"]]).replace(",", ""))
    ratios = np.exp(np.clip([*leaves(summary["likeness"]).values()], -9, 9))
    said = [*tests, *leaves(summary).values(), *map(float, quoted), *ratios, len(every), 95]
    known = {name: [*leaves([run, runs.get(name)]).values()] for name, run in every.items()}
    known |= {arm: [*pools[arm][1], *leaves(rows).values()] for arm, rows in summary["sensitivity"].items()}
    page = re.sub(r"<(svg|style|script)\b.*?</\1>", "", (study / "report.html").read_text(), flags=re.S)
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
    sys.exit("\n".join(map(str, unexplained(Path(sys.argv[1])))) or 0)
