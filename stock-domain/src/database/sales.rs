//! Sales and discounts in MySQL. The product names the one of each that governs it.

use chrono::NaiveDateTime;
use sqlx::{MySql, MySqlPool, Transaction};
use stock_common::clock::{self, datetime};
use stock_common::id::{ProductId, SaleId};
use stock_common::money::Money;

use crate::discount::{Discount, Percentage};
use crate::sale::Sale;

/// The columns that [`Governed`] reads, of `sales s` and `discounts d`.
pub(super) const COLUMNS: &str = "s.id AS sale_id, s.starts_at AS sale_starts_at, \
     s.ends_at AS sale_ends_at, s.price AS sale_price, s.limit_per_user, d.hundredths, \
     d.starts_at AS discount_starts_at, d.ends_at AS discount_ends_at";
/// The joins that bring them to `products p`.
pub(super) const JOINS: &str =
    "LEFT JOIN sales s ON s.id = p.sale_id LEFT JOIN discounts d ON d.id = p.discount_id";

/// A product's sale and discount, if it has them.
#[derive(Clone, sqlx::FromRow)]
pub(super) struct Governed {
    sale_id: Option<u64>,
    sale_starts_at: Option<NaiveDateTime>,
    sale_ends_at: Option<NaiveDateTime>,
    sale_price: Option<i64>,
    limit_per_user: Option<u32>,
    hundredths: Option<u32>,
    discount_starts_at: Option<NaiveDateTime>,
    discount_ends_at: Option<NaiveDateTime>,
}

fn unix_ms(at: NaiveDateTime) -> u64 {
    u64::try_from(clock::unix_ms(at)).unwrap_or_default()
}

impl Governed {
    pub(super) fn sale(&self) -> Option<Sale> {
        Some(Sale {
            id: SaleId(self.sale_id?),
            starts_ms: unix_ms(self.sale_starts_at?),
            ends_ms: unix_ms(self.sale_ends_at?),
            price: self.sale_price.and_then(|price| Money::new(price).ok()),
            limit_per_user: self.limit_per_user,
        })
    }

    pub(super) fn discount(&self) -> Option<Discount> {
        Some(Discount {
            percentage: Percentage::from_hundredths(self.hundredths?).ok()?,
            starts_ms: unix_ms(self.discount_starts_at?),
            ends_ms: unix_ms(self.discount_ends_at?),
        })
    }
}

/// Lets a product name another sale or discount; `false` when the product is gone. The change is one of the
/// product: the catalog reads it by `updated_at`.
async fn govern(
    transaction: &mut Transaction<'_, MySql>,
    text: &'static str,
    id: u64,
    product: ProductId,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(text)
        .bind(id)
        .bind(product.0)
        .execute(&mut **transaction)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Makes a sale that governs its product from now on; `None` when there is no such product.
///
/// # Errors
/// When MySQL does not answer.
pub async fn create(
    pool: &MySqlPool,
    product: ProductId,
    sale: &Sale,
) -> Result<Option<SaleId>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let done = sqlx::query(
        "INSERT INTO sales (product_id, starts_at, ends_at, price, limit_per_user) \
         VALUES (?, ?, ?, ?, ?)",
    )
    .bind(product.0)
    .bind(datetime(sale.starts_ms))
    .bind(datetime(sale.ends_ms))
    .bind(sale.price.map(Money::get))
    .bind(sale.limit_per_user)
    .execute(&mut *transaction)
    .await?;
    let id = done.last_insert_id();
    const GOVERN: &str = "UPDATE products SET sale_id = ?, revision = revision + 1 \
         WHERE id = ? AND is_deleted = 0";
    if !govern(&mut transaction, GOVERN, id, product).await? {
        return Ok(None);
    }
    transaction.commit().await?;
    Ok(Some(SaleId(id)))
}

/// A sale and what it is of.
#[derive(Debug, Clone)]
pub struct ListedSale {
    /// The sale.
    pub sale: Sale,
    /// Its product.
    pub product_id: ProductId,
    /// What the product is called.
    pub product_name: String,
    /// Whether it is the one that governs its product: a newer one may have taken its place.
    pub governs: bool,
}

/// Lists sales that were not deleted, newest first.
///
/// # Errors
/// When MySQL does not answer.
pub async fn list(
    pool: &MySqlPool,
    before: Option<SaleId>,
    limit: u32,
) -> Result<Vec<ListedSale>, sqlx::Error> {
    type Row = (
        u64,
        u64,
        String,
        bool,
        NaiveDateTime,
        NaiveDateTime,
        Option<i64>,
        Option<u32>,
    );
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT s.id, p.id, p.name, COALESCE(p.sale_id = s.id, 0), s.starts_at, s.ends_at, s.price, \
         s.limit_per_user FROM sales s JOIN products p ON p.id = s.product_id \
         WHERE s.id < ? AND s.deleted_at IS NULL AND p.is_deleted = 0 ORDER BY s.id DESC LIMIT ?",
    )
    .bind(before.map_or(u64::MAX, |id| id.0))
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let listed =
        |(id, product, product_name, governs, starts, ends, price, limit): Row| ListedSale {
            sale: Sale {
                id: SaleId(id),
                starts_ms: unix_ms(starts),
                ends_ms: unix_ms(ends),
                price: price.and_then(|price| Money::new(price).ok()),
                limit_per_user: limit,
            },
            product_id: ProductId(product),
            product_name,
            governs,
        };
    Ok(rows.into_iter().map(listed).collect())
}

/// Ends the rule of a sale; `false` when the product has no such sale.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete(
    pool: &MySqlPool,
    product: ProductId,
    sale: SaleId,
) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let done = sqlx::query(
        "UPDATE sales SET deleted_at = NOW(3) WHERE id = ? AND product_id = ? \
         AND deleted_at IS NULL",
    )
    .bind(sale.0)
    .bind(product.0)
    .execute(&mut *transaction)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "UPDATE products SET sale_id = NULL, revision = revision + 1 WHERE id = ? AND sale_id = ?",
    )
    .bind(product.0)
    .bind(sale.0)
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(true)
}

/// Makes a discount that is the product's only one from now on; `None` when there is no such product.
///
/// # Errors
/// When MySQL does not answer.
pub async fn create_discount(
    pool: &MySqlPool,
    product: ProductId,
    discount: &Discount,
) -> Result<Option<u64>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let done = sqlx::query(
        "INSERT INTO discounts (product_id, hundredths, starts_at, ends_at) VALUES (?, ?, ?, ?)",
    )
    .bind(product.0)
    .bind(discount.percentage.hundredths())
    .bind(datetime(discount.starts_ms))
    .bind(datetime(discount.ends_ms))
    .execute(&mut *transaction)
    .await?;
    let id = done.last_insert_id();
    const GOVERN: &str = "UPDATE products SET discount_id = ?, revision = revision + 1 \
         WHERE id = ? AND is_deleted = 0";
    if !govern(&mut transaction, GOVERN, id, product).await? {
        return Ok(None);
    }
    transaction.commit().await?;
    Ok(Some(id))
}

/// Whether what each buyer may still have in a sale is kept: it was not forgotten.
///
/// # Errors
/// When MySQL does not answer.
pub async fn is_kept(pool: &MySqlPool, sale: SaleId) -> Result<bool, sqlx::Error> {
    let kept: Option<bool> =
        sqlx::query_scalar("SELECT forgotten_at IS NULL FROM sales WHERE id = ?")
            .bind(sale.0)
            .fetch_optional(pool)
            .await?;
    Ok(kept.unwrap_or(false))
}

/// Sales whose limits nobody needs any more: over for `over_days`, or deleted for a day, which is longer than
/// any reservation lives; and those whose forgetting was cut off.
///
/// # Errors
/// When MySQL does not answer.
pub async fn to_be_forgotten(pool: &MySqlPool, over_days: u32) -> Result<Vec<SaleId>, sqlx::Error> {
    let ids: Vec<u64> = sqlx::query_scalar(
        "SELECT id FROM sales WHERE allowances_archived_at IS NULL AND (forgotten_at IS NOT NULL \
         OR ends_at < NOW(3) - INTERVAL ? DAY OR deleted_at < NOW(3) - INTERVAL 1 DAY) \
         ORDER BY id LIMIT 1000",
    )
    .bind(over_days)
    .fetch_all(pool)
    .await?;
    Ok(ids.into_iter().map(SaleId).collect())
}

/// Notes that a sale's limits are forgotten from now on.
///
/// # Errors
/// When MySQL does not answer.
pub async fn forget(pool: &MySqlPool, sale: SaleId) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE sales SET forgotten_at = NOW(3) WHERE id = ? AND forgotten_at IS NULL")
        .bind(sale.0)
        .execute(pool)
        .await?;
    Ok(())
}

/// Moves the accounts of a forgotten sale, all of whose entries are settled, into `archived_allowances`; returns
/// how many.
///
/// # Errors
/// When MySQL does not answer; moving them again goes on.
pub async fn archive_allowances(pool: &MySqlPool, sale: SaleId) -> Result<u64, sqlx::Error> {
    const PART: u32 = 5_000;
    const COPY: &str = "INSERT IGNORE INTO archived_allowances (sale_id, user_id, balance, seq) \
         SELECT owner_id, place_id, balance, seq FROM accounts \
         WHERE kind = 'ALLOWANCE' AND owner_id = ? ORDER BY place_id LIMIT ?";
    const DELETE: &str = "DELETE FROM accounts WHERE kind = 'ALLOWANCE' AND owner_id = ? \
         ORDER BY place_id LIMIT ?";
    let mut moved = 0;
    loop {
        let mut transaction = pool.begin().await?;
        for text in [COPY, DELETE] {
            let done = sqlx::query(text).bind(sale.0).bind(PART);
            let rows = done.execute(&mut *transaction).await?.rows_affected();
            moved += if text == DELETE { rows } else { 0 };
        }
        transaction.commit().await?;
        let left: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM accounts WHERE kind = 'ALLOWANCE' AND owner_id = ?)",
        )
        .bind(sale.0)
        .fetch_one(pool)
        .await?;
        if !left {
            sqlx::query("UPDATE sales SET allowances_archived_at = NOW(3) WHERE id = ?")
                .bind(sale.0)
                .execute(pool)
                .await?;
            return Ok(moved);
        }
    }
}
