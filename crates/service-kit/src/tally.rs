//! How many of something each of many holds, such as connections of an address.
//!
//! Invariant: there is an entry for each that holds one, and no other, so this needs no more memory
//! than what is held.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;

/// The numbers by holder.
#[derive(Debug)]
pub struct Tally<K>(Mutex<HashMap<K, usize>>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Tally<K> {
    /// Adds one, unless the holder has `most` already. Returns whether there was room.
    pub fn take(&self, holder: K, most: usize) -> bool {
        let mut held = self.0.lock();
        let count = held.get(&holder).copied().unwrap_or_default();
        if count >= most {
            return false;
        }
        held.insert(holder, count + 1);
        true
    }

    /// Removes one that was added.
    pub fn give_back(&self, holder: &K) {
        let mut held = self.0.lock();
        if let Some(count) = held.get_mut(holder) {
            *count -= 1;
            if *count == 0 {
                held.remove(holder);
            }
        }
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}
