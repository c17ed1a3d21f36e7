"""Load on the calls of Points: one user earns points, again and again.

    TOKEN=… locust -f locust/points.py --host http://127.0.0.1:8080/seeds/points PointsV1User

Points asks nobody for a token, and here earning is an admin's call. So TOKEN is an admin's token:
`stock-online token --env-file .stock/env --user-id 1 --role admin`.
"""

import os
import sys

from locust import FastHttpUser, HttpUser, between, task

if "TOKEN" not in os.environ:
    sys.exit("set TOKEN to an admin's token")

HEADERS = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
EARNING = {"user_id": 100, "amount": 10_000, "description": "string"}


class PointsV1User(FastHttpUser):
    """Earns without a pause. v1 answers when MySQL has the points."""

    connection_timeout = network_timeout = 10.0
    default_headers = HEADERS

    @task
    def earn(self) -> None:
        self.client.post("/api/v1/points/earn", json=EARNING)


class PointsV2User(HttpUser):
    """Earns every few seconds. v2 answers when Redis has decided."""

    wait_time = between(1, 3)

    def on_start(self) -> None:
        self.client.headers.update(HEADERS)

    @task
    def earn(self) -> None:
        self.client.post("/api/v2/points/earn", json=EARNING)
