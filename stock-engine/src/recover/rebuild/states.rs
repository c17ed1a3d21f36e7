//! Rebuilds the states: of orders, holds, payments, points, products, tills and coupons.

use redis::RedisError;
use serde::Deserialize;
use sqlx::{MySql, Transaction};
use stock_common::id::{CouponId, Position, ProductId, UserId, WorkId};
use stock_domain::checkout::{self, CheckoutStatus, Course, Extended};
use stock_domain::order::{self, Order};
use stock_domain::{coupon, hold, points};
use stock_redis::epoch;

use super::{DAY_MS, PAGE, Rebuild, RecoverError};

impl Rebuild<'_> {
    /// Writes every state that is still needed.
    pub(crate) async fn write_states(
        &mut self,
        transaction: &mut Transaction<'static, MySql>,
        keep_ms: u64,
    ) -> Result<(), RecoverError> {
        self.write_position_states(transaction, keep_ms).await?;
        self.write_product_states(transaction).await
    }

    /// Writes the states that lie on the shard of their position: of orders that were taken back
    /// within a day or are compensated dead letters, of reservations and checkouts that ended
    /// within a day, and of points that were taken back less than `keep_ms` ago.
    async fn write_position_states(
        &mut self,
        transaction: &mut Transaction<'static, MySql>,
        keep_ms: u64,
    ) -> Result<(), RecoverError> {
        let now = epoch::time_ms(self.redis).await?;
        let orders: Vec<(u64, String)> = sqlx::query_as(
            "SELECT id, IF(status = 'CANCEL', 'CANCEL_REQUESTED', CAST(status AS CHAR)) FROM orders \
             WHERE status <> 'SUCCESS' AND updated_at > NOW(3) - INTERVAL 1 DAY \
             UNION ALL SELECT journal_id, 'FAIL' FROM dead_letters WHERE state = 'COMPENSATED' \
             UNION ALL SELECT c.order_id, CONCAT('LEFT ', c.left_units) FROM order_changes c \
             WHERE c.created_at > NOW(3) - INTERVAL 1 DAY AND NOT EXISTS (SELECT 1 FROM orders o \
             WHERE o.id = c.order_id AND o.status <> 'SUCCESS') AND NOT EXISTS (SELECT 1 FROM \
             dead_letters d WHERE d.journal_id = c.order_id AND d.state <> 'OPEN') \
             AND NOT EXISTS (SELECT 1 FROM order_changes n \
             WHERE n.order_id = c.order_id AND n.id > c.id)",
        )
        .fetch_all(&mut **transaction)
        .await?;
        let holds: Vec<(u64, String)> = sqlx::query_as(
            "SELECT id, IF(order_id IS NULL, CAST(status AS CHAR), 'ORDERED') FROM reservations \
             WHERE status <> 'PENDING' AND ended_at > NOW(3) - INTERVAL 1 DAY",
        )
        .fetch_all(&mut **transaction)
        .await?;
        // For this long handlers rely on the state instead of asking MySQL.
        let from = Position::from_parts(now.saturating_sub(keep_ms), 0).unwrap_or_default();
        let points: Vec<u64> = sqlx::query_scalar(
            "SELECT cancels_id FROM point_transactions WHERE cancels_id IS NOT NULL AND id > ?",
        )
        .bind(from.get())
        .fetch_all(&mut **transaction)
        .await?;
        let checkouts = self.checkout_states(transaction).await?;
        let orders = orders
            .into_iter()
            .map(|(id, state)| (format!("order:{id}"), state));
        let holds = holds
            .into_iter()
            .map(|(id, state)| (hold::state_id(Position::new(id)), state));
        let points = points.into_iter().map(|id| {
            let state = points::PointType::Canceled.as_str().to_owned();
            (points::state_id(Position::new(id)), state)
        });
        let states: Vec<(String, String)> =
            orders.chain(holds).chain(points).chain(checkouts).collect();
        self.set_states(&states, now).await?;
        Ok(())
    }

    /// The states of checkouts that are open or ended within a day, and of their payments.
    async fn checkout_states(
        &self,
        transaction: &mut Transaction<'static, MySql>,
    ) -> Result<Vec<(String, String)>, sqlx::Error> {
        type Row = (u64, String, Option<u64>, bool, u64, u32, bool);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, CAST(status AS CHAR), order_id, is_late, expires_ms, times_extended, \
             payment_extended FROM checkouts \
             WHERE status = 'OPEN' OR ended_at > NOW(3) - INTERVAL 1 DAY",
        )
        .fetch_all(&mut **transaction)
        .await?;
        let mut states = Vec::with_capacity(rows.len());
        for (id, status, order, is_late, until_ms, times, by_payment) in rows {
            let id = Position::new(id);
            if times > 0 || by_payment {
                let extended = Extended {
                    times,
                    by_payment,
                    until_ms,
                };
                states.push((checkout::extended_state_id(id), extended.state()));
            }
            let course = CheckoutStatus::parse(&status).map(|status| Course {
                status,
                order_id: order.map(Position::new),
                is_late,
            });
            let state = course.and_then(Course::state);
            states.extend(state.map(|state| (hold::state_id(id), state)));
        }
        let paid: Vec<(u64, String, String)> = sqlx::query_as(
            "SELECT checkout_id, payment_id, CAST(outcome AS CHAR) FROM payments \
             WHERE created_at > NOW(3) - INTERVAL 1 DAY ORDER BY id",
        )
        .fetch_all(&mut **transaction)
        .await?;
        states.extend(paid.into_iter().map(|(checkout, payment, outcome)| {
            let id = checkout::payment_state_id(Position::new(checkout), &payment);
            (id, outcome)
        }));
        Ok(states)
    }

    /// Writes the states that lie on the shard of their product or coupon: of opened products, of
    /// sales of tills within a day, of coupons and their codes.
    pub(crate) async fn write_product_states(
        &mut self,
        transaction: &mut Transaction<'static, MySql>,
    ) -> Result<(), RecoverError> {
        let now = epoch::time_ms(self.redis).await?;
        let yesterday = Position::from_parts(now.saturating_sub(DAY_MS), 0).unwrap_or_default();
        type Sale = (u64, String, String, String, Vec<u8>, Vec<u8>);
        let sales: Vec<Sale> = sqlx::query_as(
            "SELECT s.store_id, s.device_id, s.sale_key, IF(s.state = 'SOLD', 'SOLD', 'OVERSOLD'), \
             s.fingerprint, j.payload FROM offline_sales s JOIN journal j ON j.id = s.journal_id \
             WHERE s.journal_id > ?",
        )
        .bind(yesterday.get())
        .fetch_all(&mut **transaction)
        .await?;
        let products: Vec<u64> = sqlx::query_scalar("SELECT id FROM products WHERE opened = 1")
            .fetch_all(&mut **transaction)
            .await?;
        let products = products
            .into_iter()
            .map(|id| (format!("opened:{id}"), "OPEN".to_owned()));
        let sales =
            sales
                .into_iter()
                .filter_map(|(store, device, key, state, fingerprint, payload)| {
                    let product = first_product(&payload)?;
                    let is_here = self.has_product(product);
                    let state = order::offline_state(&state, &hex::encode(&fingerprint));
                    is_here.then(|| (order::offline_state_id(store, &device, &key), state))
                });
        let sales: Vec<(String, String)> = sales.collect();
        self.put_states(&sales, now).await?;
        self.set_states(&products.collect::<Vec<_>>(), now).await?;
        self.write_coupons(transaction, now).await
    }

    pub(super) async fn set_states(
        &mut self,
        states: &[(String, String)],
        now: u64,
    ) -> Result<(), RedisError> {
        let own = |(id, state): &&(String, String)| self.has_state(id, state);
        let own: Vec<(String, String)> = states.iter().filter(own).cloned().collect();
        self.put_states(&own, now).await
    }

    async fn put_states(
        &mut self,
        states: &[(String, String)],
        now: u64,
    ) -> Result<(), RedisError> {
        let fields = states.iter().map(|(id, state)| {
            let value = format!("{state}@{now}");
            (id.clone().into_bytes(), value.into_bytes())
        });
        let key = self.keys.states();
        self.fill(&key, &fields.collect::<Vec<_>>()).await
    }

    /// Writes the states of opened coupons, and of the codes of coupons that did not end more than
    /// a day ago.
    async fn write_coupons(
        &mut self,
        transaction: &mut Transaction<'static, MySql>,
        now: u64,
    ) -> Result<(), RecoverError> {
        type Issue = (u64, u64, u64, Option<u64>, String, String, bool);
        let all: Vec<(u64, bool)> =
            sqlx::query_as("SELECT id, opened = 1 AND user_id IS NULL FROM coupons")
                .fetch_all(&mut **transaction)
                .await?;
        let opened = all.into_iter().filter(|(_, is_opened)| *is_opened);
        let opened: Vec<(String, String)> = opened
            .map(|(id, _)| {
                let id = coupon::opened_state_id(CouponId(id));
                (id, coupon::OPEN.to_owned())
            })
            .collect();
        self.set_states(&opened, now).await?;
        let mut after = 0;
        loop {
            let rows: Vec<Issue> = sqlx::query_as(
                "SELECT i.id, i.coupon_id, i.user_id, i.work_id, i.code, \
                 IF(i.order_id IS NOT NULL, 'USED', IF(EXISTS (SELECT 1 FROM checkouts h \
                 WHERE h.coupon_code = i.code AND h.coupon_id = i.coupon_id \
                 AND h.status = 'OPEN'), 'HELD', 'FREE')), c.user_id IS NULL \
                 FROM coupon_issues i JOIN coupons c ON c.id = i.coupon_id \
                 WHERE i.id > ? AND (c.valid_to IS NULL OR c.valid_to > NOW(3) - INTERVAL 1 DAY \
                 OR EXISTS (SELECT 1 FROM checkouts h WHERE h.coupon_code = i.code \
                 AND h.coupon_id = i.coupon_id AND h.status = 'OPEN')) \
                 ORDER BY i.id LIMIT ?",
            )
            .bind(after)
            .bind(PAGE)
            .fetch_all(&mut **transaction)
            .await?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = last.0;
            let mut states = Vec::with_capacity(2 * rows.len());
            for (_, coupon, user, work, code, code_use, is_campaign) in rows {
                let (coupon_id, user_id) = (CouponId(coupon), UserId(user));
                if is_campaign {
                    let id = coupon::issue_state_id(coupon_id, user_id, work.map(WorkId));
                    states.push((id, coupon::ISSUED.to_owned()));
                }
                let state = format!("{code_use} {coupon_id} {user_id}");
                states.push((coupon::code_state_id(&code), state));
            }
            self.set_states(&states, now).await?;
        }
    }
}

/// The first product of a till's sale, as its entry says.
fn first_product(payload: &[u8]) -> Option<ProductId> {
    #[derive(Deserialize)]
    struct Payload {
        body: Order,
    }
    let payload: Payload = serde_json::from_slice(payload).ok()?;
    payload.body.lines.first().map(|line| line.product_id)
}
