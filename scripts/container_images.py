"""The images of `make container-check`: the stand-ins, and the one that the Dockerfile builds.

`scripts/container_check.py` says when there are stand-ins, and docs/deployment.md what each of them is.
"""

import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import tempfile
import time

from deploy_check import ROOT, require, run

# The image's name in the Compose files, and the name of the image to upgrade to.
IMAGE = "stock-flow:local"
NEXT = "stock-flow:next"
FILES = {"alone": "docker-compose.yml", "cluster": "docker-compose.cluster.yml"}
STAND_INS = ROOT / "scripts/containers"
# The label of each image made here, so that images of earlier runs can be told from others.
LABEL = "stock-flow.check"

began = time.monotonic()


def say(what):
    print(f"{time.monotonic() - began:6.1f} s  {what}", flush=True)


def podman(*command, **options):
    return run("podman", *command, **options)


def succeeds(*command):
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def prepare():
    """Whether images have to be made here."""
    program = os.environ.get("CONTAINERS_SETUP")
    for line in run(program).splitlines() if program else []:
        if line.startswith("export "):
            os.environ.update(pair.split("=", 1) for pair in shlex.split(line)[1:])
    podman("info")
    return bool(program)


def make_stand_ins():
    text = (ROOT / "Dockerfile").read_text() + "".join((ROOT / file).read_text() for file in FILES.values())
    names = set(re.findall(r"^\s*(?:FROM|image:) (\S+)", text, re.MULTILINE)) - {IMAGE}
    targets = re.findall(r"^FROM \S+ AS (\S+)", (STAND_INS / "Dockerfile").read_text(), re.MULTILINE)
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(STAND_INS.iterdir()))).hexdigest()
    for name in sorted(names):
        # The last target whose name occurs in the image's name: `debian` occurs in several.
        # Prometheus and Grafana have no stand-in.
        target = next((target for target in reversed(targets) if target in name), None)
        full = name if "." in name.split("/")[0] else f"docker.io/library/{name}"
        if target and state not in podman("images", "--format", "{{.Labels}}", full):
            podman("build", *ways(), "--label", f"{LABEL}={state}", "--target", target, "-t", full, STAND_INS)
            say(f"{name}: a stand-in from Debian's packages")


def ways():
    """How to build where nothing can be pulled: one layer, through the host's network."""
    return ["--isolation", "chroot", "--network", "host", "--layers=false", "--force-rm"]


def build(program, is_made_here):
    """The image that the Compose files name, and one more of it, to which they are upgraded."""
    with tempfile.TemporaryDirectory() as folder:
        options, context = ["--format", "docker", "--label", f"{LABEL}=image", "-t", IMAGE], ROOT
        if program:
            # The last stage as it is, on a first stage that only holds the program.
            last = (ROOT / "Dockerfile").read_text().rsplit("\nFROM ", 1)[1]
            context = pathlib.Path(folder)
            run("strip", "-o", context / "stock-online", program)
            first = "FROM scratch AS build\nCOPY stock-online /src/target/release/stock-online\n"
            (context / "Dockerfile").write_text(f"{first}FROM {last}")
        if is_made_here:
            compiler = run("rustc", "--print", "sysroot", cwd=ROOT).strip()
            options += ways() + ["-v", f"{compiler}:/usr/local/rust:ro", "-v", "/etc/ssl/certs:/etc/ssl/certs:ro"]
        run("nice", "-n", "15", "podman", "build", *options, context)
        (pathlib.Path(folder) / "Next").write_text(f"FROM {IMAGE}\nLABEL {LABEL}=next\n")
        podman("build", "--format", "docker", "-f", f"{folder}/Next", "-t", NEXT, folder)
    podman("image", "prune", "-f", "--filter", f"label={LABEL}")
    image = json.loads(podman("image", "inspect", IMAGE))[0]
    require(image["User"] not in ("", "0", "root"), "the image runs as root")
    require(image.get("Healthcheck"), "the image has no health check")
    require(not succeeds("podman", "run", "--rm", "--entrypoint", "/bin/sh", IMAGE, "-c", "true"), "it has a shell")
    version = podman("run", "--rm", IMAGE, "--version").strip()
    say(f"image: {version}, {image['Size'] >> 20} MiB, user {image['User']}, no shell")
