//! The rules of checkouts against a plain model: a ledger of a few maps that carries out the
//! requests as the script does, and sums that must come out whatever happens in which order.

use std::collections::BTreeMap;

use proptest::prelude::*;
use stock_common::id::{CouponId, LocationId, Position, ProductId, SaleId, UserId};
use stock_common::money::Money;

use super::{
    Budget, Changed, Checkout, CheckoutStatus, Course, Extended, OpenTerms, Payment,
    PaymentOutcome, Step, Was, confirm, extend, extended_state_id, judge, note, open,
    payment_state_id, retake,
};
use crate::account::Account;
use crate::coupon::{CodeState, UsedCoupon, code_state_id};
use crate::hold::{cancel, expire, state_id};
use crate::order::{DeliveryType, Order, OrderLine, Path};
use crate::quantity::Quantity;
use crate::request::{Request, Then};
use crate::sale::Allowance;
use crate::transition::PLACE;

const UNITS: i64 = 5;
const POINTS: i64 = 30;
const TTL_MS: u64 = 10;
const BUDGET: Budget = Budget {
    times_max: 2,
    life_ms_max: 30,
};

/// Something that happens; checkouts and payments are named by small numbers.
#[derive(Debug, Clone)]
enum Event {
    Open {
        buyer: u64,
        units: u32,
        benefits: bool,
    },
    Extend {
        checkout: usize,
        ttl_ms: u64,
    },
    Pending {
        checkout: usize,
    },
    Pay {
        checkout: usize,
        payment: u8,
        more: i64,
    },
    Cancel {
        checkout: usize,
    },
    Pass {
        ms: u64,
    },
    Sweep,
}

fn event() -> impl Strategy<Value = Event> {
    let checkout = 0_usize..6;
    prop_oneof![
        3 => (1_u64..4, 1_u32..4, any::<bool>())
            .prop_map(|(buyer, units, benefits)| Event::Open { buyer, units, benefits }),
        1 => (checkout.clone(), 1_u64..20)
            .prop_map(|(checkout, ttl_ms)| Event::Extend { checkout, ttl_ms }),
        1 => checkout.clone().prop_map(|checkout| Event::Pending { checkout }),
        4 => (checkout.clone(), 0_u8..3, prop_oneof![4 => Just(0_i64), 1 => Just(1)])
            .prop_map(|(checkout, payment, more)| Event::Pay { checkout, payment, more }),
        1 => checkout.prop_map(|checkout| Event::Cancel { checkout }),
        2 => (1_u64..12).prop_map(|ms| Event::Pass { ms }),
        2 => Just(Event::Sweep),
    ]
}

/// The ledger: what the script keeps, as plain maps.
#[derive(Default)]
struct Ledger {
    now_ms: u64,
    next: u64,
    accounts: BTreeMap<Account, i64>,
    states: BTreeMap<String, String>,
    deadlines: BTreeMap<String, u64>,
}

impl Ledger {
    fn state(&self, id: &str) -> Option<&str> {
        self.states.get(id).map(String::as_str)
    }

    /// Carries a request out whole, or not at all.
    fn decide(&mut self, request: &Request) -> Option<Position> {
        let at = Position::from_parts(self.now_ms, self.next).unwrap();
        if let Some((opens, _)) = request.window_ms
            && self.now_ms < opens
        {
            return None;
        }
        for transition in &request.draft.transitions {
            if self.state(&transition.id).unwrap_or_default() != transition.from {
                return None;
            }
        }
        if let Some(release) = &request.release
            && release.until_ms > 0
            && self.now_ms >= release.until_ms
        {
            return None;
        }
        let mut after = self.accounts.clone();
        for posting in &request.draft.postings {
            let balance = after
                .entry(posting.account)
                .or_insert(posting.open.unwrap_or(0));
            *balance += posting.delta;
            if posting.delta < 0 && *balance < posting.least {
                return None;
            }
        }
        self.accounts = after;
        for transition in &request.draft.transitions {
            let to = match transition.to.strip_suffix(PLACE) {
                Some(word) => format!("{word}{}", at.stream_id()),
                None => transition.to.clone(),
            };
            match to.is_empty() {
                true => self.states.remove(&transition.id),
                false => self.states.insert(transition.id.clone(), to),
            };
        }
        if let Some(hold) = &request.hold {
            let member = format!("{} {}", at.stream_id(), hold.text);
            self.deadlines.insert(member, at.unix_ms() + hold.ttl_ms);
        }
        if let Some(release) = &request.release {
            assert!(self.deadlines.contains_key(&release.member), "{release:?}");
            match release.then {
                Then::Ends(_) => self.deadlines.remove(&release.member),
                Then::LivesUntil(ms) => self.deadlines.insert(release.member.clone(), ms),
            };
        }
        self.next += 1;
        Some(at)
    }
}

struct Opened {
    id: Position,
    checkout: Checkout,
    payments: BTreeMap<String, PaymentOutcome>,
}

#[derive(Default)]
struct World {
    ledger: Ledger,
    opened: Vec<Opened>,
}

fn money(units: i64) -> Money {
    Money::new(units).unwrap()
}

fn code(buyer: u64) -> String {
    format!("CODE{buyer}")
}

fn cart(buyer: u64, units: u32, benefits: bool) -> Checkout {
    let (sum, off) = (i64::from(units) * 100, if benefits { 20 } else { 0 });
    let order = Order {
        user_id: UserId(buyer),
        path: Path::Redis,
        delivery_type: DeliveryType::Online,
        store_id: None,
        lines: vec![OrderLine {
            product_id: ProductId(1),
            product_name: "apple".to_owned(),
            quantity: Quantity::new(units).unwrap(),
            price: money(100),
            unit_price: money(100),
            sub_total: money(sum),
            allowance: Some(Allowance::from((SaleId(1), 4))),
        }],
        total_amount: money(sum - 2 * off),
        coupon: benefits.then(|| UsedCoupon {
            code: code(buyer),
            coupon_id: CouponId(1),
            discount_amount: money(off),
        }),
        used_points: money(off),
        earned_points: Money::ZERO,
        reservation_id: None,
        checkout_id: None,
        paid: None,
        shares_online_stock: false,
        offline: None,
        buyer: None,
        reference: None,
    };
    Checkout {
        order,
        ttl_ms: TTL_MS,
        hold_limit: 2,
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self::default();
        world.ledger.now_ms = 1_800_000_000_000;
        let stock = Account::available(ProductId(1), LocationId::ONLINE);
        world.ledger.accounts.insert(stock, UNITS);
        for buyer in 1..4 {
            let points = Account::points(UserId(buyer));
            world.ledger.accounts.insert(points, POINTS);
            let free = CodeState::free(CouponId(1), UserId(buyer));
            let id = code_state_id(&code(buyer));
            world.ledger.states.insert(id, free.to_string());
        }
        world
    }

    fn course(&self, of: &Opened) -> Course {
        let state = self.ledger.state(&state_id(of.id));
        let ended = state.and_then(Course::of_state);
        ended.unwrap_or(Course::without_order(CheckoutStatus::Open))
    }

    fn extended(&self, of: &Opened) -> Option<Extended> {
        let state = self.ledger.state(&extended_state_id(of.id))?;
        Extended::parse(state)
    }

    /// Releases the holds whose time is over.
    fn sweep(&mut self) {
        for index in 0..self.opened.len() {
            let of = &self.opened[index];
            let until_ms = of.checkout.extended(of.id, self.extended(of)).until_ms;
            let request = expire(&of.checkout.held(of.id), until_ms).unwrap();
            self.ledger.decide(&request);
        }
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Open {
                buyer,
                units,
                benefits,
            } => {
                let checkout = cart(buyer, units, benefits);
                let terms = OpenTerms {
                    window_ms: None,
                    retried_anew: false,
                    units_max: 0,
                };
                let request = open(&checkout, terms, None).unwrap();
                if let Some(id) = self.ledger.decide(&request) {
                    self.opened.push(Opened {
                        id,
                        checkout,
                        payments: BTreeMap::new(),
                    });
                }
            }
            Event::Pass { ms } => self.ledger.now_ms += ms,
            Event::Sweep => self.sweep(),
            Event::Extend { checkout, .. }
            | Event::Pending { checkout }
            | Event::Pay { checkout, .. }
            | Event::Cancel { checkout } => {
                if checkout < self.opened.len() {
                    self.change(checkout, event);
                }
            }
        }
    }

    fn change(&mut self, index: usize, event: &Event) {
        let of = &self.opened[index];
        let (course, extended) = (self.course(of), self.extended(of));
        let (id, checkout, now_ms) = (of.id, &of.checkout, self.ledger.now_ms);
        let changed = Changed {
            id,
            checkout,
            extended,
        };
        let is_open = course.status == CheckoutStatus::Open;
        match *event {
            Event::Cancel { .. } if is_open => {
                let held = checkout.held(id);
                let request = cancel(&held, changed.expires_ms(), UserId(1), None).unwrap();
                self.ledger.decide(&request);
            }
            Event::Extend { ttl_ms, .. } if is_open => {
                if let Some(next) = checkout.extend(id, extended, now_ms, ttl_ms, BUDGET) {
                    assert!(next.times <= BUDGET.times_max);
                    assert!(next.until_ms <= id.unix_ms() + BUDGET.life_ms_max);
                    assert!(next.until_ms >= changed.expires_ms());
                    let request = extend(changed, next, UserId(1), None).unwrap();
                    self.ledger.decide(&request);
                }
            }
            Event::Pending { .. } if is_open => {
                if let Some(next) = checkout.extend_for_payment(id, extended, now_ms, BUDGET) {
                    let request = extend(changed, next, UserId(1), None).unwrap();
                    self.ledger.decide(&request);
                }
            }
            Event::Pay { payment, more, .. } => self.pay(index, payment, more),
            Event::Open { .. }
            | Event::Extend { .. }
            | Event::Pending { .. }
            | Event::Cancel { .. }
            | Event::Pass { .. }
            | Event::Sweep => {}
        }
    }

    fn pay(&mut self, index: usize, payment: u8, more: i64) {
        if self.course(&self.opened[index]).status == CheckoutStatus::Open {
            // A payment after the deadline finds the checkout given back.
            self.sweep();
        }
        let of = &self.opened[index];
        let course = self.course(of);
        let changed = Changed {
            id: of.id,
            checkout: &of.checkout,
            extended: self.extended(of),
        };
        let total = of.checkout.order.total_amount;
        let payment = Payment {
            id: format!("p{payment}"),
            amount: money(total.get() + more),
        };
        let state = self.ledger.state(&payment_state_id(of.id, &payment.id));
        let known = state.and_then(PaymentOutcome::parse);
        assert_eq!(known, of.payments.get(&payment.id).copied());
        let hold = self.ledger.state(&state_id(of.id)).map(str::to_owned);
        let noting = |outcome, due: Option<&str>| {
            let was = Was {
                payment: known,
                due,
            };
            note(changed, &payment, outcome, was, UserId(1)).unwrap()
        };
        let outcome = match judge(course.status, total, &payment, known) {
            Step::Known(_) => return,
            Step::Note(outcome) => {
                let request = noting(outcome, None);
                self.ledger
                    .decide(&request)
                    .expect("a note is always taken");
                outcome
            }
            Step::Confirm => {
                let request = confirm(changed, &payment, known, UserId(1), None).unwrap();
                self.ledger.decide(&request).expect("what is held is sold");
                PaymentOutcome::Confirmed
            }
            Step::Retake => {
                let state = hold.as_deref();
                let request = retake(changed, state, &payment, known, &[], UserId(1)).unwrap();
                let refund = noting(PaymentOutcome::TooLate, state);
                match self.ledger.decide(&request) {
                    Some(_) => PaymentOutcome::Confirmed,
                    None => {
                        self.ledger.decide(&refund).expect("a note is always taken");
                        PaymentOutcome::TooLate
                    }
                }
            }
        };
        self.opened[index].payments.insert(payment.id, outcome);
    }

    /// The sums that must come out at any time.
    fn check(&self) {
        let balance = |account: Account| self.ledger.accounts.get(&account).copied();
        let of = |status: CheckoutStatus| {
            let own = self
                .opened
                .iter()
                .filter(move |of| self.course(of).status == status);
            own.map(|of| i64::from(of.checkout.order.lines[0].quantity.get()))
                .sum::<i64>()
        };
        let (held, sold) = (of(CheckoutStatus::Open), of(CheckoutStatus::Confirmed));
        let (product, online) = (ProductId(1), LocationId::ONLINE);
        assert_eq!(
            balance(Account::reserved(product, online)).unwrap_or(0),
            held
        );
        let available = balance(Account::available(product, online)).unwrap();
        assert_eq!(available + held + sold, UNITS);
        let live = self
            .opened
            .iter()
            .filter(|of| self.course(of).status == CheckoutStatus::Open);
        assert_eq!(self.ledger.deadlines.len(), live.count());
        (1..4).for_each(|buyer| self.check_buyer(buyer));
        for of in &self.opened {
            let course = self.course(of);
            let mut outcomes = of.payments.values();
            let confirmed = outcomes
                .clone()
                .filter(|of| **of == PaymentOutcome::Confirmed);
            let is_sold = course.status == CheckoutStatus::Confirmed;
            assert_eq!(
                confirmed.count(),
                usize::from(is_sold),
                "sold is paid, once"
            );
            let is_due = outcomes.any(|of| *of == PaymentOutcome::TooLate);
            assert_eq!(is_due, course.status == CheckoutStatus::RefundDue);
        }
    }

    fn check_buyer(&self, buyer: u64) {
        let balance = |account: Account| self.ledger.accounts.get(&account).copied();
        let own = self
            .opened
            .iter()
            .filter(|of| of.checkout.order.user_id == UserId(buyer));
        let (mut points, mut used, mut limit, mut holds) = (POINTS, "FREE", 0, 0);
        for of in own {
            let order = &of.checkout.order;
            let status = self.course(of).status;
            let takes = matches!(status, CheckoutStatus::Open | CheckoutStatus::Confirmed);
            if !takes {
                continue;
            }
            points -= order.used_points.get();
            limit += i64::from(order.lines[0].quantity.get());
            holds += i64::from(status == CheckoutStatus::Open);
            if order.coupon.is_some() {
                assert_eq!(used, "FREE", "a code is used once");
                used = if status == CheckoutStatus::Open {
                    "HELD"
                } else {
                    "USED"
                };
            }
        }
        assert_eq!(balance(Account::points(UserId(buyer))), Some(points));
        let state = self.ledger.state(&code_state_id(&code(buyer))).unwrap();
        assert!(state.starts_with(used), "{state} {used}");
        let allowance = balance(Account::allowance(SaleId(1), UserId(buyer)));
        assert_eq!(allowance.unwrap_or(1_000_000), 1_000_000 - limit);
        assert!(limit <= 4);
        assert_eq!(
            balance(Account::hold(UserId(buyer), 2)).unwrap_or(2),
            2 - holds
        );
    }
}

proptest! {
    #[test]
    fn whatever_happens_in_which_order_every_unit_point_and_payment_is_accounted_for(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
            world.check();
        }
        world.ledger.now_ms += 1_000;
        world.sweep();
        world.check();
        prop_assert!(world.ledger.deadlines.is_empty(), "nothing is held for ever");
    }
}
