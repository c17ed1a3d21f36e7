"""One table from the result files of run.sh, and one file of all measured samples for the report.

table.py FOLDER "300 500 700": reads FOLDER/<group>-<threads>.jtl, leaves out the warm-up samples,
prints average, p95, maximum, throughput and errors, and the ratio of Redis first to row lock.
Exits with 1 when a measured sample failed.
"""

import csv
import sys
from pathlib import Path


def measured(file, group):
    with open(file, newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["label"] == group]
    if not rows:
        sys.exit(f"{file} holds no sample of {group}")
    return rows


def summary(rows):
    times = sorted(int(row["elapsed"]) for row in rows)
    begin = min(int(row["timeStamp"]) for row in rows)
    end = max(int(row["timeStamp"]) + int(row["elapsed"]) for row in rows)
    return {
        "average": sum(times) / len(times),
        "p95": times[int(len(times) * 0.95) - 1],
        "max": times[-1],
        "throughput": len(times) * 1000 / max(end - begin, 1),
        "errors": sum(row["success"] != "true" for row in rows),
        "samples": len(times),
    }


def main():
    folder, threads = Path(sys.argv[1]), sys.argv[2].split()
    names, everything, errors = None, [], 0
    print("| threads | products | path | samples | average ms | p95 ms | max ms | orders/s | errors | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for count in threads:
        for products in (1, 3):
            lock = None
            for path in ("lock", "redis"):
                group = f"{path}-{products}"
                rows = measured(folder / f"{group}-{count}.jtl", group)
                names = names or list(rows[0])
                everything += [dict(row, label=f"{group} x{count}") for row in rows]
                it = summary(rows)
                errors += it["errors"]
                lock = lock or it["throughput"]
                ratio = it["throughput"] / lock
                print(
                    f"| {count} | {products} | {path} | {it['samples']} | {it['average']:.0f} | {it['p95']} "
                    f"| {it['max']} | {it['throughput']:.0f} | {it['errors']} | {ratio:.1f} |"
                )
    everything.sort(key=lambda row: int(row["timeStamp"]))
    with open(folder / "all.jtl", "w", newline="") as out:
        writer = csv.DictWriter(out, names)
        writer.writeheader()
        writer.writerows(everything)
    sys.exit(1 if errors else 0)


main()
