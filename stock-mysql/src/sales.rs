//! Sales and discounts in MySQL. A product names the sale and the discount that govern it.

use chrono::NaiveDateTime;
use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool};
use stock_common::clock::{self, datetime};
use stock_common::id::{ProductId, SaleId};
use stock_common::money::Money;
use stock_domain::discount::{Discount, Percentage};
use stock_domain::sale::{Availability, Sale, SaleState};

/// The columns that [`Governed`] reads, of `sales s` and `discounts d`.
pub(super) const COLUMNS: &str = "s.id AS sale_id, s.starts_at AS sale_starts_at, \
     s.ends_at AS sale_ends_at, s.price AS sale_price, s.limit_per_user, s.counted_from, \
     CAST(s.availability AS CHAR) AS availability, d.hundredths, \
     d.starts_at AS discount_starts_at, d.ends_at AS discount_ends_at";
/// The joins that bring these columns to `products p`.
pub(super) const JOINS: &str =
    "LEFT JOIN sales s ON s.id = p.sale_id LEFT JOIN discounts d ON d.id = p.discount_id";

/// The columns of a sale; all are `NULL` when there is none.
#[derive(Clone)]
struct SaleRow {
    sale_id: Option<u64>,
    sale_starts_at: Option<NaiveDateTime>,
    sale_ends_at: Option<NaiveDateTime>,
    sale_price: Option<i64>,
    limit_per_user: Option<u32>,
    counted_from: Option<u32>,
    availability: Option<String>,
}

from_row!(SaleRow {
    sale_id,
    sale_starts_at,
    sale_ends_at,
    sale_price,
    limit_per_user,
    counted_from,
    availability
});

/// The sale and the discount of a product, if it has them.
#[derive(Clone)]
pub(super) struct Governed {
    sale: SaleRow,
    hundredths: Option<u32>,
    discount_starts_at: Option<NaiveDateTime>,
    discount_ends_at: Option<NaiveDateTime>,
}

from_row!(Governed { hundredths, discount_starts_at, discount_ends_at; sale });

fn unix_ms(at: NaiveDateTime) -> u64 {
    u64::try_from(clock::unix_ms(at)).unwrap_or_default()
}

impl SaleRow {
    fn sale(&self) -> Option<Sale> {
        Some(Sale {
            id: SaleId(self.sale_id?),
            starts_ms: unix_ms(self.sale_starts_at?),
            ends_ms: unix_ms(self.sale_ends_at?),
            price: self.sale_price.and_then(|price| Money::new(price).ok()),
            limit_per_user: self.limit_per_user,
            counted_from: self.counted_from?,
            availability: Availability::parse(self.availability.as_deref()?)?,
        })
    }
}

impl Governed {
    pub(super) fn sale(&self) -> Option<Sale> {
        self.sale.sale()
    }

    pub(super) fn discount(&self) -> Option<Discount> {
        Some(Discount {
            percentage: Percentage::from_hundredths(self.hundredths?).ok()?,
            starts_ms: unix_ms(self.discount_starts_at?),
            ends_ms: unix_ms(self.discount_ends_at?),
        })
    }
}

/// Makes a product name another sale or discount; `false` when the product is gone. The update is a
/// change of the product, which the catalog reads by `updated_at`.
async fn govern(
    connection: &mut MySqlConnection,
    text: &'static str,
    id: u64,
    product: ProductId,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(text)
        .bind(id)
        .bind(product.0)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Why a sale was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is no such product.
    #[error("there is no such product")]
    NoProduct,
    /// The product has a sale that is not over.
    #[error("sale {0} is not over")]
    Exists(SaleId),
    /// MySQL did not answer.
    #[error("mysql: {0}")]
    Database(#[from] sqlx::Error),
}

/// Creates a sale that governs its product from now on, unless the product has one that is not over
/// at `now_ms`.
///
/// The caller runs it in a transaction: the product's row stays locked, so that only
/// one of two concurrent calls succeeds.
///
/// # Errors
/// [`CreateError`]; the caller rolls back.
pub async fn create(
    connection: &mut MySqlConnection,
    product: ProductId,
    sale: &Sale,
    now_ms: u64,
) -> Result<SaleId, CreateError> {
    if !lock_product(connection, product).await? {
        return Err(CreateError::NoProduct);
    }
    let text = format!("{LISTED} AND s.product_id = ? AND p.sale_id = s.id");
    let governing: Option<Listed> = sqlx::query_as(AssertSqlSafe(text))
        .bind(product.0)
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(other) = governing.and_then(Listed::parse)
        && other.sale.state(now_ms) != SaleState::Over
    {
        return Err(CreateError::Exists(other.sale.id));
    }
    let done = sqlx::query(
        "INSERT INTO sales (product_id, starts_at, ends_at, price, limit_per_user, counted_from, \
         availability) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(product.0)
    .bind(datetime(sale.starts_ms))
    .bind(datetime(sale.ends_ms))
    .bind(sale.price.map(Money::get))
    .bind(sale.limit_per_user)
    .bind(sale.counted_from)
    .bind(sale.availability.as_str())
    .execute(&mut *connection)
    .await?;
    let id = done.last_insert_id();
    const GOVERN: &str = "UPDATE products SET sale_id = ?, revision = revision + 1 \
         WHERE id = ? AND is_deleted = 0";
    govern(connection, GOVERN, id, product).await?;
    Ok(SaleId(id))
}

/// A sale with its product.
#[derive(Debug, Clone)]
pub struct ListedSale {
    /// The sale.
    pub sale: Sale,
    /// The product of the sale.
    pub product_id: ProductId,
    /// The name of the product.
    pub product_name: String,
    /// Whether the sale governs its product; a newer sale may have replaced it.
    pub governs: bool,
}

struct Listed {
    product_id: u64,
    product_name: String,
    governs: bool,
    sale: SaleRow,
}

from_row!(Listed { product_id, product_name, governs; sale });

const LISTED: &str = "SELECT s.id AS sale_id, s.product_id, p.name AS product_name, \
     COALESCE(p.sale_id = s.id, 0) AS governs, s.starts_at AS sale_starts_at, \
     s.ends_at AS sale_ends_at, s.price AS sale_price, s.limit_per_user, s.counted_from, \
     CAST(s.availability AS CHAR) AS availability FROM sales s \
     JOIN products p ON p.id = s.product_id WHERE s.deleted_at IS NULL AND p.is_deleted = 0";

impl Listed {
    fn parse(self) -> Option<ListedSale> {
        Some(ListedSale {
            sale: self.sale.sale()?,
            product_id: ProductId(self.product_id),
            product_name: self.product_name,
            governs: self.governs,
        })
    }
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
    let text = format!("{LISTED} AND s.id < ? ORDER BY s.id DESC LIMIT ?");
    let rows: Vec<Listed> = sqlx::query_as(AssertSqlSafe(text))
        .bind(before.map_or(u64::MAX, |id| id.0))
        .bind(limit)
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().filter_map(Listed::parse).collect())
}

/// Finds a sale of a product, unless one of them was deleted.
///
/// # Errors
/// When MySQL does not answer.
pub async fn find(
    connection: &mut MySqlConnection,
    product: ProductId,
    sale: SaleId,
) -> Result<Option<ListedSale>, sqlx::Error> {
    let text = format!("{LISTED} AND s.id = ? AND s.product_id = ?");
    let row: Option<Listed> = sqlx::query_as(AssertSqlSafe(text))
        .bind(sale.0)
        .bind(product.0)
        .fetch_optional(connection)
        .await?;
    Ok(row.and_then(Listed::parse))
}

/// Units of the buyer who has taken the most in a sale, as far as MySQL has settled.
///
/// # Errors
/// When MySQL does not answer.
pub async fn most_taken(connection: &mut MySqlConnection, sale: &Sale) -> Result<u32, sqlx::Error> {
    let least: Option<i64> = sqlx::query_scalar(
        "SELECT MIN(balance) FROM accounts WHERE kind = 'ALLOWANCE' AND owner_id = ?",
    )
    .bind(sale.id.0)
    .fetch_one(connection)
    .await?;
    let taken = least.map_or(0, |least| i64::from(sale.counted_from) - least);
    // A balance is never above the number that it counts down from.
    Ok(u32::try_from(taken.max(0)).unwrap_or(u32::MAX))
}

/// Locks a product's row, so that its sales change one at a time; `false` when there is no such
/// product.
///
/// # Errors
/// When MySQL does not answer.
pub async fn lock_product(
    connection: &mut MySqlConnection,
    product: ProductId,
) -> Result<bool, sqlx::Error> {
    let found: Option<u64> =
        sqlx::query_scalar("SELECT id FROM products WHERE id = ? AND is_deleted = 0 FOR UPDATE")
            .bind(product.0)
            .fetch_optional(connection)
            .await?;
    Ok(found.is_some())
}

/// Writes the changed fields of a sale.
///
/// # Errors
/// When MySQL does not answer.
pub async fn update(connection: &mut MySqlConnection, sale: &Sale) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE sales SET starts_at = ?, ends_at = ?, price = ?, limit_per_user = ?, \
         counted_from = ? WHERE id = ?",
    )
    .bind(datetime(sale.starts_ms))
    .bind(datetime(sale.ends_ms))
    .bind(sale.price.map(Money::get))
    .bind(sale.limit_per_user)
    .bind(sale.counted_from)
    .bind(sale.id.0)
    .execute(&mut *connection)
    .await?;
    // This is a change of the product, so that the catalog reads it.
    sqlx::query("UPDATE products SET revision = revision + 1 WHERE sale_id = ?")
        .bind(sale.id.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes a sale; `false` when the product has no such sale. The caller runs it in a transaction.
///
/// # Errors
/// When MySQL does not answer.
pub async fn delete(
    connection: &mut MySqlConnection,
    product: ProductId,
    sale: SaleId,
) -> Result<bool, sqlx::Error> {
    // The product is locked first, as everywhere. The sale of a deleted product can be deleted too.
    lock_product(connection, product).await?;
    let done = sqlx::query(
        "UPDATE sales SET deleted_at = NOW(3) WHERE id = ? AND product_id = ? \
         AND deleted_at IS NULL",
    )
    .bind(sale.0)
    .bind(product.0)
    .execute(&mut *connection)
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "UPDATE products SET sale_id = NULL, revision = revision + 1 WHERE id = ? AND sale_id = ?",
    )
    .bind(product.0)
    .bind(sale.0)
    .execute(connection)
    .await?;
    Ok(true)
}

/// Creates a discount, which replaces the product's discount from now on; `None` when there is no
/// such product. The caller runs it in a transaction, and then rolls it back.
///
/// # Errors
/// When MySQL does not answer.
pub async fn create_discount(
    connection: &mut MySqlConnection,
    product: ProductId,
    discount: &Discount,
) -> Result<Option<u64>, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO discounts (product_id, hundredths, starts_at, ends_at) VALUES (?, ?, ?, ?)",
    )
    .bind(product.0)
    .bind(discount.percentage.hundredths())
    .bind(datetime(discount.starts_ms))
    .bind(datetime(discount.ends_ms))
    .execute(&mut *connection)
    .await?;
    let id = done.last_insert_id();
    const GOVERN: &str = "UPDATE products SET discount_id = ?, revision = revision + 1 \
         WHERE id = ? AND is_deleted = 0";
    Ok(govern(connection, GOVERN, id, product).await?.then_some(id))
}

/// Whether the ledger still counts what each buyer takes in a sale, because the sale was not
/// forgotten.
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

/// Sales whose limits nobody needs any more, at most 1,000. They have been over for `over_days`, or
/// deleted for a day, which is longer than any reservation lives, or their forgetting was
/// interrupted.
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

/// Notes that the limits of a sale are forgotten from now on.
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

/// Moves the accounts of a forgotten sale into `archived_allowances`; returns their number. All
/// entries of the sale must be settled.
///
/// # Errors
/// When MySQL does not answer; another call goes on.
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
