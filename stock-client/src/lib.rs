//! A client of the service. It sends requests with tokens and reads answers with their problem
//! codes.
//!
//! A [`Session`] keeps its connection, as browsers do. A [`Call`] that is sent alone opens a
//! connection of its own and closes it again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::http::response::Parts;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use stock_domain::user::Role;
use tokio::net::TcpStream;

/// Time that a client waits for an answer, longer than any time limit of the service.
const PATIENCE: Duration = Duration::from_secs(20);

/// The reason why a request was not answered.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Makes the `Authorization` header for a user id and a role.
pub type Sign = dyn Fn(u64, Role) -> String + Send + Sync;

/// An answer of the service.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Header values by name; the names are in lower case.
    pub headers: BTreeMap<String, String>,
    /// The cookies that the answer sets, each as `name=value`.
    pub cookies: Vec<String>,
    /// The body as JSON; null when it is not JSON.
    pub body: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// The code of the problem, or "".
    #[must_use]
    pub fn code(&self) -> &str {
        self.member("code")
    }

    /// A text member of the body, or "".
    #[must_use]
    pub fn member(&self, name: &str) -> &str {
        self.body
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// The id of the order, or "".
    #[must_use]
    pub fn order_id(&self) -> String {
        self.member("orderId").to_owned()
    }
}

/// A client of one service.
#[derive(Clone)]
pub struct Client {
    /// The address of the service, `host:port`.
    pub address: String,
    sign: Arc<Sign>,
}

/// A request that is not sent yet.
#[must_use]
pub struct Call<'a> {
    client: &'a Client,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Call<'_> {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds the token of a buyer.
    pub fn user(self, id: u64) -> Self {
        self.role(id, Role::User)
    }

    /// Adds the token of user 1, an admin.
    pub fn admin(self) -> Self {
        self.role(1, Role::Admin)
    }

    /// Adds a token that the service gave.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Adds the token of a user in any role.
    pub fn role(self, id: u64, role: Role) -> Self {
        let value = self.client.bearer(id, role);
        self.header("authorization", &value)
    }

    /// Sets JSON as the body.
    pub fn json(self, body: &Value) -> Self {
        self.raw(body.to_string().as_bytes())
            .header("content-type", "application/json")
    }

    /// Sets the fields of a form as the body.
    pub fn form(self, fields: &str) -> Self {
        self.raw(fields.as_bytes())
            .header("content-type", "application/x-www-form-urlencoded")
    }

    /// Sets these bytes as the body.
    pub fn raw(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    /// Sends the request on a connection of its own.
    ///
    /// # Errors
    /// When the connection breaks, so that the outcome is unknown.
    pub async fn try_send(self) -> Result<Answer, Failure> {
        let mut session = Session::new(&self.client.address);
        session.send(self.request()?).await
    }

    /// Sends the request on a connection of its own, and expects an answer.
    ///
    /// # Panics
    /// When there is no answer.
    #[expect(
        clippy::expect_used,
        reason = "who calls it has nothing else to do then"
    )]
    pub async fn send(self) -> Answer {
        self.try_send().await.expect("the service answers")
    }

    /// Sends the request as [`Call::send`] does, and keeps only the status.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn status(self) -> u16 {
        self.send().await.status
    }

    /// Builds the HTTP request.
    ///
    /// # Errors
    /// When a header or the path cannot be sent.
    pub fn request(self) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .method(Method::from_bytes(self.method.as_bytes())?)
            .uri(&self.path)
            .header("host", &self.client.address);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        Ok(request.body(Full::new(Bytes::from(self.body)))?)
    }
}

impl Client {
    /// A client of the service at `address`; `sign` makes its `Authorization` headers.
    #[must_use]
    pub fn new(address: &str, sign: Arc<Sign>) -> Self {
        Self {
            address: address.to_owned(),
            sign,
        }
    }

    /// The same client at another address, such as that of a proxy.
    #[must_use]
    pub fn at(&self, address: &str) -> Self {
        Self {
            address: address.to_owned(),
            ..self.clone()
        }
    }

    /// The value of an `Authorization` header.
    #[must_use]
    pub fn bearer(&self, id: u64, role: Role) -> String {
        (self.sign)(id, role)
    }

    /// Begins a request.
    pub fn call(&self, method: &str, path: &str) -> Call<'_> {
        Call {
            client: self,
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Begins a GET.
    pub fn get(&self, path: &str) -> Call<'_> {
        self.call("GET", path)
    }

    /// Begins a POST.
    pub fn post(&self, path: &str) -> Call<'_> {
        self.call("POST", path)
    }

    /// Begins a PATCH.
    pub fn patch(&self, path: &str) -> Call<'_> {
        self.call("PATCH", path)
    }

    /// Begins an order of products at a price of 1,000 each.
    pub fn order(&self, path: &str, user: u64, lines: &[(u64, i64)]) -> Call<'_> {
        self.post(path).user(user).json(&order_json(lines))
    }

    /// Whether the service is ready and has read its catalog.
    pub async fn is_ready(&self) -> bool {
        let ready = self.get("/readyz").try_send().await;
        if !ready.is_ok_and(|answer| answer.status == 200) {
            return false;
        }
        // The total of this order is wrong. The problem code says whether the catalog has been
        // read.
        let probe = json!({ "orderProducts": [{ "productId": 1, "quantity": 1 }],
            "totalAmount": 1, "deliveryType": "ONLINE" });
        let probed = self.post("/api/redis/orders").user(1).json(&probe);
        let probed = probed.try_send().await;
        probed.is_ok_and(|answer| answer.code() == "TOTAL_AMOUNT_MISMATCH")
    }
}

/// The body of an order of products at a price of 1,000 each.
#[must_use]
pub fn order_json(lines: &[(u64, i64)]) -> Value {
    let products: Vec<Value> = lines
        .iter()
        .map(|(product, quantity)| json!({ "productId": product, "quantity": quantity }))
        .collect();
    let total: i64 = lines.iter().map(|(_, quantity)| quantity * 1_000).sum();
    json!({ "orderProducts": products, "totalAmount": total, "deliveryType": "ONLINE" })
}

/// A connection that is kept, and opened again after it broke.
pub struct Session {
    address: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Session {
    /// A session that connects with its first request.
    #[must_use]
    pub fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            sender: None,
        }
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When the connection breaks or no answer comes, so that the outcome is unknown. The next
    /// request opens a new connection.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let (parts, body) = self.exchange(request).await?;
        let text = String::from_utf8(body.to_vec())?;
        let headers = parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("").to_owned()))
            .collect();
        let set = parts.headers.get_all("set-cookie").iter();
        let set = set.filter_map(|value| value.to_str().ok()?.split(';').next());
        Ok(Answer {
            status: parts.status.as_u16(),
            cookies: set.map(str::to_owned).collect(),
            headers,
            body: serde_json::from_str(&text).unwrap_or_default(),
            text,
        })
    }

    /// Sends a request and keeps only the status of its answer, which is cheaper.
    ///
    /// # Errors
    /// As for [`Session::send`].
    pub async fn send_for_status(&mut self, request: Request<Full<Bytes>>) -> Result<u16, Failure> {
        let (parts, _) = self.exchange(request).await?;
        Ok(parts.status.as_u16())
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<(Parts, Bytes), Failure> {
        // Taken out, so that a future dropped half way leaves no half-used connection behind.
        let mut sender = match self.sender.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let answer = tokio::time::timeout(PATIENCE, async {
            sender.ready().await?;
            let (parts, body) = sender.send_request(request).await?.into_parts();
            Ok::<_, Failure>((parts, body.collect().await?.to_bytes()))
        });
        let answer = answer.await??;
        self.sender = Some(sender);
        Ok(answer)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
