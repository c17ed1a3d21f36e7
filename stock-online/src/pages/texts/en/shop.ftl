# The shop.
shop-title = Shop
shop-search = Search products
shop-empty = There is no such product.
price-before = before
stock-left = stock left
units-left-after = {" "}left
sale-starts = Sale starts
sale-ends = Sale ends
sale-limit = { $count ->
    [one] One per buyer
   *[other] At most { $count } per buyer
}
buy-soon = Soon
buy-buy = Buy
buy-last-units = Buy: last units
buy-sold-out = Sold out
buy-limit-reached = Limit reached
buy-ended = Ended
buy-log-in = Log in to buy
order = Order
order-new = Order
order-lines = Products
order-total = Total
order-points = Points to pay with
order-used-points = Points used
order-coupon = Coupon
order-discount = Discount included
order-earned = Points earned
order-cancel = Cancel the order
order-cancel-sure = Cancel this order? Its stock goes back on sale at once.
order-ORDER_PENDING = Accepted
order-SUCCESS = Completed
order-FAIL = Failed
order-CANCEL_REQUESTED = Being cancelled
order-CANCEL = Cancelled
orders-title = My orders
orders-empty = No orders yet.
own-away = Your orders, reservations and coupons cannot be shown at the moment. Nothing is lost: look again in a minute.
unit-price = Unit price
sub-total = Subtotal
delivery = Delivery
delivery-ONLINE = Parcel
delivery-TODAY_DELIVERY = Today, from a store
delivery-PICKUP = Pick up in a store
coupon = Coupon
coupon-none = No coupon
coupon-used = Used
coupon-until = until
coupons-title = My coupons
coupons-empty = No coupons yet.
reserve = Set aside
reserve-title = Set aside
reserve-explained = Holds units for you for a while; buy them from “My reservations”.
reserve-minutes = Minutes
reservations-title = My reservations
reservations-empty = Nothing is set aside.
reservation-until = until
reservation-buy = Buy what is held
reservation-cancel = Let go
reservation-cancelled = The reservation was let go.
reservation-made = Set aside. You find it under “My reservations”.
reservation-PENDING = Held
reservation-CONFIRMED = Confirmed
reservation-CANCELLED = Let go
reservation-EXPIRED = Expired
points-title = My points
points-balance = { $count ->
    [one] One point
   *[other] { $count } points
}
point-kind = Kind
point-EARN = Earned
point-USED = Used
point-CANCELED = Taken back

# Coupons drawn first come first served.
event-title = Coupons, first come first served
event-none = There is no coupon event at the moment.
event-coming = Coming
event-running = Running
event-ended = Ended
event-left = coupons left
event-left-after = {" "}left
event-uncounted = As many as are wanted
event-starts = Starts
event-ends = Ends
event-get = Get a coupon
event-code = Your coupon code:
event-no-works = There are no campaign items.
event-log-in = Log in to get a coupon.

# Accounts.
email = Email
password = Password
password-again = Password, again
name-optional = Name (optional)
no-account = No account yet?
has-account = You have an account?
signed-up = Your account is there. Log in.
rule-email = This is not an email address.
rule-password = 8 to 128 characters, not one of the most common ones.
rule-confirm_password = The two passwords differ.
rule-name = At most 100 characters.
