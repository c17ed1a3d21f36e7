"""Builds the image and runs it with both Compose files on Podman: `make container-check`.

image     the Dockerfile from its first stage to its last: an ordinary user, no shell, a health check
alone     docker-compose.yml: the kernel's word on each container's user, root, rights and memory; then orders, while
          each container is killed and restarted, all are killed at once, strangers come, and the image is replaced;
          the admin of `.env` can log in, also when the job that made them has run again
cluster   docker-compose.cluster.yml: the same, and no buyer may wait long while the image is replaced
Both end with `stock-online verify --full` and a count: MySQL has each accepted order once.

`container_check.py [--program FILE] [alone|cluster]…`: both files without a name. With a program, the image's last
stage takes that instead of building one.

Podman has to be there and to work, as root, because processes are killed and read from outside. CONTAINERS_SETUP names
a program that makes it so and prints its variables (`export NAME=VALUE`). Nothing can be pulled then: the targets of
scripts/containers/Dockerfile stand in for the images that the Dockerfile and the Compose files name.

Podman without systemd runs no health checks, and podman-compose no `pre_stop`, so both are run here, and a container is
started when those that it depends on are healthy or have ended well. The profile `observability` is not started.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid

import yaml

from container_images import FILES, IMAGE, NEXT, began, build, make_stand_ins, podman, prepare, say, succeeds
from deploy_check import ROOT, Failure, require, run, wait_until

# A project of its own: the volumes of a shop that somebody runs from this folder are not touched.
PROJECT = "stock-flow-check"
PRODUCTS = 10
ADMIN = {"email": "boss@example.com", "password": secrets.token_hex(12)}
# Longest wait of a buyer for an answer while the cluster's image is replaced.
UPGRADE_SECONDS_MAX = 10.0
# The kernel must report this of each process: no capability, and none by starting another program.
NO_RIGHTS = {"CapPrm": "0000000000000000", "CapEff": "0000000000000000", "NoNewPrivs": "1"}


# --- a shop of containers -------------------------------------------------------------------------


class Shop:
    """The services of a Compose file, in containers."""

    def __init__(self, name):
        self.name, self.file = name, FILES[name]
        known = yaml.safe_load((ROOT / self.file).read_text())["services"]
        for service in known.values():
            if base := service.get("extends"):
                whole = yaml.safe_load((ROOT / base["file"]).read_text())["services"][base["service"]]
                service.update({**whole, **service})
        self.services = {own: service for own, service in known.items() if "profiles" not in service}
        is_job = lambda service: service["healthcheck"].get("disable", False)
        self.jobs = [own for own, service in self.services.items() if is_job(service)]
        self.servers = [own for own in self.services if own not in self.jobs]
        self.instances = [own for own in self.servers if self.services[own].get("image") == IMAGE]
        # The service whose log is shown if something fails.
        self.subject = self.servers[0]

    def __enter__(self):
        os.environ.update(STOCK_JWT_SECRET=secrets.token_hex(24), MYSQL_PASSWORD=secrets.token_hex(12),
                          STOCK_ADMIN_EMAIL=ADMIN["email"], STOCK_ADMIN_PASSWORD=ADMIN["password"])
        with socket.socket() as probe:
            require(probe.connect_ex(("127.0.0.1", 8080)) != 0, "somebody listens on port 8080 already")
        self.remove()
        return self

    def __exit__(self, kind, *_):
        for name in dict.fromkeys([self.subject, *self.instances]) if kind else []:
            logs = subprocess.run(["podman", "logs", "--tail", "25", self.container(name)],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            print(f"--- {name}\n{logs.stdout}---", file=sys.stderr)
        self.remove()

    def remove(self):
        for kind, remove in [("ps -a", "rm -f -v -t 0"), ("volume ls", "volume rm -f"), ("network ls", "network rm")]:
            found = podman(*kind.split(), "-q", "--filter", f"label=io.podman.compose.project={PROJECT}").split()
            if found:
                podman(*remove.split(), *found)

    def compose(self, *command):
        # As with Docker, a read-only root has no writable /run and /tmp.
        program = pathlib.Path(sys.executable).with_name("podman-compose")
        run(program, "--podman-run-args=--read-only-tmpfs=false", "--in-pod=false", "-p", PROJECT, "-f", self.file,
            *command, cwd=ROOT)

    def container(self, name):
        return f"{PROJECT}_{name}_1"

    def inspect(self, name):
        return json.loads(podman("inspect", self.container(name)))[0]

    def pid(self, name):
        state = self.inspect(name)["State"]
        return state["Pid"] if state["Running"] else 0

    def is_healthy(self, name):
        return succeeds("podman", "healthcheck", "run", self.container(name))

    def settle(self, name):
        """Waits until a server is well, or until a job has ended well."""
        self.subject = name
        if name in self.jobs:
            code = podman("wait", self.container(name)).strip()
            require(code == "0", f"{name} ended with {code}")
        else:
            wait_until(lambda: self.is_healthy(name), f"{name} is not healthy", 60)

    def up(self, *names):
        self.subject = names[0]
        self.compose("up", "-d", "--no-build", "--no-deps", *names)
        for name in names:
            self.settle(name)

    def start(self):
        up = []
        while waiting := [name for name in self.services if name not in up]:
            ready = [name for name in waiting if set(self.services[name].get("depends_on", {})) <= set(up)]
            self.up(*ready)
            up += ready
            if "migrate" in ready:
                # Seeded before the instances start, so that they know all products from the start.
                seed = ["seed", "--users", "100", "--products", str(PRODUCTS)]
                self.compose("run", "--rm", "-T", "--no-deps", "migrate", *seed)

    def command(self, *words):
        """A command of the program, in the first instance."""
        self.subject = self.instances[0]
        return podman("exec", self.container(self.subject), "stock-online", *words)

    def memory(self, pid, old, new):
        """A figure of a container's memory, by its name in the first and in the second version of cgroups."""
        for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, kind, path = line.split(":", 2)
            file = pathlib.Path(f"/sys/fs/cgroup/{kind}{path}", old if kind else new)
            if kind in ("memory", "") and file.exists():
                return int(file.read_text())
        raise Failure(f"no {new} of {pid}")

    def look(self):
        """Asks the kernel, whatever the files say, which rights each server has."""
        for name in self.servers:
            self.subject = name
            pid = self.pid(name)
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            require("0" not in fields["Uid"].split(), f"{name} runs as root")
            for field, value in NO_RIGHTS.items():
                require(fields[field] == value, f"{name}: {field} is {fields[field]}")
            mounts = [line.split() for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
            root = next(mount for mount in mounts if mount[4] == "/")
            require("ro" in root[5].split(","), f"{name}: the root can be written")
            number, unit = self.services[name]["mem_limit"][:-1], self.services[name]["mem_limit"][-1]
            limit = self.memory(pid, "memory.limit_in_bytes", "memory.max")
            require(limit == int(number) << {"m": 20, "g": 30}[unit], f"{name}: its memory ends at {limit}")
        say(f"{self.name}: {len(self.servers)} servers, none as root, no rights, roots read-only, memory limited")

    # --- what is done to it
    # ---------------------------------------------------------------------------------

    def kill(self, *names):
        """As the kernel would when memory is short. Podman has to start them again by itself."""
        self.subject = names[0]
        pids = {name: self.pid(name) for name in names}
        require(all(pids.values()), f"not all are running: {pids}")
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        for name, pid in pids.items():
            wait_until(lambda: self.pid(name) not in (0, pid), f"{name} is not started again", 30)
            self.settle(name)

    def stop(self, name):
        """As Compose stops it."""
        self.subject = name
        for hook in self.services[name].get("pre_stop", []):
            podman("exec", self.container(name), *hook["command"])
        podman("stop", self.container(name))
        code = self.inspect(name)["State"]["ExitCode"]
        require(code == 0, f"{name} ended with {code} when it was told to stop")

    def restart(self, name):
        self.stop(name)
        podman("start", self.container(name))
        self.settle(name)

    def replace(self, name):
        """`docker compose up -d --no-deps NAME` when its image is another."""
        if name in self.servers:
            self.stop(name)
        podman("rm", self.container(name))
        self.up(name)
        require(self.inspect(name)["Image"] == json.loads(podman("image", "inspect", NEXT))[0]["Id"], "the old image")


# --- its buyers -----------------------------------------------------------------------------------


def ask(method, path, body=None, headers=None, timeout=5):
    link = http.client.HTTPConnection("127.0.0.1", 8080, timeout=timeout)
    with contextlib.closing(link):
        try:
            link.request(method, path, body, {"Content-Type": "application/json"} | (headers or {}))
            answer = link.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""


def look_as_admin(shop):
    """Whether the admin that the job made can log in, and is one."""
    if "admin" not in shop.jobs:
        return
    status, body = ask("POST", "/api/token", json.dumps(ADMIN))
    require(status == 200, f"the admin cannot log in: {status} {body[:200]}")
    access = json.loads(body)["access"]
    status, _ = ask("GET", "/api/users", headers={"Authorization": f"Bearer {access}"})
    require(status == 200, f"the admin is none: {status}")


class Buyers:
    """Four buy one unit after the other, a hundred in a second at most, and ask under one key until they are told."""

    def __init__(self, tokens):
        self.tokens, self.numbers = tokens, itertools.count()
        self.done, self.lock = threading.Event(), threading.Lock()
        self.failure = None
        self.accepted = self.again = 0
        self.longest = 0.0
        # Start of the last accepted order for each product.
        self.latest = dict.fromkeys(range(1, PRODUCTS + 1), 0.0)

    def __enter__(self):
        self.threads = [threading.Thread(target=self.buy, daemon=True) for _ in range(4)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for thread in self.threads:
            thread.join(70)

    def buy(self):
        while not self.done.is_set() and not self.failure:
            number = next(self.numbers)
            product = number % PRODUCTS + 1
            lines = [{"productId": product, "quantity": 1}]
            body = json.dumps({"orderProducts": lines, "totalAmount": 1000, "deliveryType": "ONLINE"})
            token = self.tokens[number % len(self.tokens)]
            headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": str(uuid.uuid4())}
            begun = time.monotonic()
            while (answer := ask("POST", "/api/redis/orders", body, headers))[0] != 201:
                # Passing refusals, and answers with an unknown outcome.
                is_passing = answer[0] in (0, 429, 502, 503, 504) or b"IN_PROGRESS" in answer[1]
                if not is_passing or time.monotonic() - begun > 60:
                    self.failure = f"an order was answered {answer} after {time.monotonic() - begun:.1f} s"
                    return
                with self.lock:
                    self.again += 1
                time.sleep(0.1)
            with self.lock:
                self.accepted += 1
                self.longest = max(self.longest, time.monotonic() - begun)
                self.latest[product] = begun
            time.sleep(0.04)

    def flow(self, what):
        """Waits until every product is sold again, and says how it was since the last time."""
        since = time.monotonic()
        wait_until(lambda: self.failure or min(self.latest.values()) > since, f"no orders after: {what}", 60)
        require(not self.failure, f"{what}: {self.failure}")
        say(f"{what}: {self.accepted} accepted, {self.again} asked again, the longest took {self.longest:.1f} s")
        with self.lock:
            longest, self.again, self.longest = self.longest, 0, 0.0
        return longest


def strangers(shop, buyers):
    """Connections that say nothing, that say a byte now and then, that ask for a large answer and read none of it."""
    ask_for = b"GET /api/docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: shop\r\naccept-encoding: %s\r\n\r\n"
    says = [b"", b"G", ask_for % b"gzip", b"", b"G", ask_for % b"identity"]
    pids = {name: shop.pid(name) for name in shop.instances}
    links, ends = [], time.monotonic() + 15
    for number in range(1_050):
        with contextlib.suppress(OSError):
            links.append(socket.create_connection(("127.0.0.1", 8080), timeout=2))
            links[-1].sendall(says[number % len(says)])
    while time.monotonic() < ends:
        for link in links[1::3]:
            with contextlib.suppress(OSError):
                link.sendall(b"E")
        # Asked from within the container, because the strangers use up the share of the address
        # that all clients outside have.
        for name in shop.instances:
            require(shop.is_healthy(name), f"{name} is not healthy among strangers")
        time.sleep(0.5)
    for link in links:
        link.close()
    peaks = []
    for name, pid in pids.items():
        shop.subject = name
        require(shop.pid(name) == pid, f"{name} did not survive strangers")
        peaks.append(shop.memory(pid, "memory.max_usage_in_bytes", "memory.peak") >> 20)
    buyers.flow(f"{shop.name}: {len(links)} strangers, at most {max(peaks)} MiB in an instance")


def check(name):
    with Shop(name) as shop:
        shop.start()
        say(f"{name}: all healthy: {', '.join(shop.services)}")
        shop.look()
        look_as_admin(shop)
        tokens = shop.command("token", "--user-id", "2", "--count", "90").split()
        with Buyers(tokens) as buyers:
            buyers.flow(f"{name}: orders")
            for server in shop.servers:
                shop.kill(server)
                buyers.flow(f"{name}: {server} killed")
            for server in shop.servers:
                shop.restart(server)
                buyers.flow(f"{name}: {server} restarted")
            shop.kill(*shop.servers)
            buyers.flow(f"{name}: all killed at once")
            # A job that has done its work changes nothing when it runs again.
            for job in shop.jobs:
                podman("start", shop.container(job))
                shop.settle(job)
            look_as_admin(shop)
            strangers(shop, buyers)
            old = podman("image", "inspect", "--format", "{{.Id}}", IMAGE).strip()
            podman("tag", NEXT, IMAGE)
            try:
                for own in ["migrate", *shop.instances]:
                    shop.replace(own)
            finally:
                podman("tag", old, IMAGE)
            longest = buyers.flow(f"{name}: image replaced")
            require(len(shop.instances) == 1 or longest < UPGRADE_SECONDS_MAX, "buyers waited while it was replaced")
        require(not buyers.failure, buyers.failure)
        say(f"{name}: {shop.command('verify', '--full').strip().splitlines()[-1]}")
        sql = 'mariadb -ustock -p"$MARIADB_PASSWORD" stock -N -e "SELECT COUNT(*) FROM orders"'
        stored = int(podman("exec", shop.container("mysql"), "sh", "-c", sql))
        require(stored == buyers.accepted, f"{buyers.accepted} orders were accepted, MySQL has {stored}")
        say(f"{name}: {stored} orders were accepted, and MySQL has each once")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--program", type=pathlib.Path)
    arguments.add_argument("files", nargs="*", choices=[[], *FILES], default=[])
    arguments = arguments.parse_args()
    try:
        is_made_here = prepare()
        if is_made_here:
            make_stand_ins()
        build(arguments.program, is_made_here)
        for name in arguments.files or FILES:
            check(name)
    except Failure as failure:
        sys.exit(f"{time.monotonic() - began:6.1f} s  failed: {str(failure)[-3000:]}")


if __name__ == "__main__":
    main()
