//! The kinds of entries, in the order of the table that opens [`crate::journal`].

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// The kind of event that an entry is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $($(#[$doc])* $variant,)* }

        impl Kind {
            /// Every kind, in the order of that table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in the journal.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

kinds! {
    /// A user bought.
    OrderPlaced = "order_placed";
    /// A user or an admin took an order back.
    OrderCancelled = "order_cancelled";
    /// A part of an order was taken back, and another part is left.
    OrderReduced = "order_reduced";
    /// An order that could not be stored was taken back by the engine.
    OrderFailed = "order_failed";
    /// A till that was cut off sold units that were not there any more.
    SaleOversold = "sale_oversold";
    /// A user reserved stock.
    ReservationMade = "reservation_made";
    /// Reserved stock was sold.
    ReservationConfirmed = "reservation_confirmed";
    /// Reserved stock was given back.
    ReservationCancelled = "reservation_cancelled";
    /// Reserved stock was given back because its time was over.
    ReservationExpired = "reservation_expired";
    /// A checkout was opened: all that an order needs was set aside at a frozen total.
    CheckoutOpened = "checkout_opened";
    /// The deadline of a checkout was moved.
    CheckoutExtended = "checkout_extended";
    /// A checkout was given back at its buyer's or the shop's word.
    CheckoutCancelled = "checkout_cancelled";
    /// A checkout was given back because its time was over.
    CheckoutExpired = "checkout_expired";
    /// A payment sold nothing and is to be refunded.
    PaymentUnused = "payment_unused";
    /// A product's accounts were opened.
    ProductOpened = "product_opened";
    /// A product was taken off sale, or put on sale again.
    ProductSwitched = "product_switched";
    /// Stock came in.
    StockReceived = "stock_received";
    /// Stock was corrected by hand.
    StockAdjusted = "stock_adjusted";
    /// Stock was written from a file.
    StockImported = "stock_imported";
    /// Stock moved between the parts of a product's stock, in the first release.
    StockMoved = "stock_moved";
    /// A coupon was made known to the ledger.
    CouponOpened = "coupon_opened";
    /// A user drew a coupon.
    CouponIssued = "coupon_issued";
    /// A user was given points.
    PointsEarned = "points_earned";
    /// A user spent points.
    PointsUsed = "points_used";
    /// Points that were earned or used were taken back.
    PointsCancelled = "points_cancelled";
    /// A buyer of the shop was seen for the first time.
    BuyerSeen = "buyer_seen";
    /// All selling was stopped or resumed.
    SellingSwitched = "selling_switched";
    /// A branch was held for an entry on another shard.
    BranchHeld = "branch_held";
    /// The entry of a branch was written, and what it gives on the branch's shard was given.
    BranchConfirmed = "branch_confirmed";
    /// The entry of a branch was not written, and what the branch held was given back.
    BranchReleased = "branch_released";
    /// An entry that had branches will never be written.
    CrossShardAborted = "across_aborted";
    /// A new epoch began.
    EpochBegun = "epoch_begun";
}

impl Kind {
    /// The kind of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn the_table_names_every_kind_in_order() {
        let rows: Vec<&str> = include_str!("../journal.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `")?.split('`').next())
            .collect();
        let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(rows, kinds);
    }
}
