//! What peers share, and how much of it one of them may take: connections, bytes that the server holds for them, and things it does
//! in a second. The server refuses requests beyond a limit, and never takes a resource from one peer for another.
//!
//! A peer is an address, or a machine that showed its token. An IPv6 /64 counts as one address, because its owner can use all of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Who takes something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Payer {
    /// Anyone at an address.
    Address(IpAddr),
    /// A machine, by name.
    Machine(Arc<str>),
}

impl Payer {
    /// All peers at this address.
    pub fn at(address: IpAddr) -> Self {
        Payer::Address(network(address))
    }
}

/// What an address counts as.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

/// A bucket that fills with time. What is taken may empty it and more, so that large things pass too; then the next one waits until
/// it is paid for.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    left: f64,
    filled: Instant,
}

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub per_second: f64,
    /// At least 1.
    pub most: f64,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate) -> Self {
        Bucket { rate, left: rate.most, filled: Instant::now() }
    }

    /// Takes so much, or says how long to wait for the next.
    pub fn spend(&mut self, amount: f64) -> Result<(), Duration> {
        self.spend_at(amount, Instant::now())
    }

    fn spend_at(&mut self, amount: f64, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + passed * self.rate.per_second).min(self.rate.most);
        self.filled = self.filled.max(now);
        if self.left >= 1.0 {
            self.left -= amount;
            return Ok(());
        }
        Err(Duration::from_secs_f64(((1.0 - self.left) / self.rate.per_second).min(3600.0)))
    }

    fn is_full(&self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left + passed * self.rate.per_second >= self.rate.most
    }
}

/// A bucket for each of many.
#[derive(Debug)]
pub(crate) struct Buckets<K>(Mutex<Table<K>>);

#[derive(Debug)]
struct Table<K> {
    rate: Rate,
    each: HashMap<K, Bucket>,
    /// For all that find no place in the table.
    others: Bucket,
    swept: Instant,
}

/// Buckets in a table. Those that are full again make room.
const MOST_BUCKETS: usize = 16_384;
/// From one look for them to the next.
const SWEEP: Duration = Duration::from_secs(1);

impl<K: Clone + Eq + Hash> Buckets<K> {
    pub fn new(rate: Rate) -> Self {
        let (each, others, swept) = (HashMap::new(), Bucket::new(rate), Instant::now());
        Buckets(Mutex::new(Table { rate, each, others, swept }))
    }

    /// Takes so much out of somebody's bucket, or says how long to wait for the next.
    pub fn spend(&self, who: &K, amount: f64) -> Result<(), Duration> {
        let mut table = lock(&self.0);
        if let Some(bucket) = table.each.get_mut(who) {
            return bucket.spend(amount);
        }
        let now = Instant::now();
        if table.each.len() >= MOST_BUCKETS && now.saturating_duration_since(table.swept) >= SWEEP {
            table.each.retain(|_, bucket| !bucket.is_full(now));
            table.swept = now;
        }
        if table.each.len() >= MOST_BUCKETS {
            return table.others.spend(amount);
        }
        let mut bucket = Bucket::new(table.rate);
        let spent = bucket.spend(amount);
        table.each.insert(who.clone(), bucket);
        spent
    }
}

/// Things counted by their owner, with a limit for each owner.
#[derive(Debug)]
pub(crate) struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Clone for Counts<K> {
    fn clone(&self) -> Self {
        Counts(self.0.clone())
    }
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Counts(Arc::default())
    }
}

impl<K: Clone + Eq + Hash> Counts<K> {
    /// So many more, unless they would be too many.
    pub fn take(&self, who: K, amount: usize, most: usize) -> Option<Counted<K>> {
        let mut counts = lock(&self.0);
        let now = counts.get(&who).copied().unwrap_or(0).checked_add(amount).filter(|now| *now <= most)?;
        counts.insert(who.clone(), now);
        drop(counts);
        Some(Counted { counts: self.clone(), who, amount })
    }
}

/// What counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted<K: Clone + Eq + Hash> {
    counts: Counts<K>,
    who: K,
    amount: usize,
}

impl<K: Clone + Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts.0);
        if let Some(count) = counts.get_mut(&self.who) {
            *count = count.saturating_sub(self.amount);
            if *count == 0 {
                counts.remove(&self.who);
            }
        }
    }
}

/// Bytes that a server may hold for all its peers, beside a few that each connection has for itself.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    left: usize,
    /// What one peer may have of them.
    share: usize,
    by: HashMap<Payer, usize>,
}

/// One peer of how many may have all of a pool's bytes.
const SHARES: usize = 4;

impl Pool {
    pub fn new(bytes: usize) -> Self {
        Pool(Arc::new(Mutex::new(Taken { left: bytes, share: bytes / SHARES, by: HashMap::new() })))
    }

    /// A connection's account: `own` bytes are its own, what is beyond them comes from the pool.
    pub fn account(&self, payer: Payer, own: usize) -> Account {
        Account(Arc::new(Inner { pool: self.clone(), payer, own: AtomicUsize::new(own) }))
    }

    fn take(&self, payer: &Payer, bytes: usize) -> bool {
        let mut taken = lock(&self.0);
        let has = taken.by.get(payer).copied().unwrap_or(0);
        if bytes > taken.left || has.saturating_add(bytes) > taken.share {
            return false;
        }
        taken.left -= bytes;
        taken.by.insert(payer.clone(), has + bytes);
        true
    }

    fn give_back(&self, payer: &Payer, bytes: usize) {
        let mut taken = lock(&self.0);
        taken.left += bytes;
        if let Some(has) = taken.by.get_mut(payer) {
            *has = has.saturating_sub(bytes);
            if *has == 0 {
                taken.by.remove(payer);
            }
        }
    }
}

/// What one connection may have the server hold.
#[derive(Clone, Debug)]
pub(crate) struct Account(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: Pool,
    payer: Payer,
    own: AtomicUsize,
}

impl Account {
    /// Room for so many bytes, if there is any.
    pub fn take(&self, bytes: usize) -> Option<Held> {
        let mut held = self.nothing();
        held.grow(bytes).then_some(held)
    }

    /// Room for nothing, which can grow.
    pub fn nothing(&self) -> Held {
        Held { account: self.clone(), own: 0, pooled: 0 }
    }
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    account: Account,
    own: usize,
    pooled: usize,
}

impl Held {
    /// Room for so many more bytes, if there is any.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let Inner { pool, payer, own } = &*self.account.0;
        let left = |left: usize| left.checked_sub(bytes);
        if own.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok() {
            self.own += bytes;
            return true;
        }
        let taken = pool.take(payer, bytes);
        self.pooled += if taken { bytes } else { 0 };
        taken
    }

    /// Holds nothing any more.
    pub fn clear(&mut self) {
        let Inner { pool, payer, own } = &*self.account.0;
        if self.own > 0 {
            own.fetch_add(std::mem::take(&mut self.own), Ordering::Relaxed);
        }
        if self.pooled > 0 {
            pool.give_back(payer, std::mem::take(&mut self.pooled));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.clear();
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_own_share_of_connections() {
        let counts = Counts::default();
        let enter = |text: &str| counts.take(network(address(text)), 1, 2);
        let (first, _second) = (enter("10.0.0.1"), enter("::ffff:10.0.0.1"));
        assert!(enter("10.0.0.1").is_none(), "the same, however it is written");
        assert!(enter("10.0.0.2").is_some());
        drop(first);
        assert!(enter("10.0.0.1").is_some());
        let _net = (enter("2001:db8::1"), enter("2001:db8::2"));
        assert!(enter("2001:db8::3").is_none(), "one network");
        assert!(enter("2001:db8:0:1::3").is_some());
    }

    #[test]
    fn nothing_is_kept_of_who_left() {
        let counts = Counts::default();
        drop(counts.take(address("10.0.0.1"), 1, 1));
        assert!(lock(&counts.0).is_empty());
        let pool = Pool::new(400);
        drop(pool.account(Payer::at(address("10.0.0.1")), 0).take(100));
        assert!(lock(&pool.0).by.is_empty());
    }

    #[test]
    fn a_bucket_lets_a_large_request_pass_and_makes_the_next_one_wait() {
        let mut bucket = Bucket::new(Rate { per_second: 10.0, most: 10.0 });
        let start = bucket.filled;
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        assert_eq!(bucket.spend_at(64.0, at(0.0)), Ok(()));
        let pause = bucket.spend_at(1.0, at(1.0)).unwrap_err().as_secs_f64();
        assert!((pause - 4.5).abs() < 1e-6, "{pause}: 64 of 20 are spent, and one more is needed");
        assert_eq!(bucket.spend_at(1.0, at(5.6)), Ok(()));
        assert_eq!(
            (0..20).filter(|_| bucket.spend_at(1.0, at(100.0)).is_ok()).count(),
            10,
            "a second's worth"
        );
    }

    #[test]
    fn more_peers_than_a_table_has_places_share_one_bucket_and_take_nothing_from_the_others() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            tokio::time::pause();
            let buckets = Buckets::new(Rate { per_second: 1.0, most: 2.0 });
            assert!(buckets.spend(&u32::MAX, 1.0).is_ok());
            let passed = (0..60_000_u32).filter(|peer| buckets.spend(peer, 2.0).is_ok()).count();
            assert!(passed <= MOST_BUCKETS, "{passed}");
            assert!(buckets.spend(&u32::MAX, 1.0).is_ok(), "the first has its own");
            assert!(buckets.spend(&70_000, 1.0).is_err());
            tokio::time::advance(Duration::from_secs(5)).await;
            assert!(buckets.spend(&70_000, 1.0).is_ok(), "those that are full again made room");
        });
    }

    proptest! {
        /// However it is taken and given back, nothing is lost, nobody has more than a share, and own bytes come first.
        #[test]
        fn bytes_are_taken_and_given_back(steps in prop::collection::vec((0u8..3, 0usize..300, any::<bool>()), 1..60)) {
            const OWN: usize = 100;
            let pool = Pool::new(1000);
            let accounts: Vec<_> = (1..=3).map(|i| pool.account(Payer::at(IpAddr::from([10, 0, 0, i])), OWN)).collect();
            let mut held: Vec<(usize, usize, Held)> = Vec::new();
            for (who, bytes, back) in steps {
                let who = usize::from(who);
                if back && !held.is_empty() {
                    held.remove(bytes % held.len());
                    continue;
                }
                let has = |who: usize| held.iter().filter(|(w, ..)| *w == who).map(|(_, _, h)| h.pooled).sum::<usize>();
                let (own, all): (usize, usize) = (
                    held.iter().filter(|(w, ..)| *w == who).map(|(_, _, h)| h.own).sum(),
                    (0..3).map(has).sum(),
                );
                let fits = own + bytes <= OWN || (all + bytes <= 1000 && has(who) + bytes <= 250);
                let taken = accounts[who].take(bytes);
                prop_assert_eq!(taken.is_some(), fits);
                held.extend(taken.map(|held| (who, bytes, held)));
            }
            drop(held);
            prop_assert_eq!(lock(&pool.0).left, 1000);
            prop_assert!(accounts.iter().all(|account| account.0.own.load(Ordering::Relaxed) == OWN));
        }
    }
}
