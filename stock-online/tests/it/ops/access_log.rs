//! The access log: a line for each request, and only on demand.

use serde_json::{Value, json};

use crate::support::{ServiceProcess, Shop, folder, until};

const TARGET: &str = "stock_online::access";

#[tokio::test(flavor = "multi_thread")]
async fn a_line_is_logged_for_each_request_if_that_is_asked_for() {
    let shop = Shop::open(1, 10).await;
    let log = folder("access").join("log");
    let settings = vec![
        ("STOCK_LOG", "info".to_owned()),
        ("STOCK_ACCESS_LOG", "true".to_owned()),
    ];
    let service = ServiceProcess::start_logging(&shop, settings, &log).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let call = service.client.get("/api/orders/17/?noise=a%20secret");
    let call = call.user(2).header("x-request-id", "web-1");
    let answer = call.header("traceparent", &parent).send().await;
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&log).unwrap();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines
            .filter(|line: &Value| line["target"] == TARGET)
            .collect()
    };
    let of_request = || {
        lines()
            .into_iter()
            .find(|line| line["request.id"] == "web-1")
    };
    until("the request is logged", async || of_request().is_some()).await;
    let fields = of_request().unwrap();
    let said = ["method", "path", "route", "status", "traceparent"].map(|name| &fields[name]);
    let expected = [
        json!("GET"),
        json!("/api/orders/17"),
        json!("/api/orders/{order_id}"),
        json!(answer.status),
        json!(answer.headers["traceparent"]),
    ];
    assert_eq!(said.map(Value::clone), expected);
    assert!(fields["duration_us"].as_u64().is_some(), "{fields}");
    assert!(
        !std::fs::read_to_string(&log)
            .unwrap()
            .contains("a%20secret")
    );

    // Invented methods and paths have a line each, and no series of their own.
    service.client.call("BREW", "/coffee").send().await;
    until("the invented request is logged", async || {
        let found = lines().into_iter().find(|line| line["path"] == "/coffee");
        found.is_some_and(|line| line["method"] == "other")
    })
    .await;
    let metrics = service.client.get("/metrics").send().await.text;
    assert!(
        !metrics.contains("BREW") && !metrics.contains("/coffee"),
        "{metrics}"
    );

    let quiet = folder("quiet").join("log");
    let other =
        ServiceProcess::start_logging(&shop, vec![("STOCK_LOG", "info".to_owned())], &quiet).await;
    assert_eq!(other.client.get("/api/products").send().await.status, 200);
    assert!(!std::fs::read_to_string(&quiet).unwrap().contains(TARGET));
}
