//! Daily reports of points: they cover the whole day before in a time zone, and stay the same
//! however often they are written.

use chrono::{Days, NaiveDate};
use serde_json::{Value, json};
use stock_common::clock::{day_begins_ms, day_of};
use stock_common::id::Position;
use stock_engine::points_report::{self, ReportError};
use stock_online::ServiceRole;

use crate::support::{Shop, until};

/// Every role except the scheduler, which writes reports by itself.
const SETTLING: [ServiceRole; 2] = [ServiceRole::Http, ServiceRole::Subscriber];

/// Inserts a movement of user 2 at a time, as if it had been settled long ago.
async fn moved(shop: &Shop, seq: u64, unix_ms: u64, point_type: &str, delta: i64) {
    sqlx::query(
        "INSERT INTO point_transactions (user_id, seq, id, type, delta, balance_snapshot, description) \
         VALUES (2, ?, ?, ?, ?, 0, '')",
    )
    .bind(seq)
    .bind(Position::from_parts(unix_ms, seq).unwrap().get())
    .bind(point_type)
    .bind(delta)
    .execute(&shop.pool)
    .await
    .unwrap();
}

async fn report(shop: &Shop, date: NaiveDate) -> Option<(i64, i64, i64, i64)> {
    sqlx::query_as(
        "SELECT earn_amount, use_amount, cancel_amount, net_amount FROM daily_point_reports \
         WHERE user_id = 2 AND report_date = ?",
    )
    .bind(date)
    .fetch_optional(&shop.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_covers_the_whole_day_of_its_time_zone_and_is_the_same_every_time() {
    let shop = Shop::open(1, 5).await;
    let service = shop.serve_roles(&SETTLING).await;
    let zone = shop.config.tz();
    assert_eq!(zone.name(), "Asia/Seoul");
    let now_ms = shop.ledger.redis_now_ms();
    let today = day_of(now_ms, zone);
    let (day, before) = (today.pred_opt().unwrap(), today - Days::new(2));
    let (begins, ends) = (
        day_begins_ms(day, zone).unwrap(),
        day_begins_ms(today, zone).unwrap(),
    );
    moved(&shop, 1, begins - 1, "EARN", 1).await;
    moved(&shop, 2, begins, "EARN", 1_000).await;
    moved(&shop, 3, begins + 1, "USED", -300).await;
    // Taken back: 300 used points and 100 earned points.
    moved(&shop, 4, begins + 3_600_000, "CANCELED", 300).await;
    moved(&shop, 5, ends - 1, "CANCELED", -100).await;
    moved(&shop, 6, ends, "EARN", 7).await;
    let write = async |date| {
        let (pool, ledger) = (&shop.pool, &shop.ledger);
        points_report::write(pool, ledger, zone, date).await
    };
    for _ in 0..2 {
        assert!(matches!(write(day).await, Ok(Some(1))));
        assert_eq!(report(&shop, day).await, Some((1_000, 300, 400, 900)));
    }
    assert!(matches!(write(today).await, Err(ReportError::NotOver(_))));
    assert!(matches!(
        write(NaiveDate::MAX).await,
        Err(ReportError::NotOver(_))
    ));
    assert!(matches!(write(before).await, Ok(Some(1))));
    assert_eq!(report(&shop, before).await, Some((1, 0, 0, 1)));

    // Many instances at the same moment: one writes at a time, and the report stays the same.
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let shop = shop.clone();
            tokio::spawn(
                async move { points_report::write(&shop.pool, &shop.ledger, zone, day).await },
            )
        })
        .collect();
    let mut written = 0;
    for writer in writers {
        written += u64::from(writer.await.unwrap().unwrap().is_some());
    }
    assert!(written > 0);
    assert_eq!(report(&shop, day).await, Some((1_000, 300, 400, 900)));
    assert_eq!(
        shop.count("SELECT COUNT(*) FROM daily_point_reports").await,
        2
    );

    let path = format!("/api/v2/points/users/2/reports?from={day}");
    let shown = service.client.get(&path).user(2).send().await;
    assert_eq!(
        shown.body,
        json!({ "items": [{ "reportDate": day, "earnAmount": 1_000, "useAmount": 300,
            "cancelAmount": 400, "netAmount": 900 }], "nextCursor": null })
    );
    let all = service.client.get("/api/v1/points/users/2/reports").user(2);
    assert_eq!(all.send().await.body["items"].as_array().unwrap().len(), 2);
    for days in [
        "from=2026-02-01&to=2026-01-01",
        "from=2020-01-01",
        "to=x",
        "to=-0001-01-01",
        "from=%2B99999-01-01&to=%2B99999-01-02",
    ] {
        let path = format!("/api/v1/points/users/2/reports?{days}");
        let refused = service.client.get(&path).user(2).send().await;
        assert_eq!(
            (refused.status, refused.code()),
            (422, "UNPROCESSABLE"),
            "{days}"
        );
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_made_up_for_at_start_and_any_day_can_be_written_by_hand() {
    let mut config = Shop::open(1, 5).await.config;
    config.schedule.time_zone = "America/Sao_Paulo".to_owned();
    let shop = Shop::at(config);
    let settling = shop.serve_roles(&SETTLING).await;
    shop.drained().await;
    settling.stop().await;
    let zone = shop.config.tz();
    let today = day_of(shop.ledger.redis_now_ms(), zone);
    let day = |ago| today - Days::new(ago);
    let due = async || {
        let now_ms = shop.ledger.redis_now_ms();
        points_report::due(&shop.pool, zone, now_ms).await.unwrap()
    };
    assert_eq!(due().await, [day(1)], "there were never any");
    for (seq, ago) in [(1, 1), (2, 3), (3, 40)] {
        let noon = day_begins_ms(day(ago), zone).unwrap() + 12 * 3_600_000;
        moved(&shop, seq, noon, "EARN", 10).await;
    }
    // The write is refused while the fence of this process is closed, as it may be for a moment.
    until("the day is written", || async {
        let written = points_report::write(&shop.pool, &shop.ledger, zone, day(40)).await;
        matches!(written, Ok(Some(1)))
    })
    .await;
    assert_eq!(due().await, [day(3), day(1)], "of the month before");
    let service = shop.serve().await;
    until("the scheduler has made up for both days", || async {
        report(&shop, day(1)).await.is_some()
    })
    .await;
    assert_eq!(report(&shop, day(3)).await, Some((10, 0, 0, 10)));
    assert!(due().await.is_empty());

    // The command, as a person would run it after mending rows.
    let run = |date: &str| {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_stock-online"))
            .args(["points-report", "--json", "--date", date])
            .envs(shop.variables())
            .env("STOCK_TIME_ZONE", "America/Sao_Paulo")
            .output()
            .unwrap();
        let said: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        (out.status.code(), said)
    };
    let date = day(3).to_string();
    until("the scheduler has let go of the reports", || async {
        run(&date).0 == Some(0)
    })
    .await;
    assert_eq!(
        run(&date),
        (
            Some(0),
            json!({ "reportDate": date, "timeZone": "America/Sao_Paulo", "users": 1 })
        )
    );
    assert_eq!(run(&today.to_string()).0, Some(1), "it is not over");
    assert_eq!(run("yesterday").0, Some(2));
    service.stop().await;
}
