//! What a division into shares promises, without servers.

use std::collections::HashMap;

use stock_common::id::{LocationId, ProductId, SaleId, UserId};

use super::place::Placed;
use super::{Bucket, balance, concerns, gather, place, slots, sum};
use crate::account::{Account, Level};
use crate::journal::{Closing, Draft, Kind, Posting};
use crate::layout::Layout;
use crate::ledger::Request;

const PRODUCT: ProductId = ProductId(7);

fn divided(shards: u64, count: usize) -> Layout {
    let mut layout = Layout::new(shards);
    for slot in slots(&layout, PRODUCT, count) {
        let is_open = true;
        layout.buckets.add(PRODUCT, Bucket { slot, is_open });
    }
    layout
}

fn online(product: ProductId) -> Account {
    Account::available(product, LocationId::ONLINE)
}

fn request(user: u64, postings: Vec<Posting>) -> Request {
    let mut draft = Draft::new(Kind::OrderPlaced, UserId(user), &()).unwrap();
    draft.postings = postings;
    Request::new(draft)
}

fn levels(layout: &Layout, balances: &[i64]) -> HashMap<Account, Level> {
    let accounts = layout.buckets.accounts(PRODUCT);
    let level = |balance: &i64| Level {
        balance: *balance,
        ..Level::default()
    };
    accounts
        .into_iter()
        .zip(balances.iter().map(level))
        .collect()
}

#[test]
fn every_share_lies_on_a_shard_of_its_own() {
    for shards in 1..12_usize {
        let layout = divided(shards as u64, shards - 1);
        let accounts = layout.buckets.accounts(PRODUCT);
        assert_eq!(accounts.len(), shards);
        let mut at: Vec<_> = accounts
            .iter()
            .map(|account| layout.of_account(*account, None).unwrap())
            .map(|place| format!("{place:?}"))
            .collect();
        at.sort();
        at.dedup();
        assert_eq!(at.len(), shards, "{at:?}");
        assert_eq!(slots(&layout, PRODUCT, 64).len(), shards - 1, "no more");
    }
}

#[test]
fn an_order_takes_from_where_the_rest_of_it_lies_or_its_buyer() {
    let layout = divided(4, 3);
    let order = request(5, vec![Posting::new(online(PRODUCT), -1)]);
    let at = |placed: &Placed, index: usize| {
        let posting = placed.request.draft.postings[index];
        layout.of_account(posting.account, posting.product).unwrap()
    };
    for user in 1..20 {
        let mut of = order.clone();
        of.draft.actor = UserId(user);
        assert_eq!(at(&place(&of, &layout), 0), layout.of_user(UserId(user)));
    }
    let mut limited = order.clone();
    let limit = Posting::new(Account::allowance(SaleId(3), UserId(5)), -1).beside(PRODUCT);
    limited.draft.postings.push(limit);
    let placed = place(&limited, &layout);
    assert_eq!(placed.request.draft.postings[0].account, online(PRODUCT));
    assert!(placed.request.asks_on && concerns(&limited, &layout.buckets));
    let given = request(5, vec![Posting::new(online(PRODUCT), 1)]);
    assert!(!concerns(&given, &layout.buckets), "it goes to the whole");
    assert!(!concerns(&order, &Layout::new(4).buckets));
}

#[test]
fn a_posting_that_is_divided_moves_what_stands_behind_it() {
    let layout = divided(3, 2);
    let mut order = request(
        5,
        vec![
            Posting::new(online(PRODUCT), -9),
            Posting::new(Account::points(UserId(5)), -3),
        ],
    );
    order.late_mark = Some(1);
    order.draft.closings = vec![Closing {
        account: online(PRODUCT),
        closed: true,
        only_if_opened: false,
    }];
    let placed = gather(&order, &layout, &levels(&layout, &[4, 3, 4])).unwrap();
    assert_eq!(placed.origin, [0, 0, 0, 1]);
    assert_eq!(placed.request.late_mark, Some(3));
    assert_eq!(placed.request.draft.closings.len(), 3, "every share");
}

#[test]
fn what_is_worth_it_is_moved_to_who_has_little() {
    let layout = divided(4, 3);
    let moved = |balances: &[i64]| {
        let mut levels = levels(&layout, balances);
        for ((from, to), quantity) in balance(&layout.buckets, PRODUCT, &levels) {
            levels.get_mut(&from).unwrap().balance -= quantity;
            levels.get_mut(&to).unwrap().balance += quantity;
        }
        let accounts = layout.buckets.accounts(PRODUCT);
        assert_eq!(
            sum(&levels, &accounts).unwrap().balance,
            balances.iter().sum::<i64>()
        );
        let after = accounts.iter().map(|account| levels[account].balance);
        after.collect::<Vec<_>>()
    };
    assert_eq!(moved(&[1_000, 0, 0, 0]), [250; 4]);
    assert_eq!(moved(&[0, 900, 100, 1_000]), [500, 500, 500, 500]);
    assert_eq!(moved(&[300, 200, 260, 240]), [300, 200, 260, 240], "near");
    assert_eq!(moved(&[200, 0, 0, 0]), [200, 0, 0, 0], "not worth it");
}

#[test]
fn whatever_all_shares_hold_together_is_found() {
    // The numbers of a fixed linear congruential generator.
    let mut state = 1_u64;
    let mut below = |most: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % most
    };
    let layout = divided(5, 4);
    let take = |quantity: i64| Posting::new(online(PRODUCT), -quantity);
    let (mut found, mut gathered) = (0, 0);
    for case in 0..5_000 {
        let balances = [(); 5].map(|()| below(50).cast_signed());
        let (wanted, again) = (1 + below(120).cast_signed(), 1 + below(40).cast_signed());
        let order = request(1 + below(1_000), vec![take(wanted), take(again)]);
        let all: i64 = balances.iter().sum();
        let levels = levels(&layout, &balances);
        match gather(&order, &layout, &levels) {
            Ok(placed) => {
                let mut left = levels.clone();
                let postings = &placed.request.draft.postings;
                for posting in postings {
                    left.get_mut(&posting.account).unwrap().balance += posting.delta;
                }
                assert!(left.values().all(|level| level.balance >= 0), "{case}");
                let moved: i64 = postings.iter().map(|posting| posting.delta).sum();
                assert_eq!(-moved, wanted + again, "{case}");
                let first = placed.origin.iter().filter(|of| **of == 0).count();
                let is_alone = balances.iter().any(|of| *of >= wanted);
                assert_eq!(
                    first == 1,
                    is_alone,
                    "{case}: several only where none has all"
                );
                found += 1;
                gathered += usize::from(!is_alone);
            }
            Err(short) => {
                assert!(all < wanted + again, "{case}");
                let left = if short.posting == 0 {
                    all
                } else {
                    all - wanted
                };
                assert_eq!(short.left, left, "{case}");
            }
        }
    }
    assert!(found > 1_000 && gathered > 300, "{found} {gathered}");
}
