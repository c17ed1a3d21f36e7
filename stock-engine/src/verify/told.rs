//! The rows that entries write, as the entries state them, in the form in which MySQL prints them.

use stock_common::id::Position;
use stock_domain::checkout::Checkout;
use stock_domain::coupon::CouponIssued;
use stock_domain::order::Order;
use stock_domain::reservation::Reservation;
use stock_mysql::order_changes::StoredChange;
use stock_mysql::payments::StoredPayment;
use stock_mysql::record::Rows;

use super::rows::{OFFLINE, Row, Text};

fn text(value: impl ToString) -> Text {
    Some(value.to_string())
}

fn of<T: ToString>(value: Option<T>) -> Text {
    value.map(|value| value.to_string())
}

fn row(at: Position, values: Vec<Text>) -> Row {
    Row {
        at,
        values,
        late: Vec::new(),
    }
}

fn order_row(id: Position, order: &Order) -> Row {
    let points = |points: i64| (points > 0).then(|| points.to_string());
    let coupon = order.coupon.as_ref();
    row(
        id,
        vec![
            text(id),
            text(order.user_id),
            text(order.path.as_str()),
            text(order.delivery_type.as_str()),
            of(order.store_id),
            text(order.total_amount.get()),
            of(order.reservation_id),
            text(u8::from(order.shares_online_stock)),
            of(coupon.map(|coupon| coupon.coupon_id)),
            of(coupon.map(|coupon| &coupon.code)),
            of(coupon.map(|coupon| coupon.discount_amount.get())),
            points(order.used_points.get()),
            points(order.earned_points.get()),
            of(order.checkout_id),
            of(order.reference.as_ref()),
        ],
    )
}

fn checkout_row((id, of): &(Position, Checkout)) -> Row {
    let (order, coupon) = (&of.order, of.order.coupon.as_ref());
    row(
        *id,
        vec![
            text(id),
            text(order.user_id),
            text(order.delivery_type.as_str()),
            self::of(order.store_id),
            text(order.total_amount.get()),
            self::of(coupon.map(|coupon| coupon.coupon_id)),
            self::of(coupon.map(|coupon| &coupon.code)),
            self::of(coupon.map(|coupon| coupon.discount_amount.get())),
            text(order.used_points.get()),
            text(order.earned_points.get()),
            text(of.ttl_ms),
            text(of.hold_limit),
            self::of(order.reference.as_ref()),
        ],
    )
}

fn line_rows(id: Position, order: &Order) -> impl Iterator<Item = Row> + use<'_> {
    (1u16..).zip(&order.lines).map(move |(line, of_order)| {
        let allowance = of_order.allowance;
        row(
            id,
            vec![
                text(id),
                text(line),
                text(of_order.product_id),
                text(&of_order.product_name),
                text(of_order.quantity.get()),
                text(of_order.price.get()),
                text(of_order.unit_price.get()),
                of(allowance.map(|allowance| allowance.sale_id)),
                of(allowance.map(|allowance| allowance.limit)),
            ],
        )
    })
}

fn reservation_row((id, made): &(Position, Reservation)) -> Row {
    let limited = made.allowance.map(|allowance| allowance.sale_id);
    let sale = made.frozen.map_or(limited, |frozen| frozen.sale_id);
    row(
        *id,
        vec![
            text(id),
            text(made.user_id),
            text(made.product_id),
            text(made.location_id),
            text(made.quantity.get()),
            text(made.ttl_ms),
            of(sale),
            of(made.allowance.map(|allowance| allowance.limit)),
            text(made.hold_limit),
            of(made.frozen.map(|frozen| frozen.price.get())),
            of(made.frozen.map(|frozen| frozen.unit_price.get())),
        ],
    )
}

fn payment_row(paid: &StoredPayment) -> Row {
    row(
        paid.id,
        vec![
            text(paid.id),
            text(&paid.payment_id),
            text(paid.checkout_id),
            text(paid.amount.get()),
            text(paid.outcome.as_str()),
        ],
    )
}

fn change_row(change: &StoredChange) -> Row {
    let (step, shares) = (&change.step, change.step.shares);
    row(
        change.id,
        vec![
            text(change.id),
            text(change.order_id),
            text(step.way.as_str()),
            of(step.location),
            text(&step.left),
            text(shares.coupon_discount),
            text(shares.used_points),
            text(shares.earned_points),
        ],
    )
}

fn issue_row((id, issued): &(Position, CouponIssued)) -> Row {
    row(
        *id,
        vec![
            text(id),
            text(issued.coupon_id),
            text(issued.user_id),
            of(issued.work_id),
            text(&issued.code),
        ],
    )
}

/// Returns the rows that entries state for each of [`super::rows::TABLES`] except the last, in
/// their order.
pub(super) fn told(rows: &Rows) -> Vec<Vec<Row>> {
    let placed = &rows.placed;
    let orders = placed.iter().map(|(id, order)| order_row(*id, order));
    let lines = placed.iter().flat_map(|(id, order)| line_rows(*id, order));
    let reservations = rows.reserved.iter().map(reservation_row);
    let checkouts = rows.checkouts.iter().map(checkout_row);
    let opened = rows.checkouts.iter();
    let checkout_lines = opened.flat_map(|(id, of)| line_rows(*id, &of.order));
    let payments = rows.payments.iter().map(payment_row);
    let changes = rows.changes.iter().map(change_row);
    let buyers = rows.buyers.iter().map(|(id, seen)| {
        let values = vec![text(id), text(seen.user_id), text(seen.name.as_str())];
        row(*id, values)
    });
    let offline = rows.offline.iter().map(|(id, store, sale, state)| {
        let mut values = vec![
            text(id),
            text(store),
            text(&sale.key),
            text(&sale.device_id),
            text(sale.fingerprint.to_lowercase()),
            text(sale.sold_ms),
            text(state.as_str()),
        ];
        values.resize_with(OFFLINE.columns.len(), || text(1));
        row(*id, values)
    });
    let issues = rows.issued.iter().map(issue_row);
    let points = rows.points.iter().map(|moved| {
        row(
            moved.id,
            vec![
                text(moved.id),
                text(moved.user_id),
                text(moved.seq),
                text(moved.point_type.as_str()),
                text(moved.delta),
                text(moved.balance_snapshot),
                text(&moved.description),
                of(moved.cancels_id),
            ],
        )
    });
    let branches = rows.held.iter();
    let branches = branches.map(|(id, cross_shard)| row(*id, vec![text(id), text(cross_shard)]));
    let owned = rows.owned.iter().map(|(branch, cross_shard, entry)| {
        row(*entry, vec![text(entry), text(branch), text(cross_shard)])
    });
    vec![
        orders.collect(),
        lines.collect(),
        reservations.collect(),
        checkouts.collect(),
        checkout_lines.collect(),
        payments.collect(),
        changes.collect(),
        buyers.collect(),
        offline.collect(),
        issues.collect(),
        points.collect(),
        branches.collect(),
        owned.collect(),
    ]
}
