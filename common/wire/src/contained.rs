//! [`contain`] for a future: a panic in one of its polls is an error of the whole.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use towline_base::containment::{Caught, contain};

/// Awaits `future`. After a panic its locals are dropped already, and it is not polled again.
pub(crate) async fn contained<F: Future>(future: F) -> Result<F::Output, Caught> {
    let mut future = pin!(future);
    poll_fn(|cx| match contain(|| future.as_mut().poll(cx)) {
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(caught) => Poll::Ready(Err(caught)),
    })
    .await
}
