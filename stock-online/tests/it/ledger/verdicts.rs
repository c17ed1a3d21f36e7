//! Each refusal of the script, once, in the order of its codes.

use redis::cmd;
use stock_common::id::{CouponId, LocationId, Position, ProductId, SaleId, UserId};
use stock_common::money::Money;
use stock_domain::account::{Account, Book};
use stock_domain::coupon::{self, Benefit, Coupon, CouponIssued};
use stock_domain::journal::Idempotency;
use stock_domain::order::{self, DeliveryType, Order, OrderLine, Path, Reversed, Terms};
use stock_domain::points::{self, PointsMoved};
use stock_domain::posting::Posting;
use stock_domain::quantity::Quantity;
use stock_domain::request::Request;
use stock_domain::reservation::{self, Reservation};
use stock_domain::sale::Allowance;
use stock_domain::stock::{self, StockChanged};
use stock_domain::verdict::{Back, LostKey, Refusal, Replay, Verdict, Why};
use stock_domain::{product, selling};
use stock_engine::ledger;
use stock_redis::Ledger;
use stock_redis::encoded_request::EncodedRequest;
use stock_redis::epoch::FIRST_GENERATION;
use stock_redis::keys::{Records, SENTINEL};
use stock_redis::records::RecordName;

use crate::support::{Shop, account};

/// An order to be taken back that used no coupon.
pub(crate) fn reversed(id: Position, order: &Order) -> Reversed<'_> {
    Reversed {
        id,
        order,
        has_code: false,
        forgotten: &[],
        left: None,
        has_state: false,
    }
}

/// An order of one product at 1,000.
pub(crate) fn order(product: u64, quantity: u32) -> Order {
    let money = |units| Money::new(units).unwrap();
    let total = money(1_000 * i64::from(quantity));
    Order {
        user_id: UserId(2),
        path: Path::Redis,
        delivery_type: DeliveryType::Online,
        store_id: None,
        lines: vec![OrderLine {
            product_id: ProductId(product),
            product_name: "product".to_owned(),
            quantity: Quantity::new(quantity).unwrap(),
            price: money(1_000),
            unit_price: money(1_000),
            sub_total: total,
            allowance: None,
        }],
        total_amount: total,
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
    }
}

pub(crate) fn key(name: u8, fingerprint: u8) -> Option<Idempotency> {
    let hex = |byte: u8| format!("{byte:02x}").repeat(16);
    Some(Idempotency {
        user: UserId(2),
        key: hex(name),
        fingerprint: hex(fingerprint),
    })
}

fn place(product: u64, quantity: u32) -> Request {
    order::place(&order(product, quantity), Terms::default(), None).unwrap()
}

fn receive(quantity: i64) -> Request {
    let change = StockChanged {
        product_id: ProductId(1),
        location_id: LocationId::ONLINE,
        quantity,
        reason: "test".to_owned(),
    };
    stock::receive(&change, &stock::Terms::default(), UserId(1), None).unwrap()
}

async fn refusal(ledger: &Ledger, request: Request) -> Refusal {
    match ledger.decide(request).await.unwrap() {
        Verdict::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

async fn accepted(ledger: &Ledger, request: Request) -> Position {
    match ledger.decide(request).await.unwrap() {
        Verdict::Accepted(accepted) => accepted.position,
        other => panic!("{other:?}"),
    }
}

async fn level(ledger: &Ledger, account: Account) -> Option<i64> {
    let levels = ledger.levels(&[account]).await.unwrap();
    levels.get(&account).map(|level| level.balance)
}

#[tokio::test]
async fn each_code_is_reached_once_and_changes_nothing() {
    let shop = Shop::open_undivided(2, 10).await;
    let ledger = &shop.ledger;
    let client = redis::Client::open(shop.config.redis.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let mut seen = Vec::new();
    let number = async || {
        let mut link = ledger.link().unwrap();
        stock_redis::epoch::head(&mut link.read, &ledger.keys())
            .await
            .unwrap()
            .unwrap()
            .number
    };

    let mut keyed = place(1, 1);
    keyed.idempotency = key(1, 1);
    accepted(ledger, keyed).await;
    let mut reused = place(1, 1);
    reused.idempotency = key(1, 2);
    seen.push(refusal(ledger, reused).await);

    let mut late = place(1, 1);
    late.deadline_ms = Some(1);
    seen.push(refusal(ledger, late).await);

    let mut config = shop.config.clone();
    (
        config.decide.lag_hard_entries,
        config.decide.lag_reserve_entries,
    ) = (1, 0);
    let full = ledger::start(&config, shop.pool.clone(), shop.clock.clone()).unwrap();
    assert!(full.wait_open(std::time::Duration::from_secs(10)).await);
    seen.push(refusal(&full, place(1, 1)).await);

    let mut outside = place(1, 1);
    outside.draft.postings.clear();
    (outside.refuse, outside.idempotency) = (Some("gone already".to_owned()), key(2, 2));
    seen.push(refusal(ledger, outside.clone()).await);
    let again = ledger.decide(outside).await.unwrap();
    let remembered = Refusal::Predecided("gone already".to_owned());
    assert_eq!(again, Verdict::Replayed(Replay::Refused(remembered)));

    let mut early = place(1, 1);
    early.window_ms = Some((ledger.redis_now_ms() + 3_600_000, 0));
    seen.push(refusal(ledger, early).await);
    let mut closed = place(1, 1);
    closed.window_ms = Some((1, ledger.redis_now_ms() - 1));
    seen.push(refusal(ledger, closed).await);

    let id = accepted(ledger, place(1, 1)).await;
    let cancel = || order::cancel(reversed(id, &order(1, 1)), UserId(2), None).unwrap();
    accepted(ledger, cancel()).await;
    seen.push(refusal(ledger, cancel()).await);

    accepted(ledger, selling::switch(false, UserId(1)).unwrap()).await;
    seen.push(refusal(ledger, place(1, 1)).await);
    accepted(ledger, selling::switch(true, UserId(1)).unwrap()).await;

    let mut unexpected = receive(1);
    unexpected.expected = Some((account(1), 7));
    seen.push(refusal(ledger, unexpected).await);
    assert_eq!(seen.last(), Some(&Refusal::Changed { balance: 9 }));

    let held = Reservation {
        user_id: UserId(2),
        product_id: ProductId(1),
        location_id: LocationId::ONLINE,
        quantity: Quantity::new(1).unwrap(),
        ttl_ms: 60_000,
        allowance: None,
        hold_limit: 0,
        frozen: None,
    };
    let id = accepted(ledger, reservation::reserve(&held, None, 0, None).unwrap()).await;
    let late = reservation::confirm(&held.held(id), 1, UserId(1), None).unwrap();
    seen.push(refusal(ledger, late).await);
    let more = reservation::reserve(&held, None, 1, None).unwrap();
    let enough = Refusal::HeldEnough {
        left: 0,
        back: Back::Nothing,
    };
    assert_eq!(refusal(ledger, more).await, enough);
    seen.push(enough);
    let mut own = place(1, 1);
    own.own_hold = true;
    seen.push(refusal(ledger, own).await);

    // A store's account need not exist yet; the product's online account must exist.
    let mut at_store = place(1, 1);
    let store_account = Account::available(ProductId(1), LocationId(3));
    at_store.draft.postings = vec![Posting::new(store_account, -1)];
    seen.push(refusal(ledger, at_store).await);
    let never_opened = refusal(ledger, place(99, 1)).await;
    let broken = Refusal::Posting {
        posting: 0,
        account: account(99),
        why: Why::Broken,
    };
    assert_eq!(never_opened, broken);
    let online = [LocationId::ONLINE];
    accepted(
        ledger,
        product::switch(ProductId(2), true, &online, UserId(1)).unwrap(),
    )
    .await;
    seen.push(refusal(ledger, place(2, 1)).await);

    let before = number().await;
    let account_key = ledger.keys().account(account(2));
    let set = async |value: &str| {
        let mut redis = redis.clone();
        let _: String = cmd("SET")
            .arg(&account_key)
            .arg(value)
            .query_async(&mut redis)
            .await
            .unwrap();
    };
    for broken in [
        "7",
        "7 1",
        "-7 1 0",
        "1e3 1 0",
        "7 1 3",
        "99999999999999999 1 0",
        "nan 1 0",
    ] {
        set(broken).await;
        assert_eq!(
            refusal(ledger, place(2, 1)).await,
            Refusal::Posting {
                posting: 0,
                account: account(2),
                why: Why::Broken
            },
            "{broken}"
        );
    }
    seen.push(refusal(ledger, place(2, 1)).await);
    set("10 2 0").await;

    seen.push(refusal(ledger, place(2, 11)).await);
    assert_eq!(
        seen.last(),
        Some(&Refusal::Posting {
            posting: 0,
            account: account(2),
            why: Why::Insufficient {
                balance: 10,
                back: Back::Nothing
            },
        })
    );
    set("9007199254740990 2 0").await;
    let mut most = receive(2);
    most.draft.postings = vec![Posting::new(account(2), 2)];
    seen.push(refusal(ledger, most).await);
    assert_eq!(number().await, before, "refusals leave no entry");

    accepted(ledger, coupon::open(&campaign(7), UserId(1)).unwrap()).await;
    let issue = |user: u8, code: &str| {
        let issued = CouponIssued {
            coupon_id: CouponId(1),
            user_id: UserId(u64::from(user)),
            work_id: None,
            code: code.to_owned(),
        };
        coupon::issue(&issued, (0, 0), key(40 + user, 9)).unwrap()
    };
    accepted(ledger, issue(2, "AAAAAAAA")).await;
    seen.push(refusal(ledger, issue(3, "AAAAAAAA")).await);
    let taken = Refusal::Taken {
        transition: 1,
        state: "FREE 1 2".to_owned(),
    };
    assert_eq!(seen.last(), Some(&taken));
    // This refusal is not remembered under its key: the code is drawn again.
    accepted(ledger, issue(3, "BBBBBBBB")).await;
    let left = level(ledger, Account::coupon(CouponId(1))).await;
    assert_eq!(left, Some(5));

    let known = key(30, 1).unwrap();
    // A key that is claimed for another shard.
    let name = RecordName::of(&known);
    let _: () = cmd("HSET")
        .arg(ledger.keys().records(Records::Accepted, FIRST_GENERATION))
        .arg(&name.key)
        .arg(name.claimed(ledger.redis_now_ms(), 5))
        .query_async(&mut redis)
        .await
        .unwrap();
    let sealed = || {
        let mut claimed = place(1, 1);
        claimed.idempotency = key(30, 1);
        std::sync::Arc::new(EncodedRequest::new(claimed).unwrap())
    };
    let first = ledger.shard(0).unwrap();
    // Each refusal is inserted at its position in the order of the checks.
    let verdict = first.decide(sealed()).await.unwrap();
    assert_eq!(verdict, Verdict::Refused(Refusal::Claimed(5)));
    seen.insert(1, Refusal::Claimed(5));
    let records = ledger.keys().records(Records::Accepted, FIRST_GENERATION);
    let _: i64 = cmd("HDEL")
        .arg(&records)
        .arg(SENTINEL)
        .query_async(&mut redis)
        .await
        .unwrap();
    let verdict = first.decide(sealed()).await.unwrap();
    let lost = Refusal::Lost(LostKey::Records);
    assert_eq!(verdict, Verdict::Refused(lost.clone()));
    seen.insert(0, lost);

    let epoch = ledger.keys().epoch();
    let _: i64 = cmd("HSET")
        .arg(epoch)
        .arg("epoch")
        .arg("x")
        .query_async(&mut redis)
        .await
        .unwrap();
    seen.insert(0, refusal(ledger, place(1, 1)).await);
    let codes: Vec<u8> = seen.iter().map(Refusal::code).collect();
    assert_eq!(codes, Refusal::CODES.map(|(code, _)| code));
}

fn campaign(count: i64) -> Coupon {
    Coupon {
        id: CouponId(1),
        name: "ten percent".to_owned(),
        benefit: Benefit::Rate("10".parse().unwrap()),
        count: Some(count),
        window_ms: (0, 0),
        personal: None,
    }
}

#[tokio::test]
async fn what_an_order_uses_is_judged_in_the_contracts_order_and_all_or_nothing() {
    // Danger: a code or points are taken although the stock is not. Method: an order that lacks
    // everything gets what it lacks piece by piece; nothing moves until it has all.
    let shop = Shop::open_undivided(2, 10).await;
    let ledger = &shop.ledger;
    let book = Book::Allowances(SaleId(1));
    ledger.begin_book(book, ProductId(1)).await.unwrap();
    let money = |units| Money::new(units).unwrap();
    let mut wanted = order(1, 5);
    wanted.lines.extend(order(2, 11).lines);
    wanted.lines[0].allowance = Some(Allowance {
        sale_id: SaleId(1),
        limit: 4,
        counted_from: 1_000_000,
    });
    wanted.coupon = Some(campaign(7).used("AAAAAAAA", money(16_000)));
    (wanted.used_points, wanted.earned_points) = (money(800), money(10));
    let place = |order: &Order| order::place(order, Terms::default(), None).unwrap();
    let points = Account::points(UserId(2));
    let levels = async || {
        let products = (
            level(ledger, account(1)).await,
            level(ledger, account(2)).await,
        );
        (products.0, products.1, level(ledger, points).await)
    };
    let short = |posting, account, balance| Refusal::Posting {
        posting,
        account,
        why: Why::Insufficient {
            balance,
            back: Back::Nothing,
        },
    };
    assert_eq!(
        refusal(ledger, place(&wanted)).await,
        short(1, account(2), 10)
    );
    wanted.lines[1] = order(2, 10).lines.remove(0);
    let allowance = Account::allowance(SaleId(1), UserId(2));
    assert_eq!(
        refusal(ledger, place(&wanted)).await,
        short(2, allowance, 4)
    );
    wanted.lines[0].quantity = Quantity::new(4).unwrap();
    let untaken = Refusal::Taken {
        transition: 0,
        state: String::new(),
    };
    assert_eq!(refusal(ledger, place(&wanted)).await, untaken);
    accepted(ledger, coupon::open(&campaign(7), UserId(1)).unwrap()).await;
    let issued = CouponIssued {
        coupon_id: CouponId(1),
        user_id: UserId(2),
        work_id: None,
        code: "AAAAAAAA".to_owned(),
    };
    accepted(ledger, coupon::issue(&issued, (0, 0), None).unwrap()).await;
    let unknown = Refusal::Posting {
        posting: 3,
        account: points,
        why: Why::Unknown,
    };
    assert_eq!(refusal(ledger, place(&wanted)).await, unknown);
    let moved = PointsMoved {
        user_id: UserId(2),
        amount: 790,
        description: String::new(),
    };
    let earn = |opens| points::earn(&moved, opens, UserId(1), None).unwrap();
    accepted(ledger, earn(true)).await;
    // Points that the order would earn do not pay for it.
    assert_eq!(refusal(ledger, place(&wanted)).await, short(3, points, 790));
    accepted(ledger, earn(false)).await;
    assert_eq!(levels().await, (Some(10), Some(10), Some(1_580)));
    assert_eq!(
        level(ledger, allowance).await,
        None,
        "a refusal opens nothing"
    );

    let id = accepted(ledger, place(&wanted)).await;
    assert_eq!(levels().await, (Some(6), Some(0), Some(790)));
    let used = ledger.state("code:AAAAAAAA").await.unwrap();
    assert_eq!(used.as_deref(), Some("USED 1 2"));
    let mut second = order(1, 1);
    second.coupon = wanted.coupon.clone();
    let state = "USED 1 2".to_owned();
    let taken = Refusal::Taken {
        transition: 0,
        state,
    };
    assert_eq!(refusal(ledger, place(&second)).await, taken);

    let back = Reversed {
        has_code: true,
        ..reversed(id, &wanted)
    };
    accepted(ledger, order::cancel(back, UserId(2), None).unwrap()).await;
    assert_eq!(levels().await, (Some(10), Some(10), Some(1_580)));
    assert_eq!(level(ledger, allowance).await, Some(1_000_000));
    accepted(ledger, place(&second)).await;
}

#[tokio::test]
async fn several_lines_are_taken_together_or_not_at_all_within_one_batch() {
    // Danger: two requests in one batch do not see each other's postings. Method: many at once,
    // with quantities that do not divide the stock.
    let shop = Shop::open_undivided(2, 10).await;
    let both = |quantity: u32| {
        let mut both = order(1, quantity);
        both.lines.extend(order(2, quantity).lines);
        order::place(&both, Terms::default(), None).unwrap()
    };
    let running: Vec<_> = (0..40)
        .map(|_| {
            let (ledger, request) = (shop.ledger.clone(), both(3));
            tokio::spawn(async move { ledger.decide(request).await.unwrap() })
        })
        .collect();
    let mut accepted = 0;
    for verdict in running {
        match verdict.await.unwrap() {
            Verdict::Accepted(_) => accepted += 1,
            Verdict::Refused(Refusal::Posting {
                posting: 0,
                why: Why::Insufficient { .. },
                ..
            }) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(accepted, 3);
    assert_eq!((shop.available(1).await, shop.available(2).await), (1, 1));
}

#[tokio::test]
async fn ids_rise_when_the_clock_is_set_back_and_when_a_millisecond_is_full() {
    let shop = Shop::open(1, 1_000).await;
    let client = redis::Client::open(shop.config.redis.redis_url.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let ahead = shop.ledger.redis_now_ms() + 3_600_000;
    let low = 65_530;
    let epoch = shop.ledger.keys().epoch();
    let _: i64 = cmd("HSET")
        .arg(epoch)
        .arg("ms")
        .arg(ahead)
        .arg("low")
        .arg(low)
        .query_async(&mut redis)
        .await
        .unwrap();
    let mut last = Position::from_parts(ahead, low).unwrap();
    for _ in 0..20 {
        let position = accepted(&shop.ledger, place(1, 1)).await;
        assert!(position > last, "{position} after {last}");
        assert!(shop.ledger.find(position).await.unwrap().is_some());
        last = position;
    }
    assert_eq!(last.unix_ms(), ahead + 1, "the next millisecond was named");
}
