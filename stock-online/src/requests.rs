//! The runtime of requests, with threads of its own.
//!
//! In a rush thousands of requests are ready to run at any moment. A background task on the same
//! threads would wait behind all of them, each time that it waits for anything. MySQL would fall
//! behind, and the machine would pay for that after the rush. So everything else runs on other
//! threads.

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
    /// When the system cannot start threads.
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

    /// The handle of the runtime.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        // Dropping a runtime waits for its tasks, which panics inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
