//! Pauses between attempts to connect: doubling, bounded, and random, so that many standbys do not come back together.

use std::time::Duration;

use rand::Rng;

/// See the module.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    /// The first pause is up to `first`, none is longer than `longest`.
    pub fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff {
            first,
            longest: longest.max(first),
            attempts: 0,
        }
    }

    /// No pause is longer than `longest` from now on.
    pub fn set_longest(&mut self, longest: Duration) {
        self.longest = longest.max(self.first);
    }

    /// The next pause: between a half and the whole of a length that doubles each time.
    pub fn next_pause(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.attempts.min(20));
        self.attempts = self.attempts.saturating_add(1);
        let whole = doubled.min(self.longest);
        whole.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// An attempt has succeeded.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        for whole in [100, 200, 400, 800, 1000, 1000] {
            let pause = backoff.next_pause().as_millis();
            assert!((whole / 2..=whole).contains(&pause), "{pause} of {whole}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= first);
        for _ in 0..100 {
            assert!(backoff.next_pause() <= longest);
        }
    }

    /// The setting was read once, at the start.
    #[test]
    fn a_changed_longest_pause_counts_from_the_next_one_on() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3600));
        for _ in 0..30 {
            backoff.next_pause();
        }
        let shorter = Duration::from_millis(300);
        backoff.set_longest(shorter);
        assert!(backoff.next_pause() <= shorter);
    }
}
