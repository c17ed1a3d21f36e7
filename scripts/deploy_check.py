"""Tries the files of deploy/ on the programs that read them: `make deploy-check`.

kubernetes   every overlay as kubectl builds it, every document against Kubernetes' own schemas
nginx        the proxy between a client and two instances that misbehave
scripts      shellcheck
redis        the scripts that make, heal and hand over a Redis Cluster, on six nodes

`deploy_check.py [kubernetes|nginx|scripts|redis]…`; all of them without a name.
"""

import contextlib
import http.client
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes"
# The oldest version with all features that the files use (`preStop.sleep`), and newer ones.
VERSIONS = ["1.30", "1.32", "1.34"]
# Kinds of other projects, for which Kubernetes has no schema.
FOREIGN = {"ServiceMonitor"}


class Failure(Exception):
    """What does not hold."""


def require(holds, what):
    if not holds:
        raise Failure(what)


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    require(done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def program(*names):
    for name in names:
        for folder in os.environ["PATH"].split(":") + ["/usr/sbin", "/opt/homebrew/bin"]:
            if os.access(f"{folder}/{name}", os.X_OK):
                return f"{folder}/{name}"
    raise Failure(f"{names[0]} is missing: sh scripts/install.sh deploy")


def wait_until(holds, what, seconds=20.0):
    ends = time.monotonic() + seconds
    while not holds():
        require(time.monotonic() < ends, f"after {seconds} s: {what}")
        time.sleep(0.05)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- kubernetes -----------------------------------------------------------------------------------


def build(folder):
    import yaml

    kustomize = shutil.which("kustomize")
    command = [kustomize, "build"] if kustomize else [program("kubectl"), "kustomize"]
    return [document for document in yaml.safe_load_all(run(*command, folder)) if document]


def validate(documents):
    """What the schemas have against the documents."""
    import kubernetes_validate

    found = []
    for document in documents:
        if document["kind"] in FOREIGN:
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                name = f"{document['kind']} {document['metadata']['name']}"
                found.append(f"{version}: {name}: {'.'.join(map(str, error.path))}: {error.message[:200]}")
    return found


def pods(documents):
    for document in documents:
        template = document.get("spec", {}).get("template")
        if template:
            yield document, template


def dangling(documents):
    """Names that one document says and no other has. Secrets are made by hand."""
    has = {(document["kind"], document["metadata"]["name"]) for document in documents}
    found = []

    def need(kind, name, who):
        if (kind, name) not in has:
            found.append(f"{who} names {kind} {name}, which is not there")

    for document, template in pods(documents):
        who = f"{document['kind']} {document['metadata']['name']}"
        spec = template["spec"]
        need("ServiceAccount", spec.get("serviceAccountName", "default"), who)
        for volume in spec.get("volumes", []):
            if "configMap" in volume:
                need("ConfigMap", volume["configMap"]["name"], who)
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", [])}
        for container in spec.get("initContainers", []) + spec["containers"]:
            for source in container.get("envFrom", []):
                need("ConfigMap", source["configMapRef"]["name"], who)
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    found.append(f"{who} mounts {mount['name']}, which is no volume of it")
        if document["kind"] == "StatefulSet":
            need("Service", document["spec"]["serviceName"], who)
    for document in documents:
        who = f"{document['kind']} {document['metadata']['name']}"
        # The steps of docs/deployment.md select by these labels.
        labels = document["metadata"].get("labels", {})
        if labels.get("app.kubernetes.io/name") != "stock-flow" or "app.kubernetes.io/component" not in labels:
            found.append(f"{who} belongs to no step")
        if document["kind"] == "HorizontalPodAutoscaler":
            target = document["spec"]["scaleTargetRef"]
            need(target["kind"], target["name"], who)
        if document["kind"] == "Ingress":
            for rule in document["spec"]["rules"]:
                for path in rule["http"]["paths"]:
                    need("Service", path["backend"]["service"]["name"], who)
        # Every selector matches pods, and a named port is a port of each of them.
        selector = {
            "Service": lambda spec: spec.get("selector"),
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"].get("matchLabels", {}),
            "Deployment": lambda spec: spec["selector"]["matchLabels"],
            "StatefulSet": lambda spec: spec["selector"]["matchLabels"],
        }.get(document["kind"])
        if not selector or selector(document["spec"]) is None:
            continue
        wanted = selector(document["spec"]).items()
        chosen = [template for _, template in pods(documents) if wanted <= template["metadata"]["labels"].items()]
        if not chosen:
            found.append(f"{who} selects no pod")
        if document["kind"] == "Service":
            for port in document["spec"]["ports"]:
                for template in chosen:
                    names = {
                        own["name"]
                        for container in template["spec"]["containers"]
                        for own in container.get("ports", [])
                    }
                    if port["targetPort"] not in names:
                        found.append(f"{who} leads to port {port['targetPort']}, which a pod lacks")
    return found


def check_kubernetes():
    overlays = sorted(path.parent for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))
    require(len(overlays) >= 2, "no overlays")
    count, used = 0, set()
    for overlay in overlays:
        documents = build(overlay)
        count += len(documents)
        found = validate(documents) + dangling(documents)
        require(not found, f"{overlay.name}:\n" + "\n".join(found))
        used |= {path.parent.name for path in KUBERNETES.glob("components/*/kustomization.yaml")
                 if path.parent.name in (overlay / "kustomization.yaml").read_text()}
    # A component that no overlay uses is untested.
    components = {path.name for path in (KUBERNETES / "components").iterdir()}
    require(used == components, f"in no overlay: {components - used}")
    # Bad documents are caught.
    bad = build(overlays[0])
    deployment = next(document for document in bad if document["kind"] == "Deployment")
    deployment["spec"]["replica"] = 2
    deployment["spec"]["template"]["spec"]["serviceAccountName"] = "nobody"
    require(len(validate(bad)) == len(VERSIONS) and len(dangling(bad)) == 1, "a flaw is not seen")
    print(f"kubernetes: {len(overlays)} overlays, {count} documents, schemas of {', '.join(VERSIONS)}")


# --- nginx ----------------------------------------------------------------------------------------


class Instance:
    """A server that notes what arrives, and misbehaves as it is told."""

    def __init__(self):
        self.port = free_port()
        self.mode = "answer"
        self.seen = []
        self.clients = []
        self.socket = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            self.clients.append(client)
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client, client.makefile("rb") as reader, contextlib.suppress(OSError):
            while True:
                first = reader.readline().decode()
                if not first:
                    return
                headers = {}
                while (line := reader.readline().decode().strip()):
                    name, value = line.split(":", 1)
                    headers[name.lower()] = value.strip()
                length = int(headers.get("content-length", 0))
                # The request is noted before its body is read, which shows whether nginx holds a
                # body back.
                self.seen.append((first.split()[0], first.split()[1], headers))
                reader.read(length)
                if self.mode == "swallow":
                    return
                if self.mode == "stream":
                    client.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
                    time.sleep(3)
                    return
                client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    def close(self):
        # shutdown wakes the thread that waits; close alone leaves the port open under it.
        for each in [self.socket, *self.clients]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class Proxy:
    """nginx with the project's configuration on loopback ports, before two instances."""

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.instances = [Instance(), Instance()]
        self.port = free_port()
        site = (ROOT / "deploy/nginx/stock-flow.conf").read_text()
        for number, instance in enumerate(self.instances, 1):
            name = f"stock-online-{number}:8080"
            require(name in site, f"no {name} in stock-flow.conf")
            site = site.replace(name, f"127.0.0.1:{instance.port}")
        require("listen 8080;" in site, "stock-flow.conf listens elsewhere")
        site = site.replace("listen 8080;", f"listen 127.0.0.1:{self.port};")
        frame = (ROOT / "deploy/nginx/nginx.conf").read_text()
        # Limits of descriptors are removed: the user who runs this may have fewer.
        frame = re.sub(r"worker_rlimit_nofile.*|worker_connections \d+;", "", frame)
        frame = frame.replace("/tmp/", f"{self.folder}/").replace("/etc/nginx/conf.d/*.conf", f"{self.folder}/site.conf")
        frame = frame.replace("error_log stderr", f"error_log {self.folder}/error.log")
        (self.folder / "site.conf").write_text(site)
        (self.folder / "nginx.conf").write_text(frame)
        command = [program("nginx"), "-c", self.folder / "nginx.conf", "-e", self.folder / "error.log", "-p", self.folder]
        tried = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        warned = tried.stdout + tried.stderr + (self.folder / "error.log").read_text()
        require(tried.returncode == 0 and "[warn]" not in warned, f"nginx -t\n{warned}")
        self.process = subprocess.Popen([*command, "-g", "daemon off;"])
        wait_until(lambda: self.ask("GET", "/livez")[0] == 200, "nginx does not answer")
        for instance in self.instances:
            instance.seen.clear()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        for instance in self.instances:
            instance.close()
        shutil.rmtree(self.folder)

    def ask(self, method, path, body=None, headers=None):
        try:
            link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            link.request(method, path, body, headers or {})
            answer = link.getresponse()
            return answer.status, answer.read()
        except ConnectionRefusedError:
            return 0, b""

    def seen(self):
        return [request for instance in self.instances for request in instance.seen]


def check_nginx():
    # An instance that reads a request and does not answer: a change is sent once, a GET may be sent
    # again.
    for method, expected in [("POST", 1), ("PATCH", 1), ("PUT", 1), ("DELETE", 1), ("GET", 2)]:
        with Proxy() as proxy:
            for instance in proxy.instances:
                instance.mode = "swallow"
            status, _ = proxy.ask(method, "/api/redis/orders", "{}" if method != "GET" else None)
            require(status == 502, f"{method}: {status}")
            require(len(proxy.seen()) == expected, f"{method} was sent {len(proxy.seen())} times")
    # A gone instance costs nobody an order, because nothing was sent to it.
    with Proxy() as proxy:
        proxy.instances[0].close()
        for number in range(20):
            status, _ = proxy.ask("POST", "/api/redis/orders", "{}")
            require(status == 200, f"order {number}: {status}")
        require(len(proxy.instances[1].seen) == 20, "not all arrived once")
        # A PUT is answered 502 only until nginx finds that the instance is away.
        refused = sum(proxy.ask("PUT", "/api/ops/selling", "{}")[0] != 200 for _ in range(20))
        require(refused <= 2, f"{refused} of 20 were refused")
    with Proxy() as proxy:
        # nginx passes on the client's address and the host, and keeps connections.
        for _ in range(20):
            proxy.ask("POST", "/x", "{}", {"X-Forwarded-For": "6.6.6.6", "Host": "shop.example"})
        for _, _, headers in proxy.seen():
            require(headers["x-forwarded-for"] == "6.6.6.6, 127.0.0.1", headers)
            require(headers["host"] == "shop.example" and headers["x-forwarded-proto"] == "http", headers)
        opened = sum(len(instance.clients) for instance in proxy.instances)
        require(opened <= 4, f"{opened} connections for 20 requests")
        # Clients cannot read metrics.
        for path in ["/metrics", "/metrics/", "//metrics", "/x/../metrics"]:
            require(proxy.ask("GET", path)[0] == 404, path)
        # A body that the service would refuse reaches it, a far larger one does not, and a file of
        # stock does.
        require(proxy.ask("POST", "/api/products", b"x" * 100_000)[0] == 200, "100 kB")
        require(proxy.ask("POST", "/api/products", b"x" * 1_100_000)[0] == 413, "1.1 MB")
        require(proxy.ask("POST", "/api/stock/import?dryRun=true", b"x" * 20_000_000)[0] == 200, "20 MB of stock")
    # An event arrives when it is sent, not when a buffer of 8 kB is full.
    for path in ["/api/events/levels?productId=1", "/live/levels", "/dashboard/live"]:
        with Proxy() as proxy:
            for instance in proxy.instances:
                instance.mode = "stream"
            link = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=2)
            link.request("GET", path)
            require(link.getresponse().readline() == b"data: 1\n", path)
            link.close()
    # nginx does not buffer a file of stock before the service sees it.
    with Proxy() as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as link:
        link.sendall(b"POST /api/stock/import HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nsku")
        wait_until(lambda: proxy.seen(), "the beginning of a file is held back", 5)
    print("nginx: -t, changes sent once, streams unbuffered, addresses passed on")


# --- redis ----------------------------------------------------------------------------------------


class Nodes:
    """Six nodes, started as the pods start them. An address is a pod's: after a restart it has another."""

    def __enter__(self):
        self.scripts = KUBERNETES / "components/redis-cluster"
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.port = free_port()
        while self.port > 55_000:
            self.port = free_port()
        self.generation = 0
        self.processes = {}
        self.password = "p \"q\\ $x"
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()
        shutil.rmtree(self.folder)

    def address(self, number):
        return f"127.0.{self.generation + 1}.{number}"

    def names(self):
        return " ".join(f"{self.address(number)}:{self.port}" for number in range(1, 7))

    def start(self, number):
        folder = self.folder / str(number)
        folder.mkdir(exist_ok=True)
        conf = (self.scripts / "redis.conf").read_text()
        conf = conf.replace("port 6379", f"port {self.port}\nbind {self.address(number)}")
        conf = conf.replace("dir /data", f"dir {folder}").replace("node-timeout 15000", "node-timeout 2000")
        (folder / "redis.conf").write_text(conf)
        env = os.environ | {
            "POD_IP": self.address(number),
            "NODE_HOST": f"redis-{number}.redis",
            "REDIS_PASSWORD": self.password,
            "REDIS_CONF": str(folder / "redis.conf"),
        }
        log = open(folder / "log", "a", encoding="utf-8")
        self.processes[number] = subprocess.Popen(
            ["sh", self.scripts / "start.sh"], env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        log.close()

    def stop(self, number):
        self.processes[number].send_signal(signal.SIGTERM)
        self.processes.pop(number).wait()

    def cli(self, number, *command):
        env = os.environ | {"REDISCLI_AUTH": self.password}
        return run("redis-cli", "-h", self.address(number), "-p", str(self.port), *command, env=env).strip()

    def script(self, name, **variables):
        env = os.environ | {"REDISCLI_AUTH": self.password, "NODES": self.names()} | variables
        return subprocess.run(
            ["sh", self.scripts / name], env=env, capture_output=True, text=True, check=False, timeout=60
        )

    def is_whole(self):
        def holds(number):
            with contextlib.suppress(Failure):
                info = self.cli(number, "cluster", "info")
                return "cluster_state:ok" in info and "cluster_slots_ok:16384" in info and \
                    "fail" not in self.cli(number, "cluster", "nodes")
            return False

        return all(holds(number) for number in range(1, 7))

    def answers(self, number):
        with contextlib.suppress(Failure):
            return self.cli(number, "ping") == "PONG"
        return False

    def primaries(self):
        return [number for number in range(1, 7) if self.cli(number, "role").startswith("master")]


def make_cluster(nodes):
    for number in range(1, 7):
        nodes.start(number)
    made = nodes.script("create.sh", PATIENCE_SECONDS="30")
    require(made.returncode == 0 and "is made" in made.stdout, made.stdout + made.stderr)
    require(nodes.is_whole() and len(nodes.primaries()) == 3, "three primaries, each with a replica")


def check_redis():
    program("redis-server")
    with Nodes() as nodes:
        make_cluster(nodes)
        # The password is not in the list of processes.
        for process in nodes.processes.values():
            arguments = pathlib.Path(f"/proc/{process.pid}/cmdline")
            require(not arguments.exists() or nodes.password.encode() not in arguments.read_bytes(), "shown")
        ids = nodes.cli(1, "cluster", "nodes")
        again = nodes.script("create.sh", SETTLE_SECONDS="5")
        require(again.returncode == 0 and "is there" in again.stdout, again.stdout + again.stderr)
        require(sorted(line.split()[0] for line in ids.splitlines())
                == sorted(line.split()[0] for line in nodes.cli(1, "cluster", "nodes").splitlines()), "made anew")
        for number in range(20):
            nodes.cli(1, "-c", "set", f"key:{number}", str(number))
        # A primary that stops hands over, and becomes a replica.
        leaver = nodes.primaries()[0]
        handed = nodes.script("hand-over.sh", OWN=f"{nodes.address(leaver)}:{nodes.port}")
        require("is the primary" in handed.stdout, handed.stdout + handed.stderr)
        require(leaver not in nodes.primaries() and len(nodes.primaries()) == 3, nodes.primaries())
        def ready(number):
            return nodes.script("ready.sh", OWN=f"{nodes.address(number)}:{nodes.port}").returncode == 0

        wait_until(lambda: all(map(ready, range(1, 7))), "not every node is ready")
        # A replica has nothing to hand over.
        idle = nodes.script("hand-over.sh", OWN=f"{nodes.address(leaver)}:{nodes.port}")
        require(idle.returncode == 0 and idle.stdout == "", idle.stdout + idle.stderr)
        # All nodes stop at once and come back under other addresses: they do not find each other
        # until they are introduced.
        for number in range(1, 7):
            nodes.stop(number)
        nodes.generation += 1
        for number in range(1, 7):
            nodes.start(number)
        wait_until(lambda: all(nodes.answers(number) for number in range(1, 7)), "no nodes")
        time.sleep(3)
        require(not nodes.is_whole(), "they found each other alone: meet.sh is not needed")
        meeters = [
            subprocess.Popen(
                ["sh", nodes.scripts / "meet.sh"],
                env=os.environ | {"REDISCLI_AUTH": nodes.password, "NODES": nodes.names(), "PAUSE_SECONDS": "1",
                                  "OWN": f"{nodes.address(number)}:{nodes.port}"},
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            for number in range(1, 7)
        ]
        try:
            wait_until(nodes.is_whole, "the nodes do not find each other", 40)
        finally:
            for meeter in meeters:
                os.killpg(meeter.pid, signal.SIGTERM)
                meeter.wait()
        for number in range(20):
            require(nodes.cli(1, "-c", "get", f"key:{number}") == str(number), f"key:{number} is gone")
        # A cluster that holds data and is not whole is left alone; here a primary has forgotten a
        # slot.
        primary = nodes.primaries()[0]
        own = next(line for line in nodes.cli(primary, "cluster", "nodes").splitlines() if "myself" in line)
        nodes.cli(primary, "cluster", "delslots", own.split()[8].split("-")[0])
        before = sorted(nodes.cli(number, "dbsize") for number in range(1, 7))
        left = nodes.script("create.sh", PATIENCE_SECONDS="10", SETTLE_SECONDS="1")
        require(left.returncode != 0 and "nothing is done" in left.stdout, left.stdout + left.stderr)
        require(sorted(nodes.cli(number, "dbsize") for number in range(1, 7)) == before, "data is gone")
        # So is a cluster of which a node is away.
        stopped = nodes.primaries()[0]
        nodes.stop(stopped)
        wait_until(lambda: sum(map(ready, range(1, 7))) < 5, "its replica says that it is in step")
        require(not ready(stopped), "a node that is gone is ready")
        left = nodes.script("create.sh", PATIENCE_SECONDS="3", SETTLE_SECONDS="1")
        require(left.returncode != 0, "a broken cluster was touched")
    with Nodes() as nodes:
        # A creation that was cut off, without data, is begun anew.
        for number in range(1, 7):
            nodes.start(number)
        wait_until(lambda: nodes.answers(1) and nodes.answers(2), "no nodes")
        nodes.cli(1, "cluster", "addslotsrange", "0", "100")
        nodes.cli(1, "cluster", "meet", nodes.address(2), str(nodes.port))
        made = nodes.script("create.sh", PATIENCE_SECONDS="40", SETTLE_SECONDS="1")
        require(made.returncode == 0 and "begun anew" in made.stdout, made.stdout + made.stderr)
        require(nodes.is_whole(), "whole")
    print("redis: made once, begun anew when cut off, found again under other addresses, handed over")


# --- scripts --------------------------------------------------------------------------------------


def check_scripts():
    scripts = sorted((ROOT / "deploy").rglob("*.sh"))
    require(len(scripts) >= 5, scripts)
    run(program("shellcheck"), *scripts)
    print(f"scripts: {len(scripts)}")


def main():
    checks = {
        "kubernetes": check_kubernetes,
        "nginx": check_nginx,
        "scripts": check_scripts,
        "redis": check_redis,
    }
    for name in sys.argv[1:] or checks:
        began = time.monotonic()
        try:
            checks[name]()
        except Failure as failure:
            sys.exit(f"{name}: {failure}")
        print(f"{name}: {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
