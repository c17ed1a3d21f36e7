//! Threads of their own for requests.
//!
//! In a rush thousands of requests are ready to run at any moment. A task among them waits for all of them, each time
//! that it waits for anything: MySQL falls behind, and the machine pays for that when the rush is over. So everything
//! else runs on other threads.

use tokio::runtime::{Builder, Handle, Runtime};

/// The runtime of connections, handlers and batchers.
pub struct Requests {
    /// None while it is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Requests {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .thread_name("requests")
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self {
            runtime: Some(runtime),
            handle,
        })
    }

    /// Where they run.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        // A runtime that waits for its tasks may not be dropped where others run.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
