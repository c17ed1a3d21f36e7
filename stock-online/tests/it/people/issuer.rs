//! Tokens of the shop's own issuer: which are believed, when its keys change, and when it is away.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::KeyPair;
use serde_json::{Value, json};
use stock_client::{Answer, Client};
use tokio::net::TcpListener;

use crate::support::{SECRET, Shop, until};

const ISSUER: &str = "https://login.shop.example.com/";
const AUDIENCE: &str = "stock";

/// A private key of an issuer.
struct Key {
    id: &'static str,
    algorithm: Algorithm,
    private: EncodingKey,
}

impl Key {
    /// The RSA key of these tests, used nowhere else.
    fn rsa(id: &'static str) -> Self {
        let text = include_str!("issuer_key.hex").replace('\n', "");
        let private = EncodingKey::from_rsa_der(&hex::decode(text).unwrap());
        let algorithm = Algorithm::RS256;
        Self {
            id,
            algorithm,
            private,
        }
    }

    fn ec(id: &'static str) -> Self {
        let pair = KeyPair::generate().unwrap();
        Self {
            id,
            algorithm: Algorithm::ES256,
            private: EncodingKey::from_ec_der(pair.serialized_der()),
        }
    }

    /// The public key as the issuer publishes it.
    fn public(&self) -> Value {
        let key = Jwk::from_encoding_key(&self.private, self.algorithm).unwrap();
        let mut key = serde_json::to_value(key).unwrap();
        key["kid"] = json!(self.id);
        key["use"] = json!("sig");
        key
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(self.id.to_owned());
        encode(&header, claims, &self.private).unwrap()
    }
}

/// The claims of a token that holds for ten minutes.
fn claims(shop: &Shop, sub: &str) -> Value {
    let now = shop.clock.now_ms() / 1_000;
    json!({ "sub": sub, "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 600 })
}

fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut changed = claims.clone();
    changed[name] = value;
    changed
}

/// An issuer that publishes its keys over HTTP; without keys it answers 500.
#[derive(Clone)]
struct Issuer {
    url: String,
    keys: Arc<Mutex<Option<Value>>>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Self {
            url: format!("http://{}/jwks.json", listener.local_addr().unwrap()),
            keys: Arc::default(),
        };
        let own = issuer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let own = own.clone();
                let service = service_fn(move |_| {
                    let keys = own.keys.lock().unwrap().clone();
                    async move {
                        let answer = match keys {
                            Some(keys) => Response::new(Full::<Bytes>::from(keys.to_string())),
                            None => Response::builder()
                                .status(500)
                                .body(Full::default())
                                .unwrap(),
                        };
                        Ok::<_, Infallible>(answer)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        issuer
    }

    /// Publishes keys, beside some that nobody here can use.
    fn publish(&self, keys: &[&Key]) {
        let mut all = vec![
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "other" }),
            json!({ "kty": "unheard of" }),
            json!("no key"),
        ];
        all.extend(keys.iter().map(|key| key.public()));
        *self.keys.lock().unwrap() = Some(json!({ "keys": all }));
    }

    fn go_away(&self) {
        *self.keys.lock().unwrap() = None;
    }
}

/// A shop that believes an issuer.
async fn shop_of(issuer: &Issuer) -> Shop {
    let mut shop = Shop::open(1, 100).await;
    shop.config = shop.config.clone().with(|config| {
        config.people.jwt_jwks_url.clone_from(&issuer.url);
        config.people.jwt_issuer = ISSUER.to_owned();
        config.people.jwt_audience = AUDIENCE.to_owned();
    });
    shop
}

async fn buy(client: &Client, token: &str) -> Answer {
    let body = json!({ "orderProducts": [{ "productId": 1, "quantity": 1 }],
        "totalAmount": 1_000, "deliveryType": "ONLINE" });
    let call = client.post("/api/redis/orders").bearer(token);
    call.json(&body).send().await
}

async fn status_of(client: &Client, token: &str) -> u16 {
    client.get("/api/me").bearer(token).send().await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_issuer_lets_a_buyer_or_a_user_in() {
    let (issuer, rsa, ec) = (Issuer::start().await, Key::rsa("r1"), Key::ec("e1"));
    issuer.publish(&[&rsa, &ec]);
    let shop = shop_of(&issuer).await;
    let service = shop.serve().await;
    let client = &service.client;

    // A name is a buyer: the same as the one whom a back end names.
    let name = "auth0|5f7c8ec7c33c6c004bbafe82";
    let token = rsa.sign(&claims(&shop, name));
    let placed = buy(client, &token).await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    assert_eq!(placed.body["buyer"], name);
    let order = placed.member("orderId").to_owned();
    let path = format!("/api/orders/{order}");
    let shown = client.get(&path).bearer(&token).send().await;
    assert_eq!(shown.status, 200, "{}", shown.text);
    until("the admin finds the order by the name", async || {
        let all = client.get("/api/orders?buyer=auth0%7C5f7c8ec7c33c6c004bbafe82");
        let all = all.admin().send().await;
        all.body["items"][0]["orderId"] == order
    })
    .await;
    let others = ec.sign(&claims(&shop, "another"));
    assert_eq!(client.get(&path).bearer(&others).send().await.status, 404);

    // Numbers of other systems are names too; small ones are users.
    let large = buy(client, &ec.sign(&claims(&shop, "110169484474386276334"))).await;
    assert_eq!(
        large.body["buyer"], "110169484474386276334",
        "{}",
        large.text
    );
    let user = ec.sign(&claims(&shop, "2"));
    let me = client.get("/api/me").bearer(&user).send().await;
    assert_eq!((me.status, &me.body["id"]), (200, &json!(2)), "{}", me.text);

    // Several audiences, and times with a fraction, of the issuer and of the shop itself.
    let now = shop.clock.now_ms() / 1_000;
    let loose = |of: Value| {
        let of = with(
            &of,
            "exp",
            json!(f64::from(u32::try_from(now).unwrap()) + 60.5),
        );
        let audience = of["aud"].clone();
        with(&of, "aud", json!(["elsewhere", audience]))
    };
    assert_eq!(
        status_of(client, &rsa.sign(&loose(claims(&shop, "2")))).await,
        200
    );
    let own = json!({ "sub": "2", "role": "user", "iss": "stock-flow", "aud": "stock-flow",
        "iat": now, "nbf": now, "exp": now + 60 });
    let secret = EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
    let own = encode(&Header::new(Algorithm::HS256), &loose(own), &secret).unwrap();
    assert_eq!(status_of(client, &own).await, 200);

    // A role of this service counts; any other word is a user's.
    for (role, status) in [("admin", 200), ("user", 403), ("authenticated", 403)] {
        let token = ec.sign(&with(&claims(&shop, "1"), "role", json!(role)));
        let users = client.get("/api/users").bearer(&token).send().await;
        assert_eq!(users.status, status, "{role}: {}", users.text);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_issuer_did_not_sign_for_this_service_lets_nobody_in() {
    let (issuer, rsa, ec) = (Issuer::start().await, Key::rsa("r1"), Key::ec("e1"));
    issuer.publish(&[&rsa, &ec]);
    let shop = shop_of(&issuer).await;
    let service = shop.serve().await;
    let good = claims(&shop, "2");
    assert_eq!(status_of(&service.client, &rsa.sign(&good)).await, 200);

    let now = shop.clock.now_ms() / 1_000;
    let public = rsa.public();
    let modulus = public["n"].as_str().unwrap();
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("r1".to_owned());
    let by_public = EncodingKey::from_secret(modulus.as_bytes()).unwrap();
    let by_public = encode(&header, &good, &by_public).unwrap();
    let own_secret = EncodingKey::from_secret(SECRET.as_bytes()).unwrap();
    let own_secret = encode(&Header::new(Algorithm::HS256), &good, &own_secret).unwrap();
    let mut swapped = Key::ec("r1");
    let forged = Key::ec("e1").sign(&good);
    let crossed = swapped.sign(&good);
    swapped.id = "unknown";
    let signed = rsa.sign(&good);
    let parts: Vec<&str> = signed.split('.').collect();
    let [_, body, signature] = parts[..] else {
        panic!("{signed}")
    };
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.{signature}");
    let without = |name: &str| {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().remove(name);
        rsa.sign(&changed)
    };
    let changed = |name: &str, value: Value| rsa.sign(&with(&good, name, value));
    for (what, token) in [
        ("the public key as a secret", by_public),
        ("the shop's secret for the issuer", own_secret),
        ("another key under a known id", forged),
        ("another kind of key under a known id", crossed),
        ("a key that nobody knows", swapped.sign(&good)),
        ("alg none", none),
        (
            "another issuer",
            changed("iss", json!("https://elsewhere.example.com/")),
        ),
        (
            "this service's own name",
            changed("iss", json!("stock-flow")),
        ),
        ("another audience", changed("aud", json!("elsewhere"))),
        (
            "other audiences",
            changed("aud", json!(["elsewhere", "stocks"])),
        ),
        ("no audience", without("aud")),
        ("no issuer", without("iss")),
        ("no end", without("exp")),
        ("no subject", without("sub")),
        ("an ended one", changed("exp", json!(now - 1))),
        ("one without a finite end", changed("exp", json!(1e300))),
        ("one of tomorrow", changed("nbf", json!(now + 60))),
        ("the user 0", changed("sub", json!("0"))),
        ("an empty name", changed("sub", json!(""))),
        ("a name with a blank", changed("sub", json!("1 OR 1=1"))),
        (
            "a name of 65 characters",
            changed("sub", json!("x".repeat(65))),
        ),
    ] {
        let answer = service.client.get("/api/me").bearer(&token).send().await;
        let of = format!("{what}: {}", answer.text);
        assert_eq!(
            (answer.status, answer.code()),
            (401, "UNAUTHORIZED"),
            "{of}"
        );
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_of_the_issuer_works_at_once_and_one_taken_back_no_more() {
    // Danger: after a change of keys, tokens of the new key are refused, or a token of the key that
    // leaked goes on because it was seen before. Method: the keys change between two tokens.
    let (issuer, old, new) = (Issuer::start().await, Key::rsa("r1"), Key::ec("e2"));
    issuer.publish(&[&old]);
    let shop = shop_of(&issuer).await;
    let service = shop.serve().await;
    let client = &service.client;
    let (by_old, by_new) = (old.sign(&claims(&shop, "2")), new.sign(&claims(&shop, "3")));
    assert_eq!(status_of(client, &by_old).await, 200);
    assert_eq!(status_of(client, &by_new).await, 401);

    issuer.publish(&[&new]);
    until("the new key is known", async || {
        status_of(client, &by_new).await == 200
    })
    .await;
    assert_eq!(status_of(client, &by_old).await, 401);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_is_away_takes_nothing_away() {
    let (issuer, key, other) = (Issuer::start().await, Key::rsa("r1"), Key::ec("e2"));
    let shop = shop_of(&issuer).await;
    let service = shop.serve().await;
    let client = &service.client;
    let token = key.sign(&claims(&shop, "2"));

    // Away from the start: the token may hold, so nobody says that it does not.
    let early = client.get("/api/me").bearer(&token).send().await;
    assert_eq!(
        (early.status, early.code()),
        (503, "ISSUER_UNAVAILABLE"),
        "{}",
        early.text
    );
    assert!(early.headers.contains_key("retry-after"));
    let own = client.get("/api/me").user(2).send().await;
    assert_eq!(
        own.status, 200,
        "the shop's own tokens need no issuer: {}",
        own.text
    );
    issuer.publish(&[&key]);
    until("the key is known", async || {
        status_of(client, &token).await == 200
    })
    .await;

    // Away later: keys that are known go on, for tokens of every kind that were not seen yet.
    issuer.go_away();
    let unknown = other.sign(&claims(&shop, "2"));
    until("the issuer is found away", async || {
        status_of(client, &unknown).await == 503
    })
    .await;
    let fresh = key.sign(&claims(&shop, "shopuser-1"));
    let placed = buy(client, &fresh).await;
    assert_eq!(placed.status, 201, "{}", placed.text);
    let metrics = client.get("/metrics").send().await.text;
    assert!(
        metrics.contains("stock_dependency_up{name=\"issuer\"} 0"),
        "{metrics}"
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_may_be_in_a_file() {
    let (key, mut shop) = (Key::ec("e1"), Shop::open(1, 10).await);
    let file = std::env::temp_dir().join(format!("stock-jwks-{}.json", std::process::id()));
    std::fs::write(&file, json!({ "keys": [key.public()] }).to_string()).unwrap();
    shop.config = shop.config.clone().with(|config| {
        config.people.jwt_jwks_file = file.to_str().unwrap().to_owned();
        config.people.jwt_issuer = ISSUER.to_owned();
        config.people.jwt_audience = AUDIENCE.to_owned();
    });
    let service = shop.serve().await;
    // A token needs no key id when a key of its kind is known.
    let claims = claims(&shop, "2");
    let token = encode(&Header::new(Algorithm::ES256), &claims, &key.private).unwrap();
    assert_eq!(status_of(&service.client, &token).await, 200);
    service.stop().await;
    std::fs::remove_file(&file).unwrap();
}
