"""Gives every Locust user of another plan the token in TOKEN, so that the plan need not be changed.

    TOKEN=… locust -f their_plan.py,locust/bearer.py --host http://127.0.0.1:8080/seeds/points

A plan that sets headers or an `on_start` of its own keeps them.
"""

import os
import sys

from locust import FastHttpUser, HttpUser

if "TOKEN" not in os.environ:
    sys.exit("set TOKEN to an access token")

HEADERS = {"Authorization": f"Bearer {os.environ['TOKEN']}"}


def add_token(user: HttpUser) -> None:
    user.client.headers.update(HEADERS)


# Both stand in Locust's own classes, where a plan's classes look for what they do not define.
FastHttpUser.default_headers = HEADERS
HttpUser.on_start = add_token
