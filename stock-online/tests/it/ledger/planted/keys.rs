//! The content of Redis, changed one field at a time: every kind of key that may exist, and every
//! part of its values.

use std::collections::BTreeMap;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value, cmd};
use stock_redis::keys::{HEAD_FIELDS, Keys, Kind, Records, SENTINEL};

/// A change of a key.
pub(super) struct Planting {
    pub(super) key: String,
    pub(super) commands: Vec<Cmd>,
    /// The check that must find the change, and the text that it must name.
    pub(super) names: (&'static str, String),
    /// Changes of one batch do not hide each other.
    pub(super) batch: u32,
}

/// A shard's keys, and the plantings made so far.
pub(super) struct Planter<'a> {
    redis: &'a mut MultiplexedConnection,
    keys: &'a Keys,
    made: Vec<Planting>,
}

type Bytes = Vec<u8>;

fn set(key: &str, field: &[u8], value: &[u8]) -> Cmd {
    let mut set = cmd("HSET");
    set.arg(key).arg(field).arg(value);
    set
}

fn unset(key: &str, field: &[u8]) -> Cmd {
    let mut unset = cmd("HDEL");
    unset.arg(key).arg(field);
    unset
}

impl<'a> Planter<'a> {
    pub(super) fn new(redis: &'a mut MultiplexedConnection, keys: &'a Keys) -> Self {
        Self {
            redis,
            keys,
            made: Vec::new(),
        }
    }

    fn plant(&mut self, batch: u32, key: &str, command: Cmd, names: (&'static str, &str)) {
        self.made.push(Planting {
            key: key.to_owned(),
            commands: vec![command],
            names: (names.0, names.1.to_owned()),
            batch,
        });
    }

    async fn hash(&mut self, key: &str) -> BTreeMap<Bytes, Bytes> {
        let all = cmd("HGETALL").arg(key).query_async(self.redis).await;
        all.unwrap()
    }

    /// Every change of a kind of key, on this shard.
    pub(super) async fn of(mut self, kind: Kind) -> Vec<Planting> {
        match kind {
            Kind::Head => self.head().await,
            Kind::Journal => self.journal().await,
            Kind::States => self.states().await,
            Kind::Deadlines => self.deadlines().await,
            Kind::HeldUnits => self.held_units().await,
            Kind::Account => self.accounts().await,
            Kind::Book => self.books().await,
            Kind::Records => self.records().await,
        }
        self.made
    }

    async fn head(&mut self) {
        let key = self.keys.epoch();
        let now = self.hash(&key).await;
        for (batch, field) in (0_u32..).zip(HEAD_FIELDS) {
            let value = String::from_utf8(now[field.as_bytes()].clone()).unwrap();
            let changed = match (field, value.parse::<u64>()) {
                ("selling", Ok(open)) => (1 - open).to_string(),
                // A reading of the clock is moved into the future.
                ("accepted_from" | "refused_from", Ok(ms)) => (ms + 3_600_000).to_string(),
                (_, Ok(number)) => (number + 1).to_string(),
                (_, Err(_)) => format!("x{value}"),
            };
            let named = match field {
                "ms" | "low" | "number" => "ms, low, number",
                field => field,
            };
            let command = set(&key, field.as_bytes(), changed.as_bytes());
            self.plant(batch, &key, command, ("epoch", named));
        }
        self.plant(99, &key, set(&key, b"more", b"1"), ("epoch", "fields"));
    }

    /// The stream is written anew: with another payload, other posted levels, another number, or
    /// without a frame.
    async fn journal(&mut self) {
        let key = self.keys.journal();
        let frames: Vec<(String, Vec<Bytes>)> = cmd("XRANGE")
            .arg(&key)
            .arg("-")
            .arg("+")
            .query_async(self.redis)
            .await
            .unwrap();
        let at = frames.len() / 2;
        for (batch, change) in [(0, "payload"), (1, "facts"), (2, "number"), (3, "frame")] {
            let mut frames = frames.clone();
            match change {
                "frame" => drop(frames.remove(at)),
                "number" => frames[at].1[1] = b"7".to_vec(),
                "facts" => {
                    // The newest frame: archived entries are not verified any more.
                    let frame = frames.iter_mut().rfind(|(_, fields)| !fields[2].is_empty());
                    let facts = &mut frame.unwrap().1[2];
                    let text = String::from_utf8(facts.clone()).unwrap();
                    let (seq, rest) = text.split_once(':').unwrap();
                    *facts = format!("{}:{rest}", seq.parse::<u64>().unwrap() + 1).into_bytes();
                }
                _ => {
                    let payload = String::from_utf8(frames[at].1[3].clone()).unwrap();
                    let payload = payload.replacen("\"version\":1", "\"version\": 1", 1);
                    frames[at].1[3] = payload.into_bytes();
                }
            }
            let mut commands = vec![cmd("DEL").arg(&key).to_owned()];
            for (id, fields) in frames {
                commands.push(cmd("XADD").arg(&key).arg(id).arg(fields).to_owned());
            }
            self.made.push(Planting {
                key: key.clone(),
                commands,
                names: ("frames", String::new()),
                batch,
            });
        }
    }

    async fn states(&mut self) {
        let key = self.keys.states();
        let mut kinds: BTreeMap<String, (Bytes, Bytes)> = BTreeMap::new();
        for (id, value) in self.hash(&key).await {
            let name = String::from_utf8(id.clone()).unwrap();
            if name != SENTINEL {
                let kind = name.split(':').next().unwrap().to_owned();
                kinds.insert(kind, (id, value));
            }
        }
        for (kind, (id, value)) in kinds {
            let name = String::from_utf8(id.clone()).unwrap();
            let value = String::from_utf8(value).unwrap();
            let other = format!("x{value}");
            // The outcome of a branch has a row of its own, and is compared there.
            if kind != "branch" {
                self.plant(0, &key, set(&key, &id, other.as_bytes()), ("states", &name));
            }
            let (state, _) = value.rsplit_once('@').unwrap();
            let never = format!("{state}@x");
            self.plant(1, &key, set(&key, &id, never.as_bytes()), ("states", &name));
            // A till's sale stays in its table for longer than its state is kept.
            if kind != "till" && kind != "device" {
                self.plant(2, &key, unset(&key, &id), ("states", &name));
            }
        }
        let orphans: [&str; 7] = [
            "order:5",
            "hold:5-5",
            "point:5",
            "opened:999",
            "coupon:999",
            "code:ZZZZ",
            "issued:9:9:9",
        ];
        for id in orphans {
            let command = set(&key, id.as_bytes(), b"FAIL@5");
            self.plant(0, &key, command, ("states", id));
        }
        let command = set(&key, SENTINEL.as_bytes(), b"x");
        self.plant(3, &key, command, ("keys", &key));
    }

    async fn deadlines(&mut self) {
        let key = self.keys.deadlines();
        let members: Vec<(String, f64)> = cmd("ZRANGE")
            .arg(&key)
            .arg(0)
            .arg(-1)
            .arg("WITHSCORES")
            .query_async(self.redis)
            .await
            .unwrap();
        let live = members.iter().find(|(member, _)| member != SENTINEL);
        if let Some((member, score)) = live {
            let check = match member.contains("checkout") {
                true => "checkouts",
                false => "reservations",
            };
            let mut add = cmd("ZADD");
            add.arg(&key).arg(score + 5.0).arg(member);
            self.plant(0, &key, add, (check, ""));
            let remove = cmd("ZREM").arg(&key).arg(member).to_owned();
            self.plant(1, &key, remove, (check, ""));
        }
        let orphan = "1767225600000-5 2 1 0 1 0 0";
        let add = cmd("ZADD").arg(&key).arg(5).arg(orphan).to_owned();
        self.plant(2, &key, add, ("reservations", orphan));
        let add = cmd("ZADD").arg(&key).arg(5).arg(SENTINEL).to_owned();
        self.plant(3, &key, add, ("keys", &key));
    }

    async fn held_units(&mut self) {
        let key = self.keys.held_units();
        let fields = self.hash(&key).await;
        if let Some((field, _)) = fields
            .iter()
            .find(|(field, _)| *field != SENTINEL.as_bytes())
        {
            let name = String::from_utf8(field.clone()).unwrap();
            self.plant(0, &key, set(&key, field, b"99"), ("held_units", &name));
            self.plant(1, &key, unset(&key, field), ("held_units", &name));
        }
        self.plant(2, &key, set(&key, b"9:9", b"1"), ("held_units", "9:9"));
        let command = set(&key, SENTINEL.as_bytes(), b"7");
        self.plant(3, &key, command, ("keys", &key));
    }

    async fn keys_like(&mut self, part: &str) -> Vec<String> {
        let pattern = self.keys.everything().replace(":*", &format!(":{part}:*"));
        let mut names: Vec<String> = cmd("KEYS")
            .arg(pattern)
            .query_async(self.redis)
            .await
            .unwrap();
        names.sort();
        names
    }

    async fn accounts(&mut self) {
        let names = self.keys_like("a").await;
        let key = names.first().unwrap().clone();
        let account = key.rsplit_once(":a:").unwrap().1.to_owned();
        let value: String = cmd("GET").arg(&key).query_async(self.redis).await.unwrap();
        for (batch, value) in (0_u32..).zip(levels(&value)) {
            let command = cmd("SET").arg(&key).arg(value).to_owned();
            self.plant(batch, &key, command, ("redis", &account));
        }
        let command = cmd("DEL").arg(&key).to_owned();
        self.plant(4, &key, command, ("redis", &account));
        let orphan = key.replace(&account, "AVAILABLE:999:0");
        let command = cmd("SET").arg(&orphan).arg("1 1 0").to_owned();
        self.plant(0, &orphan, command, ("redis", "AVAILABLE:999:0"));
        let stranger = key.replace(&format!("a:{account}"), "stranger");
        let command = cmd("SET").arg(&stranger).arg("1").to_owned();
        self.plant(0, &stranger, command, ("keys", &stranger));
    }

    async fn books(&mut self) {
        for key in self.keys_like("b").await {
            let label = key.rsplit_once(":b:").unwrap().1.to_owned();
            let fields = self.hash(&key).await;
            let own = fields
                .iter()
                .find(|(field, _)| *field != SENTINEL.as_bytes());
            if let Some((field, value)) = own {
                let name = format!("{label}:{}", String::from_utf8(field.clone()).unwrap());
                let value = String::from_utf8(value.clone()).unwrap();
                for (batch, value) in (0_u32..).zip(levels(&value)) {
                    let command = set(&key, field, value.as_bytes());
                    self.plant(batch, &key, command, ("redis", &name));
                }
                self.plant(4, &key, unset(&key, field), ("redis", &name));
            }
            let orphan = if label.starts_with("ALLOWANCE") {
                "999"
            } else {
                "999:1"
            };
            let name = format!("{label}:{orphan}");
            let command = set(&key, orphan.as_bytes(), b"1 1");
            self.plant(0, &key, command, ("redis", &name));
            let command = set(&key, SENTINEL.as_bytes(), b"x");
            self.plant(5, &key, command, ("keys", &key));
        }
    }

    async fn records(&mut self) {
        for records in Records::ALL {
            for generation in 0..2 {
                let key = self.keys.records(records, generation);
                let fields = self.hash(&key).await;
                for (field, value) in fields.iter().filter(|(field, _)| field.len() == 16) {
                    let name = hex::encode(field);
                    let mut garbage = value.clone();
                    garbage[8] = b'X';
                    self.plant(0, &key, set(&key, field, &garbage), ("records", &name));
                    if value[8] == b'A' {
                        let mut print = value.clone();
                        print[0] ^= 1;
                        self.plant(1, &key, set(&key, field, &print), ("records", &name));
                        let other = [value.as_slice(), b"7"].concat();
                        self.plant(2, &key, set(&key, field, &other), ("records", &name));
                        self.plant(3, &key, unset(&key, field), ("records", ""));
                    }
                }
                let command = set(&key, b"0123456789abcd", b"12345678A1767225600000-5");
                self.plant(
                    0,
                    &key,
                    command,
                    ("records", "3031323334353637383961626364"),
                );
                let command = set(&key, SENTINEL.as_bytes(), b"9");
                self.plant(4, &key, command, ("epoch", records.as_str()));
            }
        }
    }
}

/// A level with another balance, another seq, another flag, and a level that cannot be read.
fn levels(value: &str) -> [String; 4] {
    let mut parts = value.split(' ').map(|part| part.parse::<u64>().unwrap());
    let (balance, seq) = (parts.next().unwrap(), parts.next().unwrap());
    let flag = parts.next().unwrap_or(0);
    let other = 1 - flag;
    [
        format!("{} {seq} {flag}", balance + 1),
        format!("{balance} {} {flag}", seq + 1),
        format!("{balance} {seq} {other}"),
        format!("{balance} x {flag}"),
    ]
}

/// The dumped values of keys, from which each change is undone.
pub(super) struct Kept {
    keys: BTreeMap<String, Value>,
}

impl Kept {
    pub(super) async fn of(redis: &mut MultiplexedConnection, plantings: &[Planting]) -> Self {
        let mut keys = BTreeMap::new();
        for planting in plantings {
            let dump = cmd("DUMP").arg(&planting.key).query_async(redis).await;
            keys.insert(planting.key.clone(), dump.unwrap());
        }
        Self { keys }
    }

    pub(super) async fn restore(self, redis: &mut MultiplexedConnection) {
        for (key, dump) in self.keys {
            let command = match dump {
                Value::BulkString(bytes) => {
                    let mut restore = cmd("RESTORE");
                    restore.arg(&key).arg(0).arg(bytes).arg("REPLACE");
                    restore
                }
                _ => cmd("UNLINK").arg(&key).to_owned(),
            };
            let _: Value = command.query_async(redis).await.unwrap();
        }
    }
}
