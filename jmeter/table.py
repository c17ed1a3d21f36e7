"""Two tables from the result files of run.sh, and one file of all measured samples for the report.

table.py FOLDER "300 500 700": reads FOLDER/<group>-<threads>.jtl, FOLDER/list.jtl and
FOLDER/stability.jtl, leaves out the warm-up samples, prints average, p95, maximum, throughput and
errors, and the ratio of Redis first to row lock, or of the second list to the first.
Exits with 1 when a measured sample failed.
"""

import csv
import sys
from pathlib import Path

FIGURES = "samples | average ms | p95 ms | max ms | {} | errors | ratio |"
# The rows of the second table: file, label of its samples, plan, what is asked.
PLANS = [
    ("list", "list-plain", "list", "`GET /api/products`"),
    ("list", "list-redis", "list", "`GET /api/redis/products`"),
    ("stability", "stability-lock", "stability", "lock"),
    ("stability", "stability-redis", "stability", "redis"),
]


def measured(file, label):
    with open(file, newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["label"] == label]
    if not rows:
        sys.exit(f"{file} holds no sample of {label}")
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


class Tables:
    """Prints rows, and keeps their samples."""

    def __init__(self):
        self.samples, self.errors = [], 0

    def head(self, columns, per_second):
        line = f"| {columns} | {FIGURES.format(per_second)}"
        print(line, "|---" * (line.count("|") - 1) + "|", sep="\n")

    def row(self, cells, rows, name, base=None):
        """Prints the figures of some samples, and returns their throughput, to which the next row is compared."""
        self.samples += [dict(row, label=name) for row in rows]
        it = summary(rows)
        self.errors += it["errors"]
        ratio = it["throughput"] / (base or it["throughput"])
        print(
            f"| {cells} | {it['samples']} | {it['average']:.0f} | {it['p95']} "
            f"| {it['max']} | {it['throughput']:.0f} | {it['errors']} | {ratio:.1f} |"
        )
        return it["throughput"]

    def write(self, file):
        self.samples.sort(key=lambda row: int(row["timeStamp"]))
        with open(file, "w", newline="") as out:
            writer = csv.DictWriter(out, list(self.samples[0]))
            writer.writeheader()
            writer.writerows(self.samples)


def main():
    folder, threads = Path(sys.argv[1]), sys.argv[2].split()
    tables = Tables()
    tables.head("threads | products | path", "orders/s")
    for count in threads:
        for products in (1, 3):
            lock = None
            for path in ("lock", "redis"):
                group = f"{path}-{products}"
                rows = measured(folder / f"{group}-{count}.jtl", group)
                speed = tables.row(f"{count} | {products} | {path}", rows, f"{group} x{count}", lock)
                lock = lock or speed
    print()
    tables.head("plan | threads | asked", "requests/s")
    first = {}
    for file, label, plan, asked in PLANS:
        rows = measured(folder / f"{file}.jtl", label)
        count = len({row["threadName"] for row in rows})
        speed = tables.row(f"{plan} | {count} | {asked}", rows, label, first.get(plan))
        first.setdefault(plan, speed)
    tables.write(folder / "all.jtl")
    sys.exit(1 if tables.errors else 0)


main()
