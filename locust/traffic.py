"""Load on the calls of Traffic: look at products, look at their stock, reserve some.

    locust -f locust/traffic.py --host http://127.0.0.1:8080/seeds/traffic TrafficUser

The service needs the users user0 to user9999: `stock-online dev --users 10000` makes them. Each
Locust user is one of them, drawn at random. A reservation that the shop refuses (400) is a good
answer: stock and what one user may hold are limited.
"""

import random
import time

from locust import FastHttpUser, between, task

USERS = 10_000
PASSWORD = "password"
# A token lives for longer, so a user logs in again while the token still holds.
LOGIN_SECONDS = 300
UNITS_MAX = 100


class TrafficUser(FastHttpUser):
    """A visitor who looks more often than they reserve."""

    wait_time = between(1, 3)

    def on_start(self) -> None:
        self.product_id: str | None = None
        self.log_in()

    def log_in(self) -> None:
        self.headers: dict[str, str] = {}
        who = {"username": f"user{random.randrange(USERS)}", "password": PASSWORD}
        with self.rest("POST", "/api/token/", name="log in", json=who) as answer:
            if answer.status_code == 200:
                self.headers = {"Authorization": f"Bearer {answer.js['access']}"}
        self.logged_in_at = time.monotonic()

    def ask(self, method: str, path: str, name: str, **options):
        if time.monotonic() - self.logged_in_at > LOGIN_SECONDS:
            self.log_in()
        return self.rest(method, path, name=name, headers=self.headers, **options)

    def page(self, path: str, name: str) -> list[dict]:
        """The results of a page. A page without results counts as a failure."""
        found = []
        with self.ask("GET", path, name) as answer:
            if answer.status_code == 200:
                found = answer.js["results"]
                if not found:
                    answer.failure("a page without results")
        return found

    def choose(self) -> str | None:
        """The product that this user looked at last, or one that they look at now."""
        if self.product_id is None:
            self.see_products()
        return self.product_id

    @task(3)
    def see_products(self) -> None:
        if products := self.page("/api/products/", "list products"):
            self.product_id = random.choice(products)["id"]

    @task(2)
    def see_stock(self) -> None:
        if product_id := self.choose():
            self.page(f"/api/products/stock/available/?product_id={product_id}", "see stock")

    @task(1)
    def reserve(self) -> None:
        if product_id := self.choose():
            wanted = {"product_id": product_id, "quantity": random.randint(1, UNITS_MAX)}
            with self.ask("POST", "/api/products/stock/reserve/", "reserve", json=wanted) as answer:
                if answer.status_code == 400 and answer.js is not None:
                    answer.success()

    @task(1)
    def buy_at_once(self) -> None:
        self.see_products()
        self.see_stock()
        self.reserve()


class HighVolumeUser(TrafficUser):
    """A visitor in a hurry, who also does everything that the other does."""

    wait_time = between(0.1, 1)

    @task(5)
    def see_stock_again(self) -> None:
        self.see_stock()

    @task(3)
    def reserve_again(self) -> None:
        self.reserve()
