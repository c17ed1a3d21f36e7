#!/bin/sh
# An order, its status, its cancel. SHOP_URL and TOKEN come from outside: see the recipes' page.
set -eu
KEY=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

# The same key until there is an answer: four attempts are one order. A connection that breaks is tried again too.
ORDER=$(curl -sS --fail-with-body --retry 3 --retry-all-errors "$SHOP_URL/api/redis/orders" \
  -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -H "Idempotency-Key: $KEY" \
  -d '{"orderProducts":[{"productId":1,"quantity":2}],"totalAmount":2000,"deliveryType":"ONLINE"}')
ID=$(echo "$ORDER" | sed 's/.*"orderId":"\([0-9]*\).*/\1/')
curl -sS --fail-with-body "$SHOP_URL/api/orders/$ID" -H "Authorization: Bearer $TOKEN"
echo
curl -sS --fail-with-body -X PATCH "$SHOP_URL/api/redis/orders/$ID/cancel" -H "Authorization: Bearer $TOKEN" \
  -H 'Content-Type: application/json' -d '{}'
echo
