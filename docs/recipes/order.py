"""An order with the standard library alone: the same key until there is an answer, refusals by their code."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
import uuid

URL, TOKEN = os.environ["SHOP_URL"], os.environ["TOKEN"]


class Refused(Exception):
    """The answer is no, and asking again will not change it."""

    def __init__(self, problem):
        super().__init__(f"{problem['code']}: {problem['detail']}")
        self.problem = problem


def call(method, path, body=None, key=None, attempts=5):
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    if key:
        headers["Idempotency-Key"] = key
    data = None if body is None else json.dumps(body).encode()
    for attempt in range(attempts):
        request = urllib.request.Request(URL + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            problem = json.load(error)
            is_passing = error.code in (429, 503) or problem["code"] == "REQUEST_IN_PROGRESS"
            if not is_passing or attempt + 1 == attempts:
                raise Refused(problem) from None
            time.sleep(float(error.headers.get("Retry-After", 1)))
        except (OSError, http.client.HTTPException):
            # What became of it is not known; the key makes asking again safe.
            if not key or attempt + 1 == attempts:
                raise
            time.sleep(1)


def buy(product_id, quantity):
    product = call("GET", f"/api/redis/products/{product_id}")
    order = {
        "orderProducts": [{"productId": product_id, "quantity": quantity, "unitPrice": product["unitPrice"]}],
        "totalAmount": product["unitPrice"] * quantity,
        "deliveryType": "ONLINE",
    }
    return call("POST", "/api/redis/orders", order, key=str(uuid.uuid4()))


if __name__ == "__main__":
    order = buy(1, 2)
    print(order["orderId"], order["orderStatus"])
    print(call("GET", f"/api/orders/{order['orderId']}")["orderStatus"])
    print(call("PATCH", f"/api/redis/orders/{order['orderId']}/cancel", {}, key=str(uuid.uuid4()))["orderStatus"])
    try:
        buy(1, 1_000_000)
    except Refused as refused:
        assert refused.problem["code"] == "INSUFFICIENT_STOCK", refused
        print("refused:", refused)
