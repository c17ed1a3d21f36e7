//! A MySQL that takes one mebibyte per statement: accepted entries fit all the same (F31).

use stock_common::config::Durability;
use stock_common::id::{ProductId, UserId};
use stock_common::money::Money;
use stock_domain::order::{self, DeliveryType, Order, OrderLine, Path, Terms};
use stock_domain::quantity::Quantity;
use stock_domain::verdict::Verdict;
use stock_online::ServiceRole;
use stock_servers::Spec;

use crate::support::{OwnServers, Shop, folder, start};

#[tokio::test(flavor = "multi_thread")]
async fn long_entries_are_written_in_statements_that_the_server_takes() {
    let own = OwnServers::start(Durability::Everysec).await;
    let mysql = Spec::mysql(&folder("packets").join("mysql")).await.unwrap();
    let mysql = start(&mysql.with(&["--max-allowed-packet=1M"])).await;
    let shop = Shop::open_divided(own.redis.spec.url("0"), &mysql.spec, 1, 100, 1_000).await;
    let held = shop.serve_roles(&[ServiceRole::Http]).await;
    // A hundred lines with names of four bytes a character: about 50 KB an entry.
    let line = |product: u64| OrderLine {
        product_id: ProductId(product),
        product_name: "\u{1f3ab}".repeat(100),
        quantity: Quantity::new(1).unwrap(),
        price: Money::new(1_000).unwrap(),
        unit_price: Money::new(1_000).unwrap(),
        sub_total: Money::new(1_000).unwrap(),
        allowance: None,
    };
    let order = Order {
        user_id: UserId(2),
        path: Path::Redis,
        delivery_type: DeliveryType::Online,
        store_id: None,
        lines: (1..=100).map(line).collect(),
        total_amount: Money::new(100_000).unwrap(),
        coupon: None,
        used_points: Money::ZERO,
        earned_points: Money::ZERO,
        reservation_id: None,
        checkout_id: None,
        paid: None,
        shares_online_stock: false,
        offline: None,
        buyer: None,
        reference: None,
    };
    for _ in 0..60 {
        let request = order::place(&order, Terms::default(), None).unwrap();
        let verdict = shop.ledger.decide(request).await.unwrap();
        assert!(matches!(verdict, Verdict::Accepted(_)), "{verdict:?}");
    }
    let service = shop.serve().await;
    shop.drained().await;
    assert_eq!(shop.stored_orders().await.len(), 60);
    assert_eq!(shop.available(100).await, 940);
    shop.verify().await;
    held.stop().await;
    service.stop().await;
}
