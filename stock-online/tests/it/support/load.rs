//! Clients that order until they are told to stop, and what they saw.

use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::{Answer, Client, until};

/// Everything that clients saw during a load.
#[derive(Debug, Default, Clone)]
pub(crate) struct History {
    pub(crate) accepted: Vec<String>,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
}

impl History {
    /// A broken connection is an unknown outcome.
    fn note(&mut self, answer: Option<Answer>) {
        match answer {
            Some(answer) if answer.status == 201 => self.accepted.push(answer.order_id()),
            Some(answer) if answer.code() != "OUTCOME_UNKNOWN" => self.refused += 1,
            _ => self.unknown += 1,
        }
    }
}

/// A load of orders that goes on until it is stopped.
pub(crate) struct Load {
    stop: CancellationToken,
    history: Arc<Mutex<History>>,
    workers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// `workers` clients order one unit of product 1 again and again, on both paths.
    pub(crate) fn start(clients: &[Client], workers: usize) -> Self {
        Self::start_of(clients, workers, &[(1, 1)])
    }

    /// The same with these products and quantities.
    pub(crate) fn start_of(clients: &[Client], workers: usize, lines: &[(u64, i64)]) -> Self {
        let stop = CancellationToken::new();
        let history = Arc::new(Mutex::new(History::default()));
        let workers = (0..workers)
            .map(|number| {
                let client = clients[number % clients.len()].clone();
                let (stop, history) = (stop.clone(), Arc::clone(&history));
                let path = if number % 4 == 3 {
                    "/api/orders"
                } else {
                    "/api/redis/orders"
                };
                let lines = lines.to_vec();
                tokio::spawn(async move {
                    while !stop.is_cancelled() {
                        let answer = client.order(path, 2, &lines).try_send().await;
                        history.lock().unwrap().note(answer.ok());
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        Self {
            stop,
            history,
            workers,
        }
    }

    /// Waits until this many more orders were accepted.
    pub(crate) async fn accept(&self, more: usize) {
        let goal = self.history.lock().unwrap().accepted.len() + more;
        until("the load is accepted", || async {
            self.history.lock().unwrap().accepted.len() >= goal
        })
        .await;
    }

    pub(crate) async fn stop(self) -> History {
        self.stop.cancel();
        for worker in self.workers {
            worker.await.unwrap();
        }
        self.history.lock().unwrap().clone()
    }
}
